/*
 * Which modules discovery finds and which it must not load, on real files in a directory of its own. Nothing here is loaded: the
 * libraries are empty files.
 */
import { chmodSync, chownSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pathFault } from "../../../src/base/trusted-path.js";
import { type DiscoveryPlaces, deniedBecause, findCandidates, systemPlaces } from "../../../src/token/discovery/candidates.js";
import { parseP11KitConfig } from "../../../src/token/discovery/p11kit-config.js";

const uid = process.geteuid?.() ?? 0;
const root = uid === 0;
let dir: string;
let places: DiscoveryPlaces;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-discovery-"));
  places = {
    moduleDirectories: [join(dir, "etc/modules"), join(dir, "share/modules")],
    configFile: join(dir, "etc/pkcs11.conf"),
    libraryDirectories: [join(dir, "lib/pkcs11")],
    wellKnownDirectories: [join(dir, "lib"), join(dir, "lib/pkcs11")],
  };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Writes a file below the directory, with every directory on the way 0755. */
function file(name: string, text = "", mode = 0o644): string {
  const path = join(dir, name);
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}
const configure = (where: "user" | "etc" | "share", name: string, ...lines: string[]): string =>
  file(where === "user" ? `home/.config/pkcs11/modules/${name}` : `${where}/modules/${name}`, `${lines.join("\n")}\n`);
const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({ HOME: join(dir, "home"), ...more });
const find = (more: NodeJS.ProcessEnv = {}) => findCandidates(places, env(more), uid);
const loaded = (more: NodeJS.ProcessEnv = {}) => find(more).flatMap(({ path, denied }) => (denied === null && path !== null ? [path] : []));

describe("a path that only we or root could have made", () => {
  it("is one whose file and directories nobody else can write to", () => {
    expect(pathFault(file("lib/a.so"), uid, true)).toBeNull();
  });

  it.each([
    ["the file is writable by its group", () => chmodSync(join(dir, "lib/a.so"), 0o664), "a.so can be written by others"],
    ["the file is writable by all", () => chmodSync(join(dir, "lib/a.so"), 0o646), "a.so can be written by others"],
    ["its directory is writable by others", () => chmodSync(join(dir, "lib"), 0o775), "lib can be written by others"],
    ["its directory is like /tmp", () => chmodSync(join(dir, "lib"), 0o1777), "lib can be written by others"],
    ["a directory above is writable by others", () => chmodSync(dir, 0o777), "can be written by others"],
    ["there is none", () => rmSync(join(dir, "lib/a.so")), "does not exist"],
  ])("is not when %s", (_what, spoil, text) => {
    const path = file("lib/a.so");
    spoil();
    expect(pathFault(path, uid, true)).toContain(text);
  });

  it("is not when the file, a directory or a link on the way belongs to somebody else", () => {
    const path = file("lib/a.so");
    if (!root) {
      // Only root can give files away; so we look as somebody else does.
      expect(pathFault(path, uid + 1, true)).toContain(`belongs to another user (uid ${uid})`);
      return;
    }
    const link = join(dir, "link.so");
    symlinkSync(path, link);
    expect(pathFault(link, uid, true)).toBeNull();
    lchownSync(link, 4242, 4242);
    expect(pathFault(link, uid, true)).toContain("link.so belongs to another user (uid 4242)");
    chownSync(join(dir, "lib"), 4242, 4242);
    expect(pathFault(path, uid, true)).toContain("lib belongs to another user");
    chownSync(join(dir, "lib"), 0, 0);
    chownSync(path, 4242, 4242);
    expect(pathFault(path, uid, true)).toContain("a.so belongs to another user");
  });

  it("is judged by the directory that a link leads to, and by the one that holds the link", () => {
    file("open/a.so");
    chmodSync(join(dir, "open"), 0o777);
    mkdirSync(join(dir, "lib"));
    symlinkSync(join(dir, "open/a.so"), join(dir, "lib/a.so"));
    expect(pathFault(join(dir, "lib/a.so"), uid, true)).toContain("open can be written by others");
    file("closed/b.so");
    symlinkSync(join(dir, "closed/b.so"), join(dir, "open/b.so"));
    expect(pathFault(join(dir, "open/b.so"), uid, true)).toContain("open can be written by others");
  });
});

describe("p11-kit's files", () => {
  it("are name: value lines; comments and what is no line of them are left out", () => {
    const text = "# module: no.so\n module :  a.so \nx-init-reserved:\nnot a line\npriority:7\npriority: 9\n";
    expect([...parseP11KitConfig(text)]).toEqual([
      ["module", "a.so"],
      ["x-init-reserved", ""],
      ["priority", "7"],
    ]);
  });

  it("give modules by priority, the highest first, then by name, with a relative path found in the module directory", () => {
    const [one, two, three] = [file("opt/one.so"), file("lib/pkcs11/two.so"), file("opt/three.so")];
    configure("share", "b.module", `module: ${one}`);
    configure("share", "a.module", "module: two.so");
    configure("share", "z.module", `module: ${three}`, "priority: 10");
    expect(find().map(({ path }) => path)).toEqual([three, two, one]);
    expect(find()[0]?.from).toBe(`p11-kit ${join(dir, "share/modules/z.module")}`);
  });

  it("of the user stand above those of /etc, and those above the packages', field by field", () => {
    const [low, high] = [file("opt/low.so"), file("opt/high.so")];
    configure("share", "m.module", `module: ${low}`, "trust-policy: yes");
    configure("etc", "m.module", "trust-policy: no");
    expect(loaded()).toEqual([low]);
    configure("user", "m.module", `module: ${high}`);
    expect(loaded()).toEqual([high]);
    expect(loaded({ P11_KIT_NO_USER_CONFIG: "1" })).toEqual([low]);
    const elsewhere = join(dir, "home/.config");
    expect(loaded({ HOME: join(dir, "nobody"), XDG_CONFIG_HOME: elsewhere })).toEqual([high]);
  });

  it.each([
    ["none", ["low"]],
    ["merge", ["high", "low"]],
    ["only", ["high"]],
  ])("of the user count as user-config: %s in /etc says", (mode, names) => {
    configure("share", "low.module", `module: ${file("opt/low.so")}`);
    configure("user", "high.module", `module: ${file("opt/high.so")}`);
    file("etc/pkcs11.conf", `user-config: ${mode}\n`);
    expect(loaded()).toEqual(names.map((name) => join(dir, `opt/${name}.so`)));
  });

  it.each([
    ["remote: |ssh other p11-kit remote", "(remote)"],
    ["trust-policy: yes", "trust policy"],
    ["enable-in: firefox, ssh", "(enable-in)"],
    ["disable-in: p11-kit-proxy tokenfwd", "(disable-in)"],
  ])("that say %s are not followed, and the library is not loaded as a well-known one either", (line, why) => {
    const path = file("lib/libykcs11.so");
    configure("share", "yk.module", `module: ${path}`, line);
    expect(find()).toEqual([expect.objectContaining({ path, denied: expect.stringContaining(why) })]);
  });

  it("that name us in enable-in, or another program in disable-in, are followed", () => {
    const [one, two] = [file("opt/one.so"), file("opt/two.so")];
    configure("share", "a.module", `module: ${one}`, "enable-in: tokenfwd");
    configure("share", "b.module", `module: ${two}`, "disable-in: p11-kit-proxy");
    expect(loaded()).toEqual([one, two]);
  });

  it("of the user that switch a module off keep it off", () => {
    const path = file("lib/opensc-pkcs11.so");
    configure("share", "opensc.module", `module: ${path}`);
    configure("user", "opensc.module", "module:");
    expect(find()).toEqual([expect.objectContaining({ path, denied: expect.stringContaining("switches it off") })]);
  });

  it("that others may write are not believed, whatever layer they are of", () => {
    const path = file("opt/one.so");
    chmodSync(configure("etc", "a.module", `module: ${path}`), 0o666);
    configure("share", "a.module", "priority: 1");
    expect(find()).toEqual([expect.objectContaining({ denied: expect.stringContaining("a.module can be written by others") })]);
  });

  it("without the ending or with a strange name are no modules", () => {
    const path = file("opt/one.so");
    for (const name of ["one.conf", ".one.module", "one.module~"]) configure("share", name, `module: ${path}`);
    expect(find()).toEqual([]);
  });
});

describe("well-known modules", () => {
  it("come after p11-kit's, ykcs11 before OpenSC before tpm2 before SoftHSM, each real file once", () => {
    const configured = file("opt/vendor.so");
    configure("share", "vendor.module", `module: ${configured}`);
    const names = ["libsofthsm2.so", "libtpm2_pkcs11.so", "opensc-pkcs11.so", "libykcs11.so"];
    const paths = names.map((name) => file(`lib/${name}`));
    mkdirSync(join(dir, "lib/pkcs11"));
    symlinkSync(join(dir, "lib/libykcs11.so"), join(dir, "lib/pkcs11/libykcs11.so"));
    expect(loaded()).toEqual([configured, ...paths.reverse()]);
  });

  it("are the only ones: another library in the same directory is not looked at", () => {
    file("lib/libevil-pkcs11.so");
    expect(find()).toEqual([]);
  });
});

describe("what discovery never loads", () => {
  it.each([
    "p11-kit-client.so",
    "p11-kit-proxy.so",
    "p11-kit-trust.so",
    "libp11-kit.so.0.3.0",
    "gnome-keyring-pkcs11.so",
    "pkcs11-spy.so",
    "libnssckbi.so",
  ])("%s, by its own name, by that of a link, and by that of the file behind it", (name) => {
    const path = file(`lib/${name}`);
    expect(deniedBecause(path, uid)).toContain(name);
    const link = join(dir, "lib/innocent.so");
    symlinkSync(path, link);
    expect(deniedBecause(link, uid)).toContain(name);
    file("lib/real.so");
    mkdirSync(join(dir, "other"));
    symlinkSync(join(dir, "lib/real.so"), join(dir, `other/${name}`));
    expect(deniedBecause(join(dir, `other/${name}`), uid)).toContain(name);
  });

  it("what is not there, and the reason is that", () => {
    configure("share", "gone.module", "module: /nonexistent/gone.so");
    expect(find()).toEqual([expect.objectContaining({ path: "/nonexistent/gone.so", denied: "there is no such file" })]);
  });
});

it("looks at the places of each platform, and only at absolute ones", () => {
  expect(systemPlaces("x64", "linux").wellKnownDirectories).toContain("/usr/lib/x86_64-linux-gnu/pkcs11");
  expect(systemPlaces("arm64", "darwin").wellKnownDirectories).toContain("/Library/OpenSC/lib");
  expect(systemPlaces("x64", "freebsd").configFile).toBe("/usr/local/etc/pkcs11/pkcs11.conf");
  expect(systemPlaces("x64", "linux").moduleDirectories).toEqual(["/etc/pkcs11/modules", "/usr/share/p11-kit/modules"]);
});
