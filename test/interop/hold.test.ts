/*
 * A token that nobody uses is released, so that another program can have the card: the module is finalised, the sessions of the
 * clients live on, and the PIN that the host keeps is used once.
 */
import { createVerify } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { type AgentPort, createAgent } from "../../src/agent/agent.js";
import { boolAttribute, bytesAttribute, CKA, ulongAttribute } from "../../src/cryptoki/attributes.js";
import type { CallName } from "../../src/cryptoki/calls.js";
import { CKF, CKO, CKU } from "../../src/cryptoki/constants.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { CallArgs, CallResult } from "../../src/cryptoki/types.js";
import { createTokenHost, type PinSource, type TokenHost } from "../../src/token/host/host.js";
import { type AgentClient, connectP11Kit } from "../support/agent-clients.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";

const DATA = Buffer.from("to be signed");
let token: SoftHsm;
let shim: ShimModule;
let dir: string;
let host: TokenHost;
let agent: AgentPort;
let client: AgentClient;
const before = { ...process.env };

beforeAll(async () => {
  token = await createSoftHsm({ objects: "rsa", certificates: false });
  dir = await mkdtemp(join(tmpdir(), "tfwd-hold-"));
  return async () => {
    await token.dispose();
    await rm(dir, { recursive: true, force: true });
  };
});
beforeEach(async () => {
  shim = await createShimModule(token.modulePath);
});
afterEach(async () => {
  await client?.close();
  await agent?.close();
  await host?.close();
  await shim.dispose();
  process.env = { ...before };
});

/** An agent over the shim with the shortest hold there is, and a stock client of it. */
async function start(pin: "file" | "client" = "file", holdMs: number | null = 0, key = "all"): Promise<void> {
  Object.assign(process.env, token.env, shim.env);
  const path = join(dir, "pin");
  await writeFile(path, `${token.pin}\n`, { mode: 0o600 });
  const pinSource: PinSource = pin === "file" ? { kind: "file", path } : { kind: "client" };
  host = await createTokenHost({ modulePath: shim.modulePath, pinSource, holdMs });
  agent = await createAgent({ host, key, profile: "full", pinMode: pin === "file" ? "ask" : "client" });
  client = await connectP11Kit(agent);
}

const call = <N extends CallName>(name: N, args: CallArgs<N>): Promise<CallResult<N>> => client.cryptoki.call(name, args, client.ctx);

async function open(): Promise<{ session: bigint; key: bigint }> {
  const { slots } = await call("C_GetSlotList", { tokenPresent: 1, room: 64 });
  const slot = Array.isArray(slots) ? (slots[0] as bigint) : 0n;
  const { session = 0n } = await call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION | CKF.CKF_RW_SESSION });
  expect((await call("C_Login", { session, userType: CKU.CKU_USER, pin: Buffer.from(token.pin) })).rv).toBe(CKR.CKR_OK);
  await call("C_FindObjectsInit", { session, template: [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY)] });
  const { objects } = await call("C_FindObjects", { session, room: 1 });
  await call("C_FindObjectsFinal", { session });
  return { session, key: (objects as readonly bigint[])[0] ?? 0n };
}

const begin = async (session: bigint, key: bigint) =>
  (await call("C_SignInit", { session, mechanism: { type: CKM.CKM_SHA256_RSA_PKCS, parameter: null }, key })).rv;

async function sign(session: bigint): Promise<boolean> {
  const { rv, output } = await call("C_Sign", { session, data: DATA, room: 512 });
  const key = readFileSync(token.keys.rsa?.publicKeyFile ?? "");
  return (
    rv === CKR.CKR_OK &&
    createVerify("sha256")
      .update(DATA)
      .verify(key, output as Buffer)
  );
}

/** Waits for the epoch to move: handles of before are void. */
const released = (epoch: number) => vi.waitFor(() => expect(host.epoch).toBeGreaterThan(epoch), { timeout: 10_000 });

test("a token that nobody uses is released, really, and the client's own session and log-in go on after it", async () => {
  await start();
  const { session, key } = await open();
  const { pid, epoch } = host;
  await released(epoch);
  // Whatever is called in the module now finds it uninitialised, until the next use.
  expect(await begin(session, key)).toBe(CKR.CKR_OK);
  expect(await sign(session)).toBe(true);
  expect({ pid: host.pid, logins: await shim.logins() }).toEqual({ pid, logins: 2 });
});

test("the module is finalised by the release and initialised by the next call", async () => {
  await start();
  await shim.control("C_Finalize print finalised", "C_Initialize print initialised");
  const { session, key } = await open();
  await released(host.epoch);
  await shim.control("C_Initialize rv 5");
  // It cannot be opened again: so it was closed. The process is started anew and the program hears of it.
  expect(await begin(session, key)).not.toBe(CKR.CKR_OK);
  await shim.control();
  await vi.waitFor(async () => expect(await begin(session, key)).toBe(CKR.CKR_OK), { timeout: 20_000 });
});

test("an idle token is released once, not again and again", async () => {
  await start();
  await open();
  const { epoch } = host;
  await released(epoch);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(host.epoch).toBe(epoch + 1);
});

test("what is under way keeps the token: an operation, a session object", async () => {
  await start();
  const { session, key } = await open();
  expect(await begin(session, key)).toBe(CKR.CKR_OK);
  const { epoch } = host;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(host.epoch).toBe(epoch);
  expect(await sign(session)).toBe(true);
  const template = [
    ulongAttribute(CKA.CKA_CLASS, CKO.CKO_DATA),
    boolAttribute(CKA.CKA_TOKEN, false),
    bytesAttribute(CKA.CKA_VALUE, Buffer.from("kept")),
  ];
  const { object = 0n } = await call("C_CreateObject", { session, template });
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(host.epoch).toBe(epoch);
  expect((await call("C_DestroyObject", { session, object })).rv).toBe(CKR.CKR_OK);
});

test("with the client's own PIN the token is kept as long as a client is logged in, for nobody else could log it in again", async () => {
  await start("client");
  const { session, key } = await open();
  const { epoch } = host;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(host.epoch).toBe(epoch);
  expect(await begin(session, key)).toBe(CKR.CKR_OK);
  expect(await sign(session)).toBe(true);
  await call("C_Logout", { session });
  await released(epoch);
});

test("a hold of for ever releases nothing", async () => {
  await start("file", null);
  await open();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(host.epoch).toBe(0);
});

test("another token that was put in while it was released is not taken for the first, and no PIN is shown to it", async () => {
  await start("file", 0, "pkcs11:id=%01;type=private");
  const { session, key } = await open();
  await released(host.epoch);
  await shim.control("serial ANOTHER");
  expect(await begin(session, key)).toBe(CKR.CKR_DEVICE_REMOVED);
  expect(await begin(session, key)).toBe(CKR.CKR_DEVICE_REMOVED);
  expect((await call("C_GetSlotList", { tokenPresent: 1, room: 64 })).slots).toEqual([]);
  expect(await shim.logins()).toBe(1);
});
