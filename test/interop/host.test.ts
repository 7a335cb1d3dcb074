/*
 * The token host on a real SoftHSM through its child process: loading, faults, deadlines, restarts and what callers are
 * answered meanwhile.
 */
import { copyFile, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenfwdError } from "../../src/base/errors.js";
import type { Log } from "../../src/base/log.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { CallContext } from "../../src/cryptoki/types.js";
import { createTokenHost, type HostEvents, type TokenHost, type TokenHostOptions } from "../../src/token/host/host.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, SOFTHSM_MODULE, type SoftHsm } from "../support/softhsm.js";

const CKM_ECDSA = { type: 0x1041, parameter: null };
let token: SoftHsm;
let shim: ShimModule;
let dir: string;
const hosts: TokenHost[] = [];

beforeAll(async () => {
  token = await createSoftHsm({ objects: "ec", certificates: false });
  dir = await mkdtemp(join(tmpdir(), "tokenfwd-host-"));
});
afterAll(async () => {
  await token.dispose();
  await rm(dir, { recursive: true, force: true });
});
beforeEach(async () => {
  shim = await createShimModule(token.modulePath);
  vi.stubEnv("SOFTHSM2_CONF", token.configFile);
  for (const [name, value] of Object.entries(shim.env)) vi.stubEnv(name, value);
});
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close();
  vi.unstubAllEnvs();
  await shim.dispose();
});

function context(signal: AbortSignal = new AbortController().signal): CallContext {
  const origin = { kind: "local", destination: null, user: null, host: null, port: null, hostKeySha256: null, connectId: "test" } as const;
  return { client: "test", origin, signal };
}
const ctx = context();

async function start(options: Partial<TokenHostOptions> = {}): Promise<TokenHost> {
  const host = await createTokenHost({ modulePath: shim.modulePath, pinSource: { kind: "client" }, ...options });
  hosts.push(host);
  return host;
}

const nextEvent = <K extends keyof HostEvents>(host: TokenHost, name: K): Promise<HostEvents[K]> =>
  new Promise((resolve) => {
    const off = host.events.on(name, (event) => {
      off();
      resolve(event);
    });
  });

async function firstSlot(host: TokenHost): Promise<bigint> {
  const { slots } = await host.cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: 64 }, ctx);
  return (slots as readonly bigint[])[0] as bigint;
}

/** A session that is logged in and has found the private key. */
async function ready(host: TokenHost): Promise<{ session: bigint; key: bigint; slot: bigint }> {
  const { call } = host.cryptoki;
  const slot = await firstSlot(host);
  await call("C_GetTokenInfo", { slot }, ctx);
  const { session = 0n } = await call("C_OpenSession", { slot, flags: 6n }, ctx);
  await call("C_Login", { session, userType: 1n, pin: Buffer.from(token.pin) }, ctx);
  const value = Buffer.from("0300000000000000", "hex");
  await call("C_FindObjectsInit", { session, template: [{ type: 0, value, length: 8 }] }, ctx);
  const { objects } = await call("C_FindObjects", { session, room: 4 }, ctx);
  await call("C_FindObjectsFinal", { session }, ctx);
  return { session, key: (objects as readonly bigint[])[0] as bigint, slot };
}

async function sign(host: TokenHost, session: bigint, key: bigint, signal?: AbortSignal): Promise<number> {
  const init = await host.cryptoki.call("C_SignInit", { session, mechanism: CKM_ECDSA, key }, context(signal));
  if (init.rv !== CKR.CKR_OK) return init.rv;
  return (await host.cryptoki.call("C_Sign", { session, data: Buffer.alloc(32, 1), room: 256 }, context(signal))).rv;
}

/** Expects the start to fail with this code, in these words, and with a hint. */
async function expectFailure(options: Partial<TokenHostOptions>, code: string, message: RegExp): Promise<void> {
  const thrown: unknown = await start(options).catch((error: unknown) => error);
  if (!(thrown instanceof TokenfwdError)) throw new Error("the host started");
  expect(thrown.code).toBe(code);
  expect(thrown.message).toMatch(message);
  expect(thrown.hint).toBeTruthy();
}

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe("a module that cannot be used", () => {
  it.each([
    ["is missing", async () => join(dir, "missing.so"), "E_MODULE", /does not exist/],
    ["is a directory", async () => dir, "E_MODULE", /is not a file/],
    ["is a text file", async () => token.configFile, "E_MODULE", /is not a shared library/],
    ["has no C_GetFunctionList", async () => "/lib/x86_64-linux-gnu/libm.so.6", "E_MODULE", /not a PKCS#11 module/],
  ])("that %s is E_MODULE and says so", async (_what, path, code, message) => {
    await expectFailure({ modulePath: await path() }, code, message);
  });

  it("that is built for another architecture is E_MODULE and names ours", async () => {
    const foreign = join(dir, "foreign.so");
    const bytes = await readFile(SOFTHSM_MODULE);
    bytes.writeUInt16LE(8, 18);
    await writeFile(foreign, bytes);
    await expectFailure({ modulePath: foreign }, "E_MODULE", /another architecture/);
  });

  it("that needs a library which is not there is E_MODULE with the loader's words", async () => {
    const broken = join(dir, "broken.so");
    const bytes = await readFile(SOFTHSM_MODULE);
    bytes.write("libcryptX", bytes.indexOf("libcrypto"));
    await writeFile(broken, bytes);
    await expectFailure({ modulePath: broken }, "E_MODULE", /libcryptX/);
  });

  it("of p11-kit itself is refused, also under another name", async () => {
    const real = join(dir, "p11-kit-client.so");
    await copyFile(SOFTHSM_MODULE, real);
    const link = join(dir, "innocent.so");
    await symlink(real, link);
    for (const modulePath of [real, link]) await expectFailure({ modulePath }, "E_MODULE", /p11-kit/);
  });

  it("that crashes while it is loaded is E_MODULE_FAULT", async () => {
    await shim.control("load abort");
    await expectFailure({}, "E_MODULE_FAULT", /SIGABRT/);
  });

  it("that hangs while it is loaded is E_MODULE_FAULT, and no process is left", async () => {
    await shim.control("C_Initialize hang");
    await expectFailure({ loadTimeoutMs: 700 }, "E_MODULE_FAULT", /hung for 0.7 s/);
  });

  it("that refuses to start is E_MODULE_FAULT with its CK_RV", async () => {
    await shim.control("C_Initialize rv 30");
    await expectFailure({}, "E_MODULE_FAULT", /CKR_DEVICE_ERROR/);
  });
});

describe("a module that works", () => {
  it("signs through the host, and the process ends with close", async () => {
    const host = await start();
    const { session, key } = await ready(host);
    expect(await sign(host, session, key)).toBe(CKR.CKR_OK);
    const pid = host.pid ?? 0;
    expect(isAlive(pid)).toBe(true);
    await host.close();
    expect(isAlive(pid)).toBe(false);
    expect((await host.cryptoki.call("C_GetInfo", {}, ctx)).rv).toBe(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
  });

  it("writes to the log and not to our terminal, made printable", async () => {
    const lines: unknown[] = [];
    const log: Log = { debug: (text, fields) => void lines.push([text, fields]), info() {}, warn() {}, error() {} };
    await shim.control("C_GetInfo print chatter");
    const host = await start({ log });
    await host.cryptoki.call("C_GetInfo", {}, ctx);
    await vi.waitFor(() => {
      for (const stream of ["stdout", "stderr"]) expect(lines).toContainEqual(["the module wrote", { stream, line: "chatter\\x1b[31m" }]);
    });
  });

  it("keeps C_Initialize and C_Finalize of a client from the module", async () => {
    const host = await start();
    const { session } = await ready(host);
    expect((await host.cryptoki.call("C_Finalize", {}, ctx)).rv).toBe(CKR.CKR_OK);
    expect((await host.cryptoki.call("C_GetSessionInfo", { session }, ctx)).rv).toBe(CKR.CKR_OK);
  });

  it("says that a touch is waited for, with the token's label, and when it is over", async () => {
    const host = await start({ touchNoticeMs: 50 });
    const { session, key, slot } = await ready(host);
    const prompts: unknown[] = [];
    const touches: unknown[] = [];
    host.events.on("prompt", (event) => prompts.push(event));
    host.events.on("touch", (event) => touches.push(event));
    await shim.control("C_Sign sleep 300");
    expect(await sign(host, session, key)).toBe(CKR.CKR_OK);
    const touch = { kind: "touch", token: token.label, triesLeft: null, client: "test" };
    expect(prompts).toEqual([
      { ...touch, state: "open" },
      { ...touch, state: "closed" },
    ]);
    expect(touches).toEqual([
      { slot, waiting: true, client: "test" },
      { slot, waiting: false, client: "test" },
    ]);
  });

  it("drops a call whose caller has gone before its turn, and finishes the one before it", async () => {
    const host = await start();
    const { session, key, slot } = await ready(host);
    await shim.control("C_Sign sleep 300");
    const gone = new AbortController();
    const signing = sign(host, session, key);
    const waiting = host.cryptoki.call("C_GetTokenInfo", { slot }, context(gone.signal));
    gone.abort();
    expect((await waiting).rv).toBe(CKR.CKR_FUNCTION_CANCELED);
    expect(await signing).toBe(CKR.CKR_OK);
  });
});

describe("calls that lie in the host's pipe", () => {
  it("are not begun once their callers have gone, also while the module is busy with the one before", async () => {
    const host = await start({ touchNoticeMs: 50 });
    const { session, key } = await ready(host);
    const { session: other = 0n } = await host.cryptoki.call("C_OpenSession", { slot: await firstSlot(host), flags: 4n }, ctx);
    expect((await host.cryptoki.call("C_SignInit", { session: other, mechanism: CKM_ECDSA, key }, ctx)).rv).toBe(CKR.CKR_OK);
    expect((await host.cryptoki.call("C_SignInit", { session, mechanism: CKM_ECDSA, key }, ctx)).rv).toBe(CKR.CKR_OK);
    const touched = nextEvent(host, "touch");
    await shim.control("C_Sign sleep 400");
    const signing = host.cryptoki.call("C_Sign", { session, data: Buffer.alloc(32), room: 256 }, ctx);
    const gone = new AbortController();
    const waiting = Array.from({ length: 30 }, () =>
      host.cryptoki.call("C_Sign", { session: other, data: Buffer.alloc(32), room: 256 }, context(gone.signal)),
    );
    await touched;
    gone.abort();
    expect((await signing).rv).toBe(CKR.CKR_OK);
    expect(new Set((await Promise.all(waiting)).map(({ rv }) => rv))).toEqual(new Set([CKR.CKR_FUNCTION_CANCELED]));
    // Had one of them begun, the operation would be over.
    await shim.control();
    expect((await host.cryptoki.call("C_Sign", { session: other, data: Buffer.alloc(32), room: 256 }, ctx)).rv).toBe(CKR.CKR_OK);
  });

  it("answer in order, however many there are", async () => {
    const host = await start();
    const { session } = await ready(host);
    const order: number[] = [];
    const calls = Array.from({ length: 50 }, async (_, index) => {
      const { rv } = await host.cryptoki.call("C_GetSessionInfo", { session }, ctx);
      order.push(index);
      return rv;
    });
    expect(new Set(await Promise.all(calls))).toEqual(new Set([CKR.CKR_OK]));
    expect(order).toEqual(Array.from({ length: 50 }, (_, index) => index));
  });

  it("of which the module dies under the first: that one alone is lost, and no other is made with a handle of before", async () => {
    const host = await start();
    const { session, key, slot } = await ready(host);
    await host.cryptoki.call("C_SignInit", { session, mechanism: CKM_ECDSA, key }, ctx);
    await shim.control("C_Sign abort");
    const pair = { name: "C_SignInit", args: { session, mechanism: CKM_ECDSA, key } } as const;
    const then = { name: "C_Sign", args: { session, data: Buffer.alloc(32), room: 256 } } as const;
    const [lost, joined, ...infos] = await Promise.all([
      host.cryptoki.call("C_Sign", then.args, ctx),
      host.pair(pair, then, ctx),
      ...Array.from({ length: 10 }, () => host.cryptoki.call("C_GetTokenInfo", { slot }, ctx)),
    ]);
    expect(lost.rv).toBe(CKR.CKR_DEVICE_REMOVED);
    expect(joined).toEqual({ result: { rv: CKR.CKR_SESSION_HANDLE_INVALID }, begun: false, ahead: false });
    expect(new Set(infos.map(({ rv }) => rv))).toEqual(new Set([CKR.CKR_OK]));
    expect(host.epoch).toBe(1);
  });

  it("as a pair are one crossing: the second is made only when the first says yes", async () => {
    const host = await start();
    const { session, key } = await ready(host);
    const first = { name: "C_SignInit", args: { session, mechanism: CKM_ECDSA, key } } as const;
    const then = { name: "C_Sign", args: { session, data: Buffer.alloc(32), room: 256 } } as const;
    const signed = await host.pair(first, then, ctx);
    expect(signed.begun).toBe(true);
    expect((signed.result as { output?: Buffer }).output).toHaveLength(64);
    await shim.control("C_SignInit rv 60", "C_Sign abort");
    expect(await host.pair(first, then, ctx)).toEqual({ result: { rv: CKR.CKR_KEY_HANDLE_INVALID }, begun: false, ahead: false });
  });
});

describe("a module that fails under a call", () => {
  it("by a crash answers that call with CKR_DEVICE_REMOVED, restarts, and raises the epoch", async () => {
    const host = await start();
    const { session, key } = await ready(host);
    const pid = host.pid;
    await shim.control("C_Sign abort");
    const fault = nextEvent(host, "fault");
    const epoch = nextEvent(host, "epoch");
    expect(await sign(host, session, key)).toBe(CKR.CKR_DEVICE_REMOVED);
    expect((await fault).reason).toMatch(/SIGABRT/);
    await shim.control();
    expect(await epoch).toEqual({ epoch: 1 });
    expect(host.epoch).toBe(1);
    expect(host.pid).not.toBe(pid);
    const again = await ready(host);
    expect(await sign(host, again.session, again.key)).toBe(CKR.CKR_OK);
  });

  it("lets queued calls without a handle go on, and voids those with a handle of the old process", async () => {
    const host = await start();
    const { session, key, slot } = await ready(host);
    await shim.control("C_Sign abort");
    const { call } = host.cryptoki;
    await call("C_SignInit", { session, mechanism: CKM_ECDSA, key }, ctx);
    const [signed, info, stale] = await Promise.all([
      call("C_Sign", { session, data: Buffer.alloc(32), room: 256 }, ctx),
      call("C_GetTokenInfo", { slot }, ctx),
      call("C_DestroyObject", { session, object: key }, ctx),
    ]);
    expect([signed.rv, info.rv, stale.rv]).toEqual([CKR.CKR_DEVICE_REMOVED, CKR.CKR_OK, CKR.CKR_SESSION_HANDLE_INVALID]);
  });

  it("by a hang is killed at the deadline of the call's class", async () => {
    const host = await start({ deadlinesMs: { sign: 300 } });
    const { session, key } = await ready(host);
    await shim.control("C_Sign hang");
    const fault = nextEvent(host, "fault");
    const pid = host.pid ?? 0;
    expect(await sign(host, session, key)).toBe(CKR.CKR_DEVICE_REMOVED);
    expect((await fault).reason).toMatch(/hung for 0.3 s in C_Sign/);
    expect(isAlive(pid)).toBe(false);
    await shim.control();
    expect((await host.cryptoki.call("C_GetInfo", {}, ctx)).rv).toBe(CKR.CKR_OK);
  });

  it("when killed from outside is restarted without a call", async () => {
    const host = await start();
    const epoch = nextEvent(host, "epoch");
    process.kill(host.pid ?? 0, "SIGKILL");
    expect(await epoch).toEqual({ epoch: 1 });
    expect(await firstSlot(host)).toBeTypeOf("bigint");
  });

  it("three times is left alone for a while, then started again", async () => {
    const host = await start();
    await shim.control("C_GetInfo abort");
    for (let time = 0; time < 3; time += 1) {
      expect((await host.cryptoki.call("C_GetInfo", {}, ctx)).rv).toBe(CKR.CKR_DEVICE_REMOVED);
    }
    await shim.control();
    const began = Date.now();
    expect((await host.cryptoki.call("C_GetInfo", {}, ctx)).rv).toBe(CKR.CKR_DEVICE_REMOVED);
    expect(Date.now() - began).toBeLessThan(500);
    expect(host.pid).toBeUndefined();
    await nextEvent(host, "epoch");
    expect(Date.now() - began).toBeGreaterThan(4000);
    expect((await host.cryptoki.call("C_GetInfo", {}, ctx)).rv).toBe(CKR.CKR_OK);
  }, 15_000);

  it("in the log-in that the host makes itself is noticed as well", async () => {
    const pinFile = join(dir, "pin");
    await writeFile(pinFile, token.pin, { mode: 0o600 });
    const host = await start({ pinSource: { kind: "file", path: pinFile }, deadlinesMs: { login: 300 } });
    const slot = await firstSlot(host);
    const { session = 0n } = await host.cryptoki.call("C_OpenSession", { slot, flags: 4n }, ctx);
    await shim.control("C_Login hang");
    expect(await host.unlock({ slot, session, userType: 1n, who: "ops@bastion" }, ctx)).toEqual({
      rv: CKR.CKR_DEVICE_REMOVED,
      asked: false,
    });
  });

  it("while it is closed does not keep close waiting", async () => {
    const host = await start({ touchNoticeMs: 50 });
    const { session, key } = await ready(host);
    await shim.control("C_Sign hang");
    const signing = sign(host, session, key);
    await nextEvent(host, "touch");
    const began = Date.now();
    await host.close();
    expect(Date.now() - began).toBeLessThan(4000);
    expect(await signing).not.toBe(CKR.CKR_OK);
  });
});

describe("a token that is pulled", () => {
  it("is told as token-gone once, and as token-in when it comes back", async () => {
    const host = await start();
    const { session, slot } = await ready(host);
    const told: unknown[] = [];
    host.events.on("token-gone", (event) => told.push(["gone", event.slot]));
    host.events.on("token-in", (event) => told.push(["in", event.slot]));
    await shim.control("C_GetSessionInfo rv 32");
    await host.cryptoki.call("C_GetSessionInfo", { session }, ctx);
    await host.cryptoki.call("C_GetSessionInfo", { session }, ctx);
    await shim.control();
    await firstSlot(host);
    expect(told).toEqual([
      ["gone", slot],
      ["in", slot],
    ]);
  });
});
