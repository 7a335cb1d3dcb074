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
  let next = 1n;
  const inner = createRecordingCryptoki({
    C_OpenSession: () => ({ rv: CKR.CKR_OK, session: next++ }),
    C_GetAttributeValue: (args) =>
      dead
        ? { rv: CKR.CKR_DEVICE_REMOVED }
        : { rv: CKR.CKR_OK, attributes: [bytesAttribute(CKA.CKA_LABEL, Buffer.from(`key ${args["object"]}\x1b`))] },
  });
  const audit = createAudit(inner, (use) => uses.push(use));
  const ctx = { client: "c1", origin: TEST_ORIGIN, signal: new AbortController().signal };
  const call = (name: CallName, args: AnyArgs = {}) => audit.call(name, args as CallArgs, ctx);
  const told = () => uses.map(({ call: name, key, mechanism, ok }) => `${name} ${key} ${mechanism} ${ok}`);
  const open = async (slot = 1n) => ((await call("C_OpenSession", { slot, flags: 4n })) as { session: bigint }).session;
  return { call, told, open, die: (value: boolean) => (dead = value) };
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
