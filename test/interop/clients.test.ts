/*
 * Several clients over one real module: what is theirs alone. SoftHSM through the real host process.
 */
import { createVerify } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { boolAttribute, bytesAttribute, CKA, findBytes, ulongAttribute } from "../../src/cryptoki/attributes.js";
import { CKF, CKK, CKO, CKS, CKU } from "../../src/cryptoki/constants.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { Attribute, CallContext, Cryptoki, Origin } from "../../src/cryptoki/types.js";
import { createTokenBroker, type TokenBroker, type Visibility } from "../../src/token/broker.js";
import { createTokenHost, type PinSource, type TokenHost } from "../../src/token/host/host.js";
import { softHsmHere } from "../support/softhsm-here.js";

const everything: Visibility = { slot: () => true, object: () => true, attribute: () => true };
const SIGN = { type: CKM.CKM_SHA256_RSA_PKCS, parameter: null };
const DATA = Buffer.from("signed by one of several clients");

const here = softHsmHere();
let host: TokenHost;
let broker: TokenBroker;
let slot: bigint;

async function start(pinSource: PinSource): Promise<void> {
  host = await createTokenHost({ modulePath: here.token.modulePath, pinSource });
  broker = createTokenBroker(host, pinSource.kind === "client" ? "client" : "ask");
  const { slots } = await host.cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: 16 }, context("test"));
  for (const each of slots as readonly bigint[]) {
    const { label } = await host.cryptoki.call("C_GetTokenInfo", { slot: each }, context("test"));
    if (label?.toString().trim() === here.token.label) slot = each;
  }
}

beforeEach(() => start({ kind: "file", path: here.pinFile }));
afterEach(() => host.close());

function context(client: string, destination = "bastion"): CallContext {
  const origin: Origin = {
    kind: "forward",
    destination,
    user: "ops",
    host: destination,
    port: 22,
    hostKeySha256: "SHA256:x",
    connectId: client,
  };
  return { client, origin, signal: new AbortController().signal };
}

interface Client {
  readonly cryptoki: Cryptoki;
  readonly ctx: CallContext;
  open(flags?: bigint): Promise<bigint>;
  login(session: bigint, pin?: string | null): Promise<number>;
  find(session: bigint, ...template: Attribute[]): Promise<readonly bigint[]>;
  sign(session: bigint, key: bigint): Promise<{ rv: number; output?: Buffer | number }>;
}

function connect(name: string, visibility = everything): Client {
  const cryptoki = broker.createClient(name, visibility);
  const ctx = context(name);
  return {
    cryptoki,
    ctx,
    async open(flags = CKF.CKF_SERIAL_SESSION) {
      const { rv, session } = await cryptoki.call("C_OpenSession", { slot, flags }, ctx);
      expect(rv).toBe(CKR.CKR_OK);
      return session ?? 0n;
    },
    login: async (session, pin = null) =>
      (await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: pin === null ? null : Buffer.from(pin) }, ctx)).rv,
    async find(session, ...template) {
      expect((await cryptoki.call("C_FindObjectsInit", { session, template }, ctx)).rv).toBe(CKR.CKR_OK);
      const { objects } = await cryptoki.call("C_FindObjects", { session, room: 100 }, ctx);
      expect((await cryptoki.call("C_FindObjectsFinal", { session }, ctx)).rv).toBe(CKR.CKR_OK);
      return objects as readonly bigint[];
    },
    async sign(session, key) {
      const init = await cryptoki.call("C_SignInit", { session, mechanism: SIGN, key }, ctx);
      return init.rv === CKR.CKR_OK ? cryptoki.call("C_Sign", { session, data: DATA, room: 512 }, ctx) : init;
    },
  };
}

const privateRsa = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY), ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_RSA)];

function verifies(signature: Buffer | number | undefined): boolean {
  const publicKey = readFileSync(here.token.keys.rsa?.publicKeyFile ?? "");
  return Buffer.isBuffer(signature) && createVerify("sha256").update(DATA).verify(publicKey, signature);
}

test("a private key exists for a client only once that client has logged in, whoever else has", async () => {
  const [one, two] = [connect("one"), connect("two")];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  expect(await one.find(sessionOne, ...privateRsa)).toEqual([]);
  expect(await one.login(sessionOne)).toBe(CKR.CKR_OK);
  const [key] = await one.find(sessionOne, ...privateRsa);
  expect(key).toBeDefined();
  expect(await two.find(sessionTwo, ...privateRsa)).toEqual([]);
  expect((await two.sign(sessionTwo, key ?? 0n)).rv).toBe(CKR.CKR_KEY_HANDLE_INVALID);
  expect(await two.login(sessionTwo)).toBe(CKR.CKR_OK);
  expect(await two.find(sessionTwo, ...privateRsa)).toHaveLength(1);
});

test("a signature made through a virtual session verifies with the key's own public key", async () => {
  const one = connect("one");
  const session = await one.open();
  await one.login(session);
  const [key] = await one.find(session, ...privateRsa);
  const { rv, output } = await one.sign(session, key ?? 0n);
  expect(rv).toBe(CKR.CKR_OK);
  expect(verifies(output)).toBe(true);
});

test("the log-out of one client leaves the other logged in, and takes its own keys away", async () => {
  const [one, two] = [connect("one"), connect("two")];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  await one.login(sessionOne);
  await two.login(sessionTwo);
  const [keyOne] = await one.find(sessionOne, ...privateRsa);
  const [keyTwo] = await two.find(sessionTwo, ...privateRsa);
  expect((await one.cryptoki.call("C_Logout", { session: sessionOne }, one.ctx)).rv).toBe(CKR.CKR_OK);
  expect((await one.sign(sessionOne, keyOne ?? 0n)).rv).toBe(CKR.CKR_KEY_HANDLE_INVALID);
  expect(verifies((await two.sign(sessionTwo, keyTwo ?? 0n)).output)).toBe(true);
  const states = await Promise.all(
    [one, two].map((client, index) =>
      client.cryptoki.call("C_GetSessionInfo", { session: index === 0 ? sessionOne : sessionTwo }, client.ctx),
    ),
  );
  expect(states.map((info) => info.state)).toEqual([CKS.CKS_RO_PUBLIC_SESSION, CKS.CKS_RO_USER_FUNCTIONS]);
});

test("a log-out ends an operation that was begun with a private key", async () => {
  const one = connect("one");
  const session = await one.open();
  await one.login(session);
  const [key] = await one.find(session, ...privateRsa);
  await one.cryptoki.call("C_SignInit", { session, mechanism: SIGN, key: key ?? 0n }, one.ctx);
  await one.cryptoki.call("C_Logout", { session }, one.ctx);
  const { rv } = await one.cryptoki.call("C_Sign", { session, data: DATA, room: 512 }, one.ctx);
  expect(rv).toBe(CKR.CKR_OPERATION_NOT_INITIALIZED);
});

test("CloseAllSessions closes this client's sessions only, and an unknown slot is CKR_SLOT_ID_INVALID", async () => {
  const [one, two] = [connect("one"), connect("two")];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  expect((await one.cryptoki.call("C_CloseAllSessions", { slot }, one.ctx)).rv).toBe(CKR.CKR_OK);
  expect((await one.cryptoki.call("C_GetSessionInfo", { session: sessionOne }, one.ctx)).rv).toBe(CKR.CKR_SESSION_HANDLE_INVALID);
  expect((await two.cryptoki.call("C_GetSessionInfo", { session: sessionTwo }, two.ctx)).rv).toBe(CKR.CKR_OK);
  expect((await one.cryptoki.call("C_CloseAllSessions", { slot: 999n }, one.ctx)).rv).toBe(CKR.CKR_SLOT_ID_INVALID);
});

test("with its last session a client is logged out, and a log-in by then asks nobody again", async () => {
  const one = connect("one");
  const session = await one.open();
  await one.login(session);
  await one.cryptoki.call("C_CloseSession", { session }, one.ctx);
  const again = await one.open();
  expect(await one.find(again, ...privateRsa)).toEqual([]);
  expect(await one.login(again)).toBe(CKR.CKR_OK);
  expect(await one.login(again)).toBe(CKR.CKR_USER_ALREADY_LOGGED_IN);
});

test("a session object is seen by the client that made it and by nobody else, and goes with it", async () => {
  const [one, two] = [connect("one"), connect("two")];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  await one.login(sessionOne);
  await two.login(sessionTwo);
  const label = bytesAttribute(CKA.CKA_LABEL, Buffer.from("only mine"));
  const template = [
    ulongAttribute(CKA.CKA_CLASS, CKO.CKO_DATA),
    boolAttribute(CKA.CKA_TOKEN, false),
    boolAttribute(CKA.CKA_PRIVATE, false),
    label,
  ];
  const made = await one.cryptoki.call("C_CreateObject", { session: sessionOne, template }, one.ctx);
  expect(made.rv).toBe(CKR.CKR_OK);
  expect(await one.find(sessionOne, label)).toEqual([made.object]);
  expect(await two.find(sessionTwo, label)).toEqual([]);
  await one.cryptoki.close();
  expect(await two.find(sessionTwo, label)).toEqual([]);
});

test("a client that did not log in cannot make private objects while another is logged in", async () => {
  const [one, two] = [connect("one"), connect("two")];
  await one.login(await one.open());
  const session = await two.open(CKF.CKF_SERIAL_SESSION | CKF.CKF_RW_SESSION);
  const template = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_DATA), boolAttribute(CKA.CKA_TOKEN, false), boolAttribute(CKA.CKA_PRIVATE, true)];
  expect((await two.cryptoki.call("C_CreateObject", { session, template }, two.ctx)).rv).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
});

test("a handle outlives a module process that was killed: the key is found again and signs", async () => {
  const one = connect("one");
  const session = await one.open();
  await one.login(session);
  const [key] = await one.find(session, ...privateRsa);
  const restarted = new Promise((resolve) => host.events.on("epoch", resolve));
  process.kill(host.pid ?? 0, "SIGKILL");
  await restarted;
  expect(verifies((await one.sign(session, key ?? 0n)).output)).toBe(true);
  const { attributes } = await one.cryptoki.call(
    "C_GetAttributeValue",
    { session, object: key ?? 0n, query: [{ type: CKA.CKA_LABEL, room: 64 }] },
    one.ctx,
  );
  expect(findBytes(attributes ?? [], CKA.CKA_LABEL)?.toString()).toBe("rsa key");
});

test("what a visibility hides is neither found nor readable nor usable", async () => {
  const hidden: Visibility = {
    ...everything,
    object: (object) => object.id.equals(Buffer.from([2])),
    attribute: (_, type) => type !== CKA.CKA_MODULUS,
  };
  const one = connect("one", hidden);
  const session = await one.open();
  await one.login(session);
  expect(await one.find(session, ...privateRsa)).toEqual([]);
  expect((await one.find(session)).length).toBeGreaterThan(0);
  const open = connect("two", { ...everything, attribute: (_, type) => type !== CKA.CKA_MODULUS });
  const other = await open.open();
  await open.login(other);
  const [key] = await open.find(other, ...privateRsa);
  const query = [CKA.CKA_LABEL, CKA.CKA_MODULUS, CKA.CKA_ID].map((type) => ({ type, room: 512 }));
  const read = await open.cryptoki.call("C_GetAttributeValue", { session: other, object: key ?? 0n, query }, open.ctx);
  expect(read.rv).toBe(CKR.CKR_ATTRIBUTE_SENSITIVE);
  expect(read.attributes?.map((attribute) => attribute.length)).toEqual([7, -1, 1]);
  expect(await open.find(other, ...privateRsa, bytesAttribute(CKA.CKA_MODULUS, Buffer.alloc(256)))).toEqual([]);
});

test("the token seems to have a PIN pad, and sessions are counted per client", async () => {
  const [one, two] = [connect("one"), connect("two")];
  await one.open();
  const info = await two.cryptoki.call("C_GetTokenInfo", { slot }, two.ctx);
  expect((info.flags ?? 0n) & CKF.CKF_PROTECTED_AUTHENTICATION_PATH).not.toBe(0n);
  expect(info.sessionCount).toBe(0n);
});

test("with client PINs a second client is checked against the accepted one, and three wrong ones close the log-in", async () => {
  await host.close();
  await start({ kind: "client" });
  const [one, two, three] = [connect("one"), connect("two"), connect("three")];
  const sessions = [await one.open(), await two.open(), await three.open()] as const;
  expect(await one.login(sessions[0], here.token.pin)).toBe(CKR.CKR_OK);
  expect(await two.login(sessions[1], here.token.pin)).toBe(CKR.CKR_OK);
  expect(await three.login(sessions[2], "0000")).toBe(CKR.CKR_PIN_INCORRECT);
  expect(await three.login(sessions[2], "0001")).toBe(CKR.CKR_PIN_INCORRECT);
  expect(await three.login(sessions[2], "0002")).toBe(CKR.CKR_PIN_INCORRECT);
  expect(await three.login(sessions[2], here.token.pin)).toBe(CKR.CKR_FUNCTION_REJECTED);
  expect(await one.find(sessions[0], ...privateRsa)).toHaveLength(1);
  const info = await one.cryptoki.call("C_GetTokenInfo", { slot }, one.ctx);
  expect((info.flags ?? 0n) & CKF.CKF_PROTECTED_AUTHENTICATION_PATH).toBe(0n);
});

test("the security officer gets the token only when nobody else has a session, and the token is initialised likewise", async () => {
  await host.close();
  await start({ kind: "client" });
  const [one, two] = [connect("one"), connect("two")];
  const writing = CKF.CKF_SERIAL_SESSION | CKF.CKF_RW_SESSION;
  const [sessionOne, sessionTwo] = [await one.open(), await two.open(writing)];
  const so = { session: sessionTwo, userType: CKU.CKU_SO, pin: Buffer.from(here.token.soPin) };
  expect((await two.cryptoki.call("C_Login", so, two.ctx)).rv).toBe(CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
  const init = { slot, pin: Buffer.from(here.token.soPin), label: Buffer.from(here.token.label.padEnd(32)) };
  expect((await two.cryptoki.call("C_InitToken", init, two.ctx)).rv).toBe(CKR.CKR_SESSION_EXISTS);
  await one.cryptoki.call("C_CloseSession", { session: sessionOne }, one.ctx);
  expect((await two.cryptoki.call("C_Login", so, two.ctx)).rv).toBe(CKR.CKR_OK);
  expect((await two.cryptoki.call("C_GetSessionInfo", { session: sessionTwo }, two.ctx)).state).toBe(CKS.CKS_RW_SO_FUNCTIONS);
});
