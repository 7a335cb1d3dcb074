/*
 * Each fault of the workstation, made for real: exactly one check fails (or warns), with the cause, code and mend that belong to it; the
 * others pass or are not reached.
 */
import { execFile, spawn } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { resultOf, walkDoctor } from "../support/doctor.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm, type SoftHsmOptions } from "../support/softhsm.js";
import { inDays, replaceCertificate } from "../support/token-certificate.js";
import { P11KIT_CLIENT } from "./agent-process.js";

const execute = promisify(execFile);
const VARIABLES = ["SOFTHSM2_CONF", "SHIM_MODULE", "SHIM_CONTROL", "SHIM_LOGINS", "SHIM_STATE"];
const before = VARIABLES.map((name) => [name, process.env[name]] as const);
let dir: string;
let token: SoftHsm;
let shim: ShimModule;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tokenfwd-doctor-"));
  token = await createSoftHsm({ objects: "rsa" });
  shim = await createShimModule(token.modulePath);
  Object.assign(process.env, shim.env, { SOFTHSM2_CONF: token.configFile });
});
afterEach(() => shim.control());
afterAll(async () => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  await shim.dispose();
  await token.dispose();
  await rm(dir, { recursive: true, force: true });
});

/** Walks with a token of its own. */
async function withToken<T>(options: SoftHsmOptions, work: (own: SoftHsm) => Promise<T>): Promise<T> {
  const own = await createSoftHsm(options);
  process.env["SOFTHSM2_CONF"] = own.configFile;
  try {
    return await work(own);
  } finally {
    process.env["SOFTHSM2_CONF"] = token.configFile;
    await own.dispose();
  }
}

async function library(name: string, source: string, ...flags: string[]): Promise<string> {
  const [c, so] = [join(dir, `${name}.c`), join(dir, `${name}.so`)];
  await writeFile(c, source);
  await execute("cc", ["-shared", "-fPIC", "-o", so, c, ...flags]);
  return so;
}

const here = () => ({ module: token.modulePath });

describe("a workstation that is in order", () => {
  test("passes every check, and the status is 0", async () => {
    const walked = await walkDoctor({ ...here(), token: token.label });
    expect(walked.results.filter(({ status }) => status !== "pass")).toEqual([]);
    expect(walked.status).toBe(0);
    expect(resultOf(walked, "key").detail).toBe('"rsa key" (RSA 2048)');
    expect(resultOf(walked, "certificate").detail).toContain("CN=ops.mcollective");
  });
});

describe("a module", () => {
  /** Everything that needs the module is not reached, and connect has the same code. */
  async function expectModule(path: string, cause: string, code: string, mend: RegExp): Promise<void> {
    const walked = await walkDoctor({ module: path });
    expect(walked.broken).toEqual([`module ${cause}`]);
    expect(resultOf(walked, "module")).toMatchObject({ status: "fail", code });
    expect(resultOf(walked, "module").mend).toMatch(mend);
    for (const id of ["card", "token", "pin", "key", "certificate", "validity"]) expect(resultOf(walked, id).status).toBe("not-reached");
    expect(walked.status).toBe(code === "E_MODULE" ? 20 : 21);
  }

  test("that is missing", () => expectModule(join(dir, "none.so"), "missing", "E_MODULE", /--module/));

  test("that is not a library", async () => {
    const path = join(dir, "text.so");
    await writeFile(path, "module: /usr/lib/softhsm/libsofthsm2.so\n");
    await expectModule(path, "not-a-library", "E_MODULE", /\.so file/);
    await expectModule(dir, "not-a-library", "E_MODULE", /module's file/);
  });

  test("of another architecture", async () => {
    const path = join(dir, "sparc.so");
    const header = Buffer.alloc(64);
    header.write("\u007fELF\u0002\u0001\u0001", "latin1");
    header.writeUInt16LE(43, 18);
    await writeFile(path, header);
    await expectModule(path, "architecture", "E_MODULE", /build of the module/);
  });

  test("that is p11-kit's own", async () => {
    const path = join(dir, "p11-kit-client.so");
    await symlink(token.modulePath, path);
    await expectModule(path, "leads-elsewhere", "E_MODULE", /opensc-pkcs11/);
  });

  test("that is a library and no PKCS#11 module", async () => {
    await expectModule(await library("plain", "int plain(void) { return 1; }\n"), "not-a-module", "E_MODULE", /Cryptoki/);
  });

  test("that needs a library which is missing", async () => {
    await library("libneeded", "int needed(void) { return 1; }\n");
    const path = await library("needing", "int needed(void); int needing(void) { return needed(); }\n", `-L${dir}`, "-l:libneeded.so");
    await rm(join(dir, "libneeded.so"));
    await expectModule(path, "unloadable", "E_MODULE", /ldd/);
  });

  test("that crashes when it is loaded", async () => {
    await shim.control("load abort");
    await expectModule(shim.modulePath, "crashes", "E_MODULE_FAULT", /pkcs11-tool/);
  });

  test("that hangs when it is loaded", async () => {
    await shim.control("load hang");
    await expectModule(shim.modulePath, "hangs", "E_MODULE_FAULT", /pkcs11-tool/);
  });

  test("that refuses to start", async () => {
    await shim.control("C_Initialize rv 30");
    await expectModule(shim.modulePath, "refuses", "E_MODULE_FAULT", /service/);
  });
});

describe("a token", () => {
  async function expectToken(options: Parameters<typeof walkDoctor>[0], cause: string, mend: RegExp): Promise<void> {
    const walked = await walkDoctor(options);
    expect(walked.broken).toEqual([`token ${cause}`]);
    expect(resultOf(walked, "token").mend).toMatch(mend);
    for (const id of ["pin", "key", "certificate"]) expect(resultOf(walked, id).status).toBe("not-reached");
  }

  test("that is not there", async () => {
    await shim.control("token out");
    await expectToken({ module: shim.modulePath }, "none", /plugged in/);
  });

  test("that was never initialised", async () => {
    const conf = join(dir, "blank.conf");
    await mkdir(join(dir, "blank"));
    await writeFile(conf, `directories.tokendir = ${join(dir, "blank")}\nobjectstore.backend = file\n`);
    process.env["SOFTHSM2_CONF"] = conf;
    await expectToken(here(), "not-initialized", /init-token/).finally(() => {
      process.env["SOFTHSM2_CONF"] = token.configFile;
    });
  });

  test("that is another one than --token means", () =>
    expectToken({ ...here(), token: "somebody else" }, "no-match", /the tokens there are: tokenfwd test/));

  test("that cannot be read", async () => {
    await shim.control("C_GetTokenInfo rv e1");
    await expectToken({ module: shim.modulePath }, "unreadable", /another program/);
  });

  test("whose module cannot list it", async () => {
    await shim.control("C_GetSlotList rv 6");
    await expectToken({ module: shim.modulePath }, "unlistable", /pkcs11-tool/);
  });

  test("with a PIN pad of its own", async () => {
    await shim.control("flags 100");
    await expectToken({ module: shim.modulePath }, "pin-pad", /--token/);
  });

  test("beside another one with a key", () =>
    withToken({ objects: "rsa" }, async (own) => {
      await own.addToken("second");
      const der = join(own.dir, "second.der");
      await execute("openssl", ["x509", "-in", own.keys.rsa?.certificateFile ?? "", "-outform", "DER", "-out", der]);
      const login = ["--token-label", "second", "--login", "--pin", own.pin];
      await own.pkcs11Tool(...login, "--write-object", der, "--type", "cert", "--id", "07");
      await expectToken(here(), "several-tokens", /--key/);
      const named = await walkDoctor({ ...here(), token: own.label });
      expect(named.broken).toEqual([]);
    }));
});

describe("a PIN", () => {
  test.each([
    ["flags 40000", "locked", "fail", 31, /PUK/],
    ["clear 8", "not-set", "fail", 1, /init-pin/],
    ["flags 20000", "last-try", "warn", 0, /right PIN/],
    ["flags 10000", "count-low", "warn", 0, /tries/],
  ] as const)("with the rule %s is %s", async (rule, cause, kind, status, mend) => {
    await shim.control(rule);
    const walked = await walkDoctor({ module: shim.modulePath });
    expect(walked.broken).toEqual([`pin ${cause}`]);
    expect(resultOf(walked, "pin")).toMatchObject({ status: kind, mend: expect.stringMatching(mend) });
    expect(walked.status).toBe(status);
    expect(resultOf(walked, "validity").status).toBe("pass");
  });

  test("source that others may read, or that is not there", async () => {
    const path = join(dir, "pin");
    await writeFile(path, "1234\n", { mode: 0o600 });
    expect((await walkDoctor({ ...here(), pinSource: { kind: "file", path } })).broken).toEqual([]);
    await chmod(path, 0o644);
    const open = await walkDoctor({ ...here(), pinSource: { kind: "file", path } });
    expect(open.broken).toEqual(["pin-source unusable"]);
    expect(open.status).toBe(30);
    expect(resultOf(open, "pin-source").mend).toContain("chmod 600");
    const closed = await walkDoctor({ ...here(), pinSource: { kind: "fd", fd: 99 } });
    expect(closed.broken).toEqual(["pin-source unusable"]);
  });

  test("that a client sends is a warning", async () => {
    const walked = await walkDoctor({ ...here(), pinSource: { kind: "client" } });
    expect([walked.broken, walked.status]).toEqual([["pin-source crosses-the-wire"], 0]);
  });
});

describe("a key and its certificate", () => {
  test("two keys are several, unless one is named", () =>
    withToken({}, async () => {
      const several = await walkDoctor(here());
      expect([several.broken, several.status]).toEqual([["key several-keys"], 20]);
      expect(resultOf(several, "key").mend).toMatch(/--key: 'pkcs11:.*id=%01/);
      expect((await walkDoctor({ ...here(), key: "pkcs11:id=%01" })).broken).toEqual([]);
      const ec = await walkDoctor({ ...here(), key: "pkcs11:id=%02" });
      expect([ec.broken, ec.status]).toEqual([["choria-identity not-rsa-yet"], 0]);
    }));

  test("a key that --key names and nobody has is not found", async () => {
    const walked = await walkDoctor({ ...here(), key: "pkcs11:id=%09" });
    expect([walked.broken, walked.status]).toEqual([["key not-found"], 20]);
  });

  test("a token that shows no object is a warning", () =>
    withToken({ objects: "none" }, async () => {
      const walked = await walkDoctor(here());
      expect([walked.broken, walked.status]).toEqual([["key none-shown"], 0]);
    }));

  test("a certificate that is expired, not yet good, soon over, or of another key is named for it", () =>
    withToken({ objects: "rsa" }, async (own) => {
      const { keyFile = "" } = own.keys.rsa ?? {};
      const outcome = async (): Promise<unknown> => {
        const { broken, status } = await walkDoctor(here());
        return [broken, status];
      };
      await replaceCertificate(own, keyFile, "20200101", "20210101");
      expect(await outcome()).toEqual([["validity expired"], 1]);
      await replaceCertificate(own, keyFile, "20900101", "20910101");
      expect(await outcome()).toEqual([["validity not-yet"], 1]);
      await replaceCertificate(own, keyFile, "20200101", inDays(3));
      expect(await outcome()).toEqual([["validity soon"], 0]);
      const other = join(own.dir, "other.key");
      await execute("openssl", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", other]);
      await replaceCertificate(own, other, "20200101", inDays(30));
      expect(await outcome()).toEqual([["certificate of-another-key"], 20]);
    }));
});

describe("a policy", () => {
  test("that is full over a forward needs its flag; read and raw RSA are warnings", async () => {
    expect((await walkDoctor({ ...here(), profile: "read" })).broken).toEqual(["policy read-only"]);
    expect((await walkDoctor({ ...here(), allowRawRsa: true })).broken).toEqual(["policy raw-rsa"]);
    expect((await walkDoctor({ ...here(), profile: "full" })).broken).toEqual([]);
  });
});

describe("the agent's socket", () => {
  const listening = (path: string, answer: (server: Server) => void): Promise<Server> =>
    new Promise((resolve) => {
      const server = createServer((socket) =>
        socket
          .on("error", () => {})
          .resume()
          .end("HTTP/1.1 400\r\n"),
      );
      answer(server);
      server.listen(path, () => resolve(server));
    });

  test("in a directory that others can enter", async () => {
    const runtime = join(dir, "open");
    await mkdir(runtime);
    await chmod(runtime, 0o755);
    const walked = await walkDoctor(here(), { XDG_RUNTIME_DIR: runtime });
    expect([walked.broken, walked.status]).toEqual([["agent-socket unfit-directory"], 0]);
  });

  test("that a stranger has, or that is left over", async () => {
    const path = join(dir, "agent.sock");
    const server = await listening(path, () => {});
    const live = await walkDoctor(here(), { TOKENFWD_AGENT: path });
    expect(live.broken).toEqual(["agent-socket stranger"]);
    await new Promise((resolve) => server.close(resolve));
    // A socket that its owner did not take away.
    await execute("python3", ["-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path]);
    const stale = await walkDoctor(here(), { TOKENFWD_AGENT: path });
    expect(stale.broken).toEqual(["agent-socket stale"]);
    expect(resultOf(stale, "agent-socket").mend).toBe(`rm '${path}'`);
  });
});

describe("a card reader", () => {
  /** A module that counts as one for cards, by its name. */
  const cardModule = async (): Promise<string> => {
    const path = join(dir, "libykcs11.so");
    await copyFile(shim.modulePath, path);
    return path;
  };

  test("without its daemon is what keeps the token from being seen", async () => {
    const module = await cardModule();
    await shim.control("token out");
    const walked = await walkDoctor({ module }, { PCSCLITE_CSOCK_NAME: join(dir, "no-pcscd") });
    expect([walked.broken, walked.status]).toEqual([["card no-daemon"], 20]);
    expect(resultOf(walked, "card").mend).toContain("pcscd");
    expect(resultOf(walked, "token").status).toBe("not-reached");
  });

  test("that another program holds is named with the program", async () => {
    const module = await cardModule();
    await shim.control("token out");
    const socket = join(dir, "pcscd");
    const daemon = createServer((connection) => connection.destroy());
    await new Promise<void>((resolve) => daemon.listen(socket, resolve));
    const scdaemon = join(dir, "scdaemon");
    await copyFile("/bin/sleep", scdaemon);
    const holder = spawn(scdaemon, ["60"], { stdio: "ignore" });
    try {
      await new Promise((resolve) => holder.once("spawn", resolve));
      const walked = await walkDoctor({ module }, { PCSCLITE_CSOCK_NAME: socket });
      expect(walked.broken).toEqual(["card held", "token none"]);
      expect(resultOf(walked, "card").detail).toContain(`scdaemon (process ${holder.pid})`);
      expect(resultOf(walked, "card").mend).toContain("gpgconf --kill scdaemon");
    } finally {
      holder.kill("SIGKILL");
      await new Promise((resolve) => holder.once("exit", resolve));
      await new Promise((resolve) => daemon.close(resolve));
    }
  });
});

describe("Choria", () => {
  const GOOD = (ca: string): string[] => [
    "plugin.security.provider = file",
    `plugin.security.file.ca = ${ca}`,
    "plugin.choria.middleware_hosts = broker.example:4222",
    "discovery_timeout = 20",
  ];
  let home: string;
  const configured = async (lines: readonly string[], options: Parameters<typeof walkDoctor>[0] = here()) => {
    home = await mkdtemp(join(dir, "home-"));
    await writeFile(join(home, ".choriarc"), lines.map((line) => `${line}\n`).join(""), { mode: 0o600 });
    return walkDoctor(options, { HOME: home });
  };
  const caFile = () => token.caFile ?? "";

  test("with a configuration that is in order passes, and names the caller", async () => {
    const walked = await configured(GOOD(caFile()));
    expect([walked.broken, walked.status]).toEqual([[], 0]);
    expect(resultOf(walked, "choria-config").detail).toContain("provider file");
    expect(resultOf(walked, "choria-identity").detail).toBe("choria=ops.mcollective");
  });

  test("with its own pkcs11 provider works with tokenfwd choria run alone, which is a warning", async () => {
    const driver = `plugin.security.pkcs11.driver_file = ${P11KIT_CLIENT}`;
    const walked = await configured(["plugin.security.provider = pkcs11", driver, ...GOOD(caFile()).slice(1)]);
    expect([walked.broken, walked.status]).toEqual([["choria-config stock-only"], 0]);
    expect(resultOf(walked, "choria-config").mend).toContain("tokenfwd choria run");
  });

  test("with a line in the wrong syntax is told the line and what to write", async () => {
    const walked = await configured([...GOOD(caFile()), 'plugin.choria.srv_domain: "example.net"']);
    expect([walked.broken, walked.status]).toEqual([["choria-config syntax"], 50]);
    expect(resultOf(walked, "choria-config")).toMatchObject({
      code: "E_CHORIA_CONFIG",
      detail: expect.stringMatching(/\.choriarc line 5: /),
      mend: expect.stringContaining("plugin.choria.srv_domain = example.net"),
    });
  });

  test("without the CA that it names is told so", async () => {
    const walked = await configured(GOOD(join(dir, "no-ca.pem")));
    expect([walked.broken, walked.status]).toEqual([["choria-config ca"], 50]);
  });

  test("with a configuration that cannot be read is told so", async () => {
    home = await mkdtemp(join(dir, "home-"));
    await mkdir(join(home, ".choriarc"));
    const walked = await walkDoctor(here(), { HOME: home });
    expect([walked.broken, walked.status]).toEqual([["choria-config unreadable"], 50]);
  });

  test("and a token whose key is an EC key fails for that alone", () =>
    withToken({ objects: "ec" }, async () => {
      const walked = await configured(GOOD(caFile()));
      expect([walked.broken, walked.status]).toEqual([["choria-identity not-rsa"], 50]);
      expect(resultOf(walked, "choria-identity")).toMatchObject({ code: "E_CHORIA_CERT", mend: expect.stringContaining("RSA") });
    }));

  test("and a token without a certificate, with a name that servers refuse, or with every key exposed", async () => {
    await withToken({ objects: "rsa", certificates: false }, async () => {
      expect((await configured(GOOD(caFile()))).broken).toEqual(["choria-identity no-certificate"]);
    });
    await withToken({ objects: "rsa", commonName: "rip van winkle" }, async () => {
      const walked = await configured(GOOD(caFile()));
      expect([walked.broken, walked.status]).toEqual([["choria-identity unfit-name"], 50]);
    });
    await withToken({ objects: "rsa", commonName: "rip" }, async () => {
      const walked = await configured(GOOD(caFile()));
      expect([walked.broken, walked.status]).toEqual([["choria-identity unusual-name"], 0]);
      expect(resultOf(walked, "choria-identity").mend).toContain("certname_whitelist = ^rip$");
    });
    await withToken({ objects: "rsa+ec" }, async () => {
      expect((await configured(GOOD(caFile()), { ...here(), key: "all" })).broken).toEqual(["choria-identity several"]);
    });
  });

  test("and a locked PIN are two faults that do not hide one another", async () => {
    await shim.control("flags 40000");
    const walked = await configured([...GOOD(caFile()), "ttl: 60"], { module: shim.modulePath });
    expect([walked.broken, walked.status]).toEqual([["pin locked", "choria-config syntax"], 31]);
  });
});
