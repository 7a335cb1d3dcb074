/*
 * One report for each use of a private key: none missed, none under another key's name, nothing kept for what is over.
 */
import { expect, test } from "vitest";
import { createAudit, type KeyUse } from "../../../src/agent/audit.js";
import { bytesAttribute, CKA } from "../../../src/cryptoki/attributes.js";
import type { CallName } from "../../../src/cryptoki/calls.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { AnyArgs, CallArgs } from "../../../src/cryptoki/types.js";
import { createRecordingCryptoki, TEST_ORIGIN } from "../../support/wire-peers.js";

async function audited() {
  const uses: KeyUse[] = [];
  let dead = false;
  let holding: Promise<void> | null = null;
  let next = 1n;
  const cancelled = { rv: CKR.CKR_FUNCTION_CANCELED };
  const inner = createRecordingCryptoki({
    C_OpenSession: () => ({ rv: CKR.CKR_OK, session: next++ }),
    C_Sign: async (_args, { signal }) => {
      await holding;
      return signal.aborted ? cancelled : { rv: CKR.CKR_OK, output: Buffer.alloc(1) };
    },
    C_SignMessage: () => ({ rv: CKR.CKR_OK, output: Buffer.alloc(1) }),
    C_SignMessageNext: ({ wantsSignature }) => ({ rv: CKR.CKR_OK, output: Buffer.alloc(wantsSignature as number) }),
    C_GetAttributeValue: (args, { signal }) =>
      dead || signal.aborted
        ? { rv: CKR.CKR_DEVICE_REMOVED }
        : { rv: CKR.CKR_OK, attributes: [bytesAttribute(CKA.CKA_LABEL, Buffer.from(`key ${args["object"]}\x1b`))] },
  });
  const audit = createAudit(inner, (use) => uses.push(use));
  const taken = new AbortController();
  const ctx = { client: "c1", origin: TEST_ORIGIN, signal: taken.signal };
  const call = (name: CallName, args: AnyArgs = {}) => audit.call(name, args as CallArgs, ctx);
  const told = () => uses.map(({ call: name, key, mechanism, ok }) => `${name} ${key} ${mechanism} ${ok}`);
  const open = async (slot = 1n) => ((await call("C_OpenSession", { slot, flags: 4n })) as { session: bigint }).session;
  return {
    call,
    told,
    open,
    die: (value: boolean) => (dead = value),
    takeBack: () => taken.abort(),
    hold: (until: Promise<void>) => (holding = until),
  };
}

const SIGN = { type: CKM.CKM_ECDSA, parameter: null };
const AES = { type: CKM.CKM_AES_CBC, parameter: null };
const data = Buffer.from("data");

test("a signature is told once, with a printable name, and a length query is none", async () => {
  const { call, told, open } = await audited();
  const session = await open();
  await call("C_SignInit", { session, mechanism: SIGN, key: 7n });
  await call("C_Sign", { session, data, room: null });
  expect(told()).toEqual([]);
  await call("C_Sign", { session, data, room: 64 });
  expect(told()).toEqual(["C_Sign key 7\\x1b CKM_ECDSA true"]);
});

test("two kinds of operation in one session are told under their own keys", async () => {
  const { call, told, open } = await audited();
  const session = await open();
  await call("C_SignInit", { session, mechanism: SIGN, key: 7n });
  await call("C_SignRecoverInit", { session, mechanism: SIGN, key: 8n });
  await call("C_DecryptInit", { session, mechanism: AES, key: 9n });
  for (const name of ["C_Sign", "C_SignRecover", "C_Decrypt"] as const) await call(name, { session, data, room: 64 });
  expect(told().map((line) => line.split("\\")[0])).toEqual(["C_Sign key 7", "C_SignRecover key 8", "C_Decrypt key 9"]);
});

test("a decryption is told when it gives its first bytes, and once", async () => {
  const { call, told, open } = await audited();
  const session = await open();
  await call("C_DecryptInit", { session, mechanism: AES, key: 9n });
  await call("C_DecryptUpdate", { session, data, room: 64 });
  expect(told()).toEqual(["C_DecryptUpdate key 9\\x1b CKM_AES_CBC true"]);
  await call("C_DecryptUpdate", { session, data, room: 64 });
  await call("C_DecryptFinal", { session, room: 64 });
  expect(told()).toHaveLength(1);
});

test("an operation ends with its session, and not with those of another slot", async () => {
  const { call, told, open } = await audited();
  const [one, two] = [await open(1n), await open(2n)];
  for (const session of [one, two]) await call("C_SignInit", { session, mechanism: SIGN, key: 7n });
  await call("C_CloseAllSessions", { slot: 2n });
  await call("C_Sign", { session: two, data, room: 64 });
  expect(told()).toEqual([]);
  await call("C_Sign", { session: one, data, room: 64 });
  expect(told()).toHaveLength(1);
});

test("a key whose name could not be read is asked for it again at its next use", async () => {
  const { call, told, open, die } = await audited();
  const session = await open();
  for (const gone of [true, false]) {
    die(gone);
    await call("C_SignInit", { session, mechanism: SIGN, key: 7n });
    await call("C_Sign", { session, data, room: 64 });
  }
  expect(told().map((line) => line.split(" CKM")[0])).toEqual(["C_Sign id unknown", "C_Sign key 7\\x1b"]);
});

test("a use that was taken back is told under the key's name", async () => {
  const { call, told, open, takeBack } = await audited();
  const session = await open();
  await call("C_SignInit", { session, mechanism: SIGN, key: 7n });
  takeBack();
  await call("C_Sign", { session, data, room: 64 });
  expect(told()).toEqual(["C_Sign key 7\\x1b CKM_ECDSA false"]);
});

test("each message that is signed under one C_MessageSignInit is told, and a C_Sign beside them under its own key", async () => {
  const { call, told, open } = await audited();
  const session = await open();
  await call("C_MessageSignInit", { session, mechanism: SIGN, key: 7n });
  await call("C_SignInit", { session, mechanism: SIGN, key: 8n });
  for (let index = 0; index < 2; index++) await call("C_SignMessage", { session, parameter: null, data, room: 64 });
  await call("C_SignMessageBegin", { session, parameter: null });
  for (const wantsSignature of [0, 1]) await call("C_SignMessageNext", { session, parameter: null, data, wantsSignature, room: 64 });
  await call("C_Sign", { session, data, room: 64 });
  await call("C_MessageSignFinal", { session });
  await call("C_SignMessage", { session, parameter: null, data, room: 64 });
  expect(told().map((line) => line.split("\\")[0])).toEqual([
    "C_SignMessage key 7",
    "C_SignMessage key 7",
    "C_SignMessageNext key 7",
    "C_Sign key 8",
  ]);
});

test.each(["C_CloseAllSessions", "C_Finalize"] as const)(
  "a use in a session that %s closes meanwhile is told all the same",
  async (name) => {
    const { call, told, open, hold } = await audited();
    const session = await open(1n);
    await call("C_SignInit", { session, mechanism: SIGN, key: 7n });
    let release = () => {};
    hold(new Promise((resolve) => (release = resolve)));
    const made = call("C_Sign", { session, data, room: 64 });
    await call(name, { slot: 1n });
    release();
    await made;
    expect(told()).toEqual(["C_Sign key 7\\x1b CKM_ECDSA true"]);
  },
);
