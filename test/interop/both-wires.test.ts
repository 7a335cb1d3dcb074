/*
 * One agent, two wires, one policy: the same calls over p11-kit RPC and over tokenfwd RPC get the same answers and see the
 * same things, and clients of both at once do not touch one another. SoftHSM through the real host process.
 */
import { afterEach, expect, test } from "vitest";
import { type AgentOptions, type AgentPort, createAgent } from "../../src/agent/agent.js";
import { boolAttribute, bytesAttribute, CKA, ulongAttribute } from "../../src/cryptoki/attributes.js";
import type { CallName } from "../../src/cryptoki/calls.js";
import { CKF, CKO, CKS, CKU } from "../../src/cryptoki/constants.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { CKR, rvName } from "../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, CallArgs } from "../../src/cryptoki/types.js";
import { createTokenHost, type TokenHost } from "../../src/token/host/host.js";
import { initializeArgs } from "../../src/wire/p11kit/requests.js";
import { type AgentClient, connectOver, type WireName } from "../support/agent-clients.js";
import { forwardOrigin } from "../support/fake-token-host.js";
import { softHsmHere } from "../support/softhsm-here.js";

const WIRES: readonly WireName[] = ["p11-kit", "rpc"];
const RSA = { type: CKM.CKM_SHA256_RSA_PKCS, parameter: null };
const RAW = { type: CKM.CKM_RSA_X_509, parameter: null };
const DATA = Buffer.from("the same over both");

const here = softHsmHere();
let host: TokenHost;
let agent: AgentPort;
const clients: AgentClient[] = [];

afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  await agent.close();
  await host.close();
});

async function start(options: Partial<AgentOptions> = {}): Promise<void> {
  const ask = options.pinMode !== "client";
  host = await createTokenHost({
    modulePath: here.token.modulePath,
    pinSource: ask ? { kind: "file", path: here.pinFile } : { kind: "client" },
  });
  agent = await createAgent({ host, token: here.token.label, key: "all", profile: "sign", pinMode: "ask", ...options });
}

async function connect(wire: WireName, destination = "bastion"): Promise<Caller> {
  const client = await connectOver(wire, agent, forwardOrigin(destination));
  clients.push(client);
  return callerOf(client);
}

/** A client as a sequence uses it: every call leaves a line in `told`, with what differs between any two clients left out. */
interface Caller {
  readonly client: AgentClient;
  readonly told: string[];
  call(name: CallName, args: AnyArgs): Promise<AnyResult>;
  open(): Promise<bigint>;
  login(session: bigint, pin?: string): Promise<number>;
  find(session: bigint, template?: readonly Attribute[]): Promise<readonly bigint[]>;
  /** SignInit and Sign; the CK_RV of the first that fails. */
  sign(session: bigint, key: bigint, mechanism?: { type: number; parameter: null }): Promise<AnyResult>;
}

const HANDLES = new Set(["session", "object", "key", "slot", "slots", "objects", "publicKey", "privateKey"]);

/** An answer as a line: handles by their number, bytes in hex (a signature by its length), the rest as it is. */
function line(name: string, { rv, ...outs }: AnyResult): string {
  const shown = Object.entries(outs).map(([key, value]) => {
    if (key === "utcTime") return key;
    if (HANDLES.has(key)) return `${key}=${Array.isArray(value) ? `${value.length} of them` : typeof value}`;
    if (key === "output") return `${key}=${Buffer.isBuffer(value) ? `${value.length} bytes` : String(value)}`;
    return `${key}=${JSON.stringify(value, (_key, each: unknown) => (typeof each === "bigint" ? String(each) : each))}`;
  });
  return [name, rvName(rv), ...shown.sort()].join(" ");
}

function callerOf(client: AgentClient): Caller {
  const told: string[] = [];
  const call = async (name: CallName, args: AnyArgs): Promise<AnyResult> => {
    const answer = (await client.cryptoki.call(name, args as CallArgs, client.ctx)) as AnyResult;
    told.push(line(name, answer));
    return answer;
  };
  const only = async () => {
    const { slots } = await call("C_GetSlotList", { tokenPresent: 1, room: 16 });
    return (slots as readonly bigint[])[0] ?? -1n;
  };
  return {
    client,
    told,
    call,
    open: async () => (await call("C_OpenSession", { slot: await only(), flags: CKF.CKF_SERIAL_SESSION }))["session"] as bigint,
    login: async (session, pin) =>
      (await call("C_Login", { session, userType: CKU.CKU_USER, pin: pin === undefined ? null : Buffer.from(pin) })).rv,
    async find(session, template = []) {
      await call("C_FindObjectsInit", { session, template });
      const { objects } = await call("C_FindObjects", { session, room: 32 });
      await call("C_FindObjectsFinal", { session });
      return (objects ?? []) as readonly bigint[];
    },
    async sign(session, key, mechanism = RSA) {
      const begun = await call("C_SignInit", { session, mechanism, key });
      return begun.rv === CKR.CKR_OK ? call("C_Sign", { session, data: DATA, room: 512 }) : begun;
    },
  };
}

const PRIVATE = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY)];
const privateRsa = [...PRIVATE, bytesAttribute(CKA.CKA_ID, Buffer.from([1]))];
const keyUri = "pkcs11:object=rsa%20key;id=%01;type=private";

/** Sequences of calls, what they run under, and the lines that must be among what they are told, in this order. */
const ROWS: readonly {
  readonly name: string;
  readonly options?: Partial<AgentOptions>;
  readonly run: (caller: Caller) => Promise<unknown>;
  readonly expected: readonly string[];
}[] = [
  {
    name: "looking: the module, the slot, the token and its mechanisms",
    async run({ call, open }) {
      await call("C_GetInfo", {});
      const session = await open();
      const { slot } = await call("C_GetSessionInfo", { session });
      for (const name of ["C_GetSlotInfo", "C_GetTokenInfo"] as const) await call(name, { slot });
      await call("C_GetMechanismList", { slot, room: null });
      await call("C_GetMechanismList", { slot, room: 2 });
      const { mechanisms } = await call("C_GetMechanismList", { slot, room: 512 });
      // The stock names alone: what p11-kit does not know it does not carry, and so our client of that wire does not.
      expect(mechanisms as readonly bigint[]).not.toContain(BigInt(CKM.CKM_RSA_X_509));
      await call("C_GetMechanismInfo", { slot, mechanismType: BigInt(CKM.CKM_SHA256_RSA_PKCS) });
      await call("C_GetMechanismInfo", { slot, mechanismType: BigInt(CKM.CKM_RSA_X_509) });
      await call("C_GetSlotInfo", { slot: 4711n });
    },
    expected: [
      "C_GetInfo CKR_OK",
      "C_GetTokenInfo CKR_OK",
      "C_GetMechanismInfo CKR_MECHANISM_INVALID",
      "C_GetSlotInfo CKR_SLOT_ID_INVALID",
    ],
  },
  {
    name: "private objects are there after this client's log-in and gone after its log-out",
    async run({ open, find, login, call }) {
      const session = await open();
      await find(session, PRIVATE);
      await login(session, "not the PIN");
      await login(session);
      const [key = 0n] = await find(session, privateRsa);
      const query = [CKA.CKA_LABEL, CKA.CKA_PRIVATE_EXPONENT, CKA.CKA_MODULUS].map((type) => ({ type, room: 512 }));
      await call("C_GetAttributeValue", { session, object: key, query });
      await call("C_GetAttributeValue", { session, object: key, query: [{ type: CKA.CKA_LABEL, room: null }] });
      await call("C_GetAttributeValue", { session, object: key, query: [{ type: CKA.CKA_LABEL, room: 1 }] });
      await call("C_Logout", { session });
      await find(session, PRIVATE);
      await call("C_SignInit", { session, mechanism: RSA, key });
      await call("C_Logout", { session });
    },
    expected: [
      "C_FindObjects CKR_OK objects=0 of them",
      "C_Login CKR_OK",
      "C_Login CKR_USER_ALREADY_LOGGED_IN",
      "C_FindObjects CKR_OK objects=1 of them",
      "C_GetAttributeValue CKR_ATTRIBUTE_SENSITIVE",
      "C_GetAttributeValue CKR_BUFFER_TOO_SMALL",
      "C_Logout CKR_OK",
      "C_FindObjects CKR_OK objects=0 of them",
      "C_SignInit CKR_KEY_HANDLE_INVALID",
      "C_Logout CKR_USER_NOT_LOGGED_IN",
    ],
  },
  {
    name: "signing: lengths asked first, a buffer too small, in parts, and with what is not an operation",
    async run({ open, find, login, call }) {
      const session = await open();
      await login(session);
      const [key = 0n] = await find(session, privateRsa);
      await call("C_Sign", { session, data: DATA, room: 512 });
      await call("C_SignInit", { session, mechanism: RSA, key });
      await call("C_SignInit", { session, mechanism: RSA, key });
      await call("C_Sign", { session, data: DATA, room: null });
      await call("C_Sign", { session, data: DATA, room: 16 });
      await call("C_Sign", { session, data: DATA, room: 512 });
      await call("C_SignInit", { session, mechanism: RSA, key });
      for (const data of [DATA, DATA]) await call("C_SignUpdate", { session, data });
      await call("C_SignFinal", { session, room: 512 });
      await call("C_SignInit", { session, mechanism: RAW, key });
      await call("C_SignInit", { session, mechanism: { type: CKM.CKM_ECDSA, parameter: null }, key });
    },
    expected: [
      "C_Sign CKR_OPERATION_NOT_INITIALIZED",
      "C_SignInit CKR_OK",
      "C_SignInit CKR_OPERATION_ACTIVE",
      "C_Sign CKR_OK output=256",
      "C_Sign CKR_BUFFER_TOO_SMALL output=256",
      "C_Sign CKR_OK output=256 bytes",
      "C_SignFinal CKR_OK output=256 bytes",
      "C_SignInit CKR_MECHANISM_INVALID",
    ],
  },
  {
    name: "`sign` refuses what changes the token, decrypts, or is the security officer's",
    async run({ open, find, login, call }) {
      const session = await open();
      await login(session);
      const [key = 0n] = await find(session, privateRsa);
      const template = [boolAttribute(CKA.CKA_TOKEN, false)];
      const pair = { type: CKM.CKM_RSA_PKCS_KEY_PAIR_GEN, parameter: null };
      await call("C_GenerateKeyPair", { session, mechanism: pair, publicTemplate: template, privateTemplate: template });
      await call("C_CreateObject", { session, template });
      await call("C_DestroyObject", { session, object: key });
      await call("C_SetAttributeValue", { session, object: key, template });
      await call("C_SetPIN", { session, oldPin: Buffer.from("1234"), newPin: Buffer.from("4321") });
      await call("C_DecryptInit", { session, mechanism: { type: CKM.CKM_RSA_PKCS, parameter: null }, key });
      await call("C_GetOperationState", { session, room: 64 });
      await call("C_SeedRandom", { session, seed: DATA });
      await call("C_Login", { session, userType: CKU.CKU_SO, pin: Buffer.from("12345678") });
      await call("C_WaitForSlotEvent", { flags: 1n });
    },
    expected: [
      "C_GenerateKeyPair CKR_TOKEN_WRITE_PROTECTED",
      "C_CreateObject CKR_TOKEN_WRITE_PROTECTED",
      "C_DestroyObject CKR_TOKEN_WRITE_PROTECTED",
      "C_SetAttributeValue CKR_TOKEN_WRITE_PROTECTED",
      "C_SetPIN CKR_TOKEN_WRITE_PROTECTED",
      "C_DecryptInit CKR_FUNCTION_NOT_SUPPORTED",
      "C_GetOperationState CKR_FUNCTION_NOT_SUPPORTED",
      "C_SeedRandom CKR_FUNCTION_NOT_SUPPORTED",
      "C_Login CKR_TOKEN_WRITE_PROTECTED",
    ],
  },
  {
    name: "`read` lets nobody log in or sign",
    options: { profile: "read" },
    async run({ open, find, login, call }) {
      const session = await open();
      await login(session);
      const found = await find(session);
      await find(session, PRIVATE);
      await call("C_SignInit", { session, mechanism: RSA, key: found[0] ?? 0n });
      await call("C_DigestInit", { session, mechanism: { type: CKM.CKM_SHA256, parameter: null } });
      await call("C_Digest", { session, data: DATA, room: 64 });
      await call("C_GenerateRandom", { session, room: 8 });
    },
    expected: [
      "C_Login CKR_FUNCTION_NOT_SUPPORTED",
      "C_FindObjects CKR_OK objects=4 of them",
      "C_FindObjects CKR_OK objects=0 of them",
      "C_SignInit CKR_FUNCTION_NOT_SUPPORTED",
      "C_Digest CKR_OK output=32 bytes",
      "C_GenerateRandom CKR_OK output=8 bytes",
    ],
  },
  {
    name: "`full` makes and destroys objects",
    options: { profile: "full" },
    async run({ open, find, call }) {
      const session = await open();
      const label = bytesAttribute(CKA.CKA_LABEL, Buffer.from("made here"));
      const template = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_DATA), boolAttribute(CKA.CKA_PRIVATE, false), label];
      const { object } = await call("C_CreateObject", { session, template });
      await find(session, [label]);
      await call("C_DestroyObject", { session, object });
      await call("C_DestroyObject", { session, object });
      await find(session, [label]);
    },
    expected: [
      "C_CreateObject CKR_OK object=bigint",
      "C_FindObjects CKR_OK objects=1 of them",
      "C_DestroyObject CKR_OK",
      "C_DestroyObject CKR_OBJECT_HANDLE_INVALID",
      "C_FindObjects CKR_OK objects=0 of them",
    ],
  },
  {
    name: "`--key` shows one key with what belongs to it, and no other",
    options: { key: keyUri },
    async run({ open, find, login }) {
      const session = await open();
      await find(session);
      await login(session);
      await find(session);
      await find(session, [bytesAttribute(CKA.CKA_ID, Buffer.from([2]))]);
    },
    expected: [
      "C_FindObjects CKR_OK objects=2 of them",
      "C_FindObjects CKR_OK objects=3 of them",
      "C_FindObjects CKR_OK objects=0 of them",
    ],
  },
  {
    name: "no key exposed: no object at all",
    options: { key: null },
    async run({ open, find, login }) {
      const session = await open();
      await login(session);
      await find(session);
    },
    expected: ["C_Login CKR_OK", "C_FindObjects CKR_OK objects=0 of them"],
  },
  {
    name: "the client's own PIN, wrong and right",
    options: { pinMode: "client" },
    async run({ open, login, call }) {
      const session = await open();
      await call("C_Login", { session, userType: CKU.CKU_USER, pin: null });
      await login(session, "9999");
      await login(session, here.token.pin);
      const { state } = await call("C_GetSessionInfo", { session });
      expect(state).toBe(CKS.CKS_RO_USER_FUNCTIONS);
    },
    expected: ["C_Login CKR_ARGUMENTS_BAD", "C_Login CKR_PIN_INCORRECT", "C_Login CKR_OK"],
  },
  {
    name: "the log-in ends with the client's last session",
    async run({ open, login, find, call }) {
      const session = await open();
      await login(session);
      await find(session, PRIVATE);
      await call("C_CloseSession", { session });
      await find(await open(), PRIVATE);
    },
    expected: ["C_FindObjects CKR_OK objects=2 of them", "C_CloseSession CKR_OK", "C_FindObjects CKR_OK objects=0 of them"],
  },
  {
    name: "finalised and begun again: sessions and the log-in are gone",
    async run({ open, login, find, call }) {
      const session = await open();
      await login(session);
      await call("C_Finalize", {});
      await call("C_Initialize", initializeArgs() as AnyArgs);
      await call("C_GetSessionInfo", { session });
      const again = await open();
      await find(again, PRIVATE);
      await call("C_CloseAllSessions", { slot: 4711n });
      await call("C_CloseSession", { session: again });
      await call("C_CloseSession", { session: again });
    },
    expected: [
      "C_Finalize CKR_OK",
      "C_Initialize CKR_OK",
      "C_GetSessionInfo CKR_SESSION_HANDLE_INVALID",
      "C_FindObjects CKR_OK objects=0 of them",
      "C_CloseAllSessions CKR_SLOT_ID_INVALID",
      "C_CloseSession CKR_OK",
      "C_CloseSession CKR_SESSION_HANDLE_INVALID",
    ],
  },
];

test.each(ROWS)("the same over both wires: $name", async ({ options, run, expected }) => {
  const told: string[][] = [];
  for (const wire of WIRES) {
    await start(options);
    const caller = await connect(wire);
    await run(caller);
    told.push(caller.told);
    if (wire === "rpc") break;
    await caller.client.close();
    await agent.close();
    await host.close();
  }
  const [p11kit = [], rpc = []] = told;
  expect(rpc).toEqual(p11kit);
  let at = 0;
  for (const wanted of expected) {
    const found = rpc.findIndex((each, index) => index >= at && (each === wanted || each.startsWith(`${wanted} `)));
    expect(found, `${wanted} after ${rpc[at - 1] ?? "the start"} in\n${rpc.join("\n")}`).toBeGreaterThanOrEqual(at);
    at = found + 1;
  }
});

const PAIRS: readonly (readonly [WireName, WireName])[] = [
  ["p11-kit", "rpc"],
  ["rpc", "p11-kit"],
  ["rpc", "rpc"],
];

test.each(PAIRS)("a client of %s and one of %s share no log-in, no handle and no end", async (first, second) => {
  await start();
  const [one, two] = [await connect(first), await connect(second)];
  const [mine, theirs] = [await one.open(), await two.open()];
  expect(await one.login(mine)).toBe(CKR.CKR_OK);
  const [key = 0n] = await one.find(mine, privateRsa);
  expect(key).not.toBe(0n);

  // The token is logged in now; the second client is not, and knows neither the key nor the session.
  expect(await two.find(theirs, privateRsa)).toEqual([]);
  expect((await two.sign(theirs, key)).rv).toBe(CKR.CKR_KEY_HANDLE_INVALID);
  expect((await two.call("C_GetSessionInfo", { session: mine })).rv).toBe(CKR.CKR_SESSION_HANDLE_INVALID);
  expect((await two.call("C_CloseSession", { session: mine })).rv).toBe(CKR.CKR_SESSION_HANDLE_INVALID);

  // What the second does to all that it has, the first does not notice.
  expect(await two.login(theirs)).toBe(CKR.CKR_OK);
  const [same = 0n] = await two.find(theirs, privateRsa);
  await one.call("C_SignInit", { session: mine, mechanism: RSA, key });
  expect((await two.sign(theirs, same)).rv).toBe(CKR.CKR_OK);
  const { slot } = await two.call("C_GetSessionInfo", { session: theirs });
  await two.call("C_Logout", { session: theirs });
  await two.call("C_CloseAllSessions", { slot });
  await two.call("C_Finalize", {});
  await two.client.close();
  const signed = await one.call("C_Sign", { session: mine, data: DATA, room: 512 });
  expect([signed.rv, (signed["output"] as Buffer).length]).toEqual([CKR.CKR_OK, 256]);
  const { state } = await one.call("C_GetSessionInfo", { session: mine });
  expect(state).toBe(CKS.CKS_RO_USER_FUNCTIONS);
});
