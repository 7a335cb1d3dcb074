/*
 * C_SignInit held back and sent with C_Sign, on SoftHSM through the real host process: what is signed is right, and every
 * sequence of calls is answered as it is where nothing is held.
 */
import { createVerify, verify } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { bytesAttribute, CKA, ulongAttribute } from "../../src/cryptoki/attributes.js";
import { CKF, CKO, CKU } from "../../src/cryptoki/constants.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { AnyResult, CallContext, Cryptoki, Mechanism } from "../../src/cryptoki/types.js";
import { createTokenBroker } from "../../src/token/broker.js";
import { createTokenHost, type TokenHost } from "../../src/token/host/host.js";
import { everything } from "../support/broker-clients.js";
import { fakeAttributes, forwardOrigin } from "../support/fake-token-host.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";

const ECDSA: Mechanism = { type: CKM.CKM_ECDSA, parameter: null };
const RSA: Mechanism = { type: CKM.CKM_SHA256_RSA_PKCS, parameter: null };
const DATA = Buffer.alloc(32, 7);
const ctx: CallContext = { client: "one", origin: forwardOrigin("bastion"), signal: new AbortController().signal };

let token: SoftHsm;
let host: TokenHost;
let cryptoki: Cryptoki;
let slot: bigint;
let pairs = 0;
const keys = new Map<Mechanism, bigint>();

beforeAll(async () => {
  token = await createSoftHsm({ certificates: false });
  vi.stubEnv("SOFTHSM2_CONF", token.configFile);
  writeFileSync(join(token.dir, "pin"), token.pin, { mode: 0o600 });
  host = await createTokenHost({ modulePath: token.modulePath, pinSource: { kind: "file", path: join(token.dir, "pin") } });
  const counting: TokenHost = {
    ...host,
    get epoch() {
      return host.epoch;
    },
    get pid() {
      return host.pid;
    },
    async pair(...args) {
      pairs += 1;
      return host.pair(...args);
    },
  };
  cryptoki = createTokenBroker(counting, "ask").createClient("one", everything);
  const { slots } = await cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: 16 }, ctx);
  slot = (slots as readonly bigint[])[0] as bigint;
  const session = await open();
  expect((await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, ctx)).rv).toBe(CKR.CKR_OK);
  for (const [mechanism, name] of [
    [ECDSA, "ec key"],
    [RSA, "rsa key"],
  ] as const) {
    const template = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY), bytesAttribute(CKA.CKA_LABEL, Buffer.from(name))];
    await cryptoki.call("C_FindObjectsInit", { session, template }, ctx);
    const { objects } = await cryptoki.call("C_FindObjects", { session, room: 1 }, ctx);
    await cryptoki.call("C_FindObjectsFinal", { session }, ctx);
    keys.set(mechanism, (objects as readonly bigint[])[0] as bigint);
  }
});
afterAll(async () => {
  await host.close();
  vi.unstubAllEnvs();
  await token.dispose();
});

async function open(): Promise<bigint> {
  const { rv, session = 0n } = await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  expect(rv).toBe(CKR.CKR_OK);
  return session;
}

const init = (session: bigint, mechanism: Mechanism) =>
  cryptoki.call("C_SignInit", { session, mechanism, key: keys.get(mechanism) ?? 0n }, ctx);
const sign = (session: bigint, room: number | null = 256, data = DATA) => cryptoki.call("C_Sign", { session, data, room }, ctx);

it.each([
  ["ECDSA", ECDSA],
  ["RSA", RSA],
])("makes good %s signatures, each in one crossing after the first", async (_, mechanism) => {
  const session = await open();
  const before = pairs;
  for (let time = 0; time < 5; time += 1) {
    expect((await init(session, mechanism)).rv).toBe(CKR.CKR_OK);
    const { rv, output } = await sign(session);
    expect(rv).toBe(CKR.CKR_OK);
    const signature = output as Buffer;
    const key = readFileSync((mechanism === ECDSA ? token.keys.ec?.publicKeyFile : token.keys.rsa?.publicKeyFile) ?? "", "utf8");
    if (mechanism === RSA) expect(createVerify("sha256").update(DATA).verify(key, signature)).toBe(true);
    // What CKM_ECDSA signs is taken for a hash: of 32 bytes, as those of SHA-256 are.
    else expect(signature).toHaveLength(64);
  }
  expect(pairs - before).toBe(4);
});

it("makes ECDSA signatures of the digest it is given", async () => {
  const document = Buffer.from("a document");
  const session = await open();
  const { createHash } = await import("node:crypto");
  for (let time = 0; time < 2; time += 1) {
    await init(session, ECDSA);
    const { output } = await sign(session, 64, createHash("sha256").update(document).digest());
    const key = readFileSync(token.keys.ec?.publicKeyFile ?? "", "utf8");
    expect(verify("sha256", document, { key, dsaEncoding: "ieee-p1363" }, output as Buffer)).toBe(true);
  }
});

const said = ({ rv, output }: AnyResult) => [rv, Buffer.isBuffer(output) ? output.length : output];

/** What comes after a C_SignInit; each is run in a session of its own, and answers what a client sees. */
const SEQUENCES: Readonly<Record<string, (session: bigint, mechanism: Mechanism) => Promise<unknown>>> = {
  "another C_SignInit": async (session, mechanism) => [said(await init(session, mechanism)), said(await sign(session))],
  "a length query": async (session) => [said(await sign(session, null)), said(await sign(session)), said(await sign(session))],
  "too little room": async (session) => [said(await sign(session, 10)), said(await sign(session))],
  "data of the wrong length": async (session) => [said(await sign(session, 256, Buffer.alloc(0))), said(await sign(session))],
  "C_SignUpdate and C_SignFinal": async (session) => [
    said(await cryptoki.call("C_SignUpdate", { session, data: DATA }, ctx)),
    said(await cryptoki.call("C_SignFinal", { session, room: 256 }, ctx)),
    said(await sign(session)),
  ],
  C_DigestInit: async (session) => [
    (await cryptoki.call("C_DigestInit", { session, mechanism: { type: CKM.CKM_SHA256, parameter: null } }, ctx)).rv,
    said(await sign(session)),
  ],
  "a search": async (session) => [(await cryptoki.call("C_FindObjectsInit", { session, template: [] }, ctx)).rv, said(await sign(session))],
  "a read of the key": async (session, mechanism) => [
    (
      await cryptoki.call(
        "C_GetAttributeValue",
        { session, object: keys.get(mechanism) ?? 0n, query: [{ type: CKA.CKA_LABEL, room: 64 }] },
        ctx,
      )
    ).rv,
    said(await sign(session)),
  ],
  "the key's own log-in": async (session) => [
    (await cryptoki.call("C_Login", { session, userType: CKU.CKU_CONTEXT_SPECIFIC, pin: null }, ctx)).rv,
    said(await sign(session)),
  ],
  "the end of the session": async (session) => [(await cryptoki.call("C_CloseSession", { session }, ctx)).rv, said(await sign(session))],
  "another session's signature": async (session, mechanism) => {
    const other = await open();
    return [said(await init(other, mechanism)), said(await sign(other)), said(await sign(session))];
  },
};

/** Two signatures: the next C_SignInit for the same is made ahead, on a token that is as quick as SoftHSM. */
async function signTwice(session: bigint, mechanism: Mechanism): Promise<void> {
  for (let time = 0; time < 2; time += 1) {
    expect((await init(session, mechanism)).rv).toBe(CKR.CKR_OK);
    expect((await sign(session)).rv).toBe(CKR.CKR_OK);
  }
}

/** What comes after a signature; as SEQUENCES. */
const AFTERWARDS: typeof SEQUENCES = {
  "C_Sign alone": async (session) => said(await sign(session)),
  "a signature with another mechanism": async (session, mechanism) => [
    said(await init(session, mechanism === RSA ? ECDSA : RSA)),
    said(await sign(session)),
  ],
  "a digest": async (session) => [
    (await cryptoki.call("C_DigestInit", { session, mechanism: { type: CKM.CKM_SHA256, parameter: null } }, ctx)).rv,
    said(await cryptoki.call("C_Digest", { session, data: DATA, room: 64 }, ctx)),
  ],
  "a search": async (session) => [
    (await cryptoki.call("C_FindObjectsInit", { session, template: [] }, ctx)).rv,
    (await cryptoki.call("C_FindObjectsFinal", { session }, ctx)).rv,
  ],
  "a read of the key": async (session, mechanism) => {
    const query = [{ type: CKA.CKA_LABEL, room: 64 }];
    return (await cryptoki.call("C_GetAttributeValue", { session, object: keys.get(mechanism) ?? 0n, query }, ctx)).rv;
  },
  "a new object": async (session) =>
    (await cryptoki.call("C_CreateObject", { session, template: fakeAttributes(CKO.CKO_DATA, "new", false) }, ctx)).rv,
  "the end of the session": async (session) => [(await cryptoki.call("C_CloseSession", { session }, ctx)).rv, said(await sign(session))],
};

it.each(
  Object.entries(AFTERWARDS).flatMap(([name, run]) => [
    { name, run, mechanism: ECDSA },
    { name, run, mechanism: RSA },
  ]),
)("answers $name as ever where the next C_SignInit was made ahead ($mechanism.type), and signs again", async ({ run, mechanism }) => {
  const plain = await run(await open(), mechanism);
  const session = await open();
  await signTwice(session, mechanism);
  expect(await run(session, mechanism)).toEqual(plain);
  await signTwice(await open(), mechanism);
});

it.each(
  Object.entries(SEQUENCES).flatMap(([name, run]) => [
    { name, run, mechanism: ECDSA },
    { name, run, mechanism: RSA },
  ]),
)("answers $name after a held C_SignInit as after one that is not ($mechanism.type)", async ({ run, mechanism }) => {
  const changing = await open();
  const template = fakeAttributes(CKO.CKO_DATA, "change", false);
  expect((await cryptoki.call("C_CreateObject", { session: changing, template }, ctx)).rv).toBe(CKR.CKR_OK);
  const plainSession = await open();
  const plain = [(await init(plainSession, mechanism)).rv, await run(plainSession, mechanism)];
  const proving = await open();
  await init(proving, mechanism);
  expect((await sign(proving)).rv).toBe(CKR.CKR_OK);
  const heldSession = await open();
  const held = [(await init(heldSession, mechanism)).rv, await run(heldSession, mechanism)];
  expect(held).toEqual(plain);
  const aheadSession = await open();
  await signTwice(aheadSession, mechanism);
  expect([(await init(aheadSession, mechanism)).rv, await run(aheadSession, mechanism)]).toEqual(plain);
});
