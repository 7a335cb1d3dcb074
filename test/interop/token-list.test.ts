/*
 * `tokenfwd token list`, and commands without --module, as a user runs them: p11-kit's own files of this machine, a SoftHSM, and
 * modules of the user's configuration that must not be loaded.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { runCli, startCli } from "./cli-process.js";

interface Listed {
  readonly v: number;
  readonly usable: number;
  readonly modules: readonly {
    readonly module: string | null;
    readonly from: string;
    readonly state: string;
    readonly why: string | null;
    readonly library: { readonly manufacturer: string; readonly description: string } | null;
    readonly slots: readonly {
      readonly slot: string;
      readonly description: string;
      readonly token: Readonly<Record<string, unknown>> | null;
    }[];
  }[];
}

let token: SoftHsm;
let shim: ShimModule;
let dir: string;
let env: NodeJS.ProcessEnv;
/** The modules directory of the user's p11-kit configuration. */
let modules: string;

beforeAll(async () => {
  token = await createSoftHsm({ label: "liste ü" });
  shim = await createShimModule(token.modulePath);
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-list-"));
  modules = join(dir, "pkcs11", "modules");
  // libtpm2-pkcs11 makes its store where it is loaded: not in the home directory of whoever runs the tests.
  env = { ...token.env, ...shim.env, XDG_CONFIG_HOME: dir, HOME: dir };
});
afterEach(async () => {
  rmSync(join(dir, "pkcs11"), { recursive: true, force: true });
  await shim.control();
});
afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await shim?.dispose();
  await token?.dispose();
});

const configure = (name: string, text: string): void => {
  mkdirSync(modules, { recursive: true, mode: 0o755 });
  writeFileSync(join(modules, name), text, { mode: 0o644 });
};
async function list(...args: string[]): Promise<{ code: number | null; stderr: string; found: Listed }> {
  const done = await runCli(["token", "list", "--json", ...args], { env });
  return { code: done.code, stderr: done.stderr, found: JSON.parse(done.stdout.toString()) as Listed };
}

describe("token list", () => {
  it("finds the modules of this machine, and the token in one of them, with its objects as URIs", async () => {
    const { code, stderr, found } = await list();
    expect({ code, stderr, v: found.v, usable: found.usable }).toEqual({ code: 0, stderr: "", v: 1, usable: 1 });
    const softhsm = found.modules.filter(({ module }) => module !== null && realpathSync(module) === realpathSync(token.modulePath));
    expect(softhsm).toHaveLength(1);
    expect(softhsm[0]).toMatchObject({
      state: "ok",
      why: null,
      library: { manufacturer: "SoftHSM", description: "Implementation of PKCS11" },
    });
    const [slot] = softhsm[0]?.slots ?? [];
    expect(slot?.slot).toMatch(/^[0-9]+$/);
    expect(slot?.token).toMatchObject({ label: "liste ü", usable: true, problems: [], loginRequired: true, sameAs: null });
    const objects = slot?.token?.["objects"] as readonly Readonly<Record<string, string>>[];
    expect(objects.map(({ type, label, id }) => [type, label, id])).toEqual([
      ["cert", "rsa key", "01"],
      ["cert", "ec key", "02"],
      ["public", "rsa key", "01"],
      ["public", "ec key", "02"],
    ]);
    expect(objects[0]?.["uri"]).toBe(`${slot?.token?.["uri"]};id=%01;object=rsa%20key;type=cert`);
    expect(found.modules.find(({ module }) => module?.endsWith("/p11-kit-trust.so"))).toMatchObject({ state: "denied" });
  });

  it("says what is wrong with each module, loads none that it must not, and one broken module hides no other", async () => {
    const evil = join(dir, "evil.so");
    symlinkSync(P11KIT_CLIENT, evil);
    configure("a-evil.module", `module: ${evil}\n`);
    configure("b-crash.module", `module: ${shim.modulePath}\n`);
    configure("c-remote.module", `remote: |touch ${join(dir, "touched")}\n`);
    configure("d-none.module", `module: ${join(dir, "none.so")}\n`);
    await shim.control("load abort");
    const { code, found } = await list();
    rmSync(evil);
    expect(code).toBe(0);
    const of = (name: string) => found.modules.find(({ from }) => from.endsWith(`/${name}.module`));
    expect(of("a-evil")).toMatchObject({ state: "denied", why: expect.stringContaining("p11-kit-client.so") });
    expect(of("b-crash")).toMatchObject({ state: "faulty", why: expect.stringContaining("SIGABRT") });
    expect(of("c-remote")).toMatchObject({ module: null, state: "denied", why: expect.stringContaining("remote") });
    expect(of("d-none")).toMatchObject({ state: "denied", why: "there is no such file" });
    expect(existsSync(join(dir, "touched"))).toBe(false);
    expect(found.usable).toBe(1);
  });

  it("counts a card that two modules show once, for the one with the higher priority", async () => {
    configure("z-shim.module", `module: ${shim.modulePath}\npriority: 9\n`);
    const { found } = await list();
    expect(found.usable).toBe(1);
    expect(found.modules[0]?.module).toBe(shim.modulePath);
    const second = found.modules.find(({ module }) => module !== null && realpathSync(module) === realpathSync(token.modulePath));
    expect(second?.slots[0]?.token).toMatchObject({ label: "liste ü", sameAs: shim.modulePath });
  });

  it("with --module looks at that module and at nothing else, and ends with 20 when no token of it can be used", async () => {
    await shim.control("flags 40000");
    configure("a.module", `module: ${token.modulePath}\n`);
    const { code, stderr, found } = await list("--module", shim.modulePath);
    expect(code).toBe(20);
    expect(stderr).toContain("no token can be used [E_TOKEN_NOT_FOUND 20]");
    expect(found.modules).toHaveLength(1);
    expect(found.modules[0]).toMatchObject({ module: shim.modulePath, from: "--module", state: "ok" });
    expect(found.modules[0]?.slots[0]?.token).toMatchObject({ usable: false, problems: ["pin-locked"] });
  });

  it("is a table for a person, in columns, without anything that a terminal would act on", async () => {
    const done = await runCli(["token", "list", "--module", token.modulePath], { env });
    expect(done.code, done.stderr).toBe(0);
    const text = done.stdout.toString();
    expect(text).toMatch(/^module {4}\//);
    expect(text).toMatch(/^ {2}library {3}SoftHSM, Implementation of PKCS11$/m);
    expect(text).toMatch(/^ {4}token {5}liste ü$/m);
    const objects = text.split("\n").filter((line) => /^ {4}(cert|public) /.test(line));
    expect(objects).toHaveLength(4);
    expect(new Set(objects.map((line) => line.indexOf("pkcs11:"))).size).toBe(1);
    expect(text).toMatch(/^ {4}problem {3}not initialised/m);
    expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
  });

  it("takes no command, no unknown option and no empty module", async () => {
    for (const args of [
      ["--", "true"],
      ["--pin-source", "ask"],
      ["--module", ""],
    ]) {
      const done = await runCli(["token", "list", "--json", ...args], { env });
      expect([args, done.code, done.stdout.toString()]).toEqual([args, args[0] === "--" ? 255 : 2, ""]);
      expect(done.stderr).toContain("E_USAGE");
    }
  });

  it("ends on a signal, with 130 and without the module's process", async () => {
    await shim.control("C_GetSlotList hang");
    const cli = startCli(["token", "list", "--module", shim.modulePath], { env });
    const host = await vi.waitUntil(() => childrenOf(cli.pid)[0], { timeout: 10_000 });
    cli.child.kill("SIGINT");
    const done = await cli.exited;
    expect([done.code, done.stdout.toString()]).toEqual([130, ""]);
    expect(existsSync(`/proc/${host}`)).toBe(false);
  });
});

function childrenOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
}

describe("without --module", () => {
  it("agent run takes the one module that shows a token, and says which", async () => {
    const socket = join(dir, "agent", "s");
    const agent = startCli(["agent", "run", "--socket", socket], { env });
    try {
      await agent.untilStderr(/listening on/);
      expect(agent.stderr()).toMatch(/^tokenfwd: using the module \/.*libsofthsm2\.so$/m);
    } finally {
      await agent.end();
    }
  });

  it("and without a token ends with 20 and the way to find out why", async () => {
    const done = await runCli(["agent", "run", "--socket", join(dir, "agent", "s"), "--token", "nobody's"], { env });
    expect(done.code).toBe(20);
    expect(done.stderr).toContain(
      "tokenfwd: no token matches --token [E_TOKEN_NOT_FOUND 20]\nhint: the tokens there are: liste ü; tokenfwd token list",
    );
  });
});
