/* A traced conversation in tokenfwd RPC: its requests, events and errors, and what breaks it. */
import { expect, test } from "vitest";
import { encodeFrame } from "../../../../src/wire/rpc/codec.js";
import { MAGIC } from "../../../../src/wire/rpc/messages.js";
import { callsOf, notesOf, type Passed, traceOf } from "../../../support/traces.js";

const PIN = "Kq7vTz3mWx9b";
const ask = (...messages: readonly Record<string, unknown>[]): Passed => ({
  from: "client",
  bytes: Buffer.concat(messages.map((message) => Buffer.from(encodeFrame(message)))),
});
const answer = (...messages: readonly Record<string, unknown>[]): Passed => ({ ...ask(...messages), from: "server" });
const START: readonly Passed[] = [
  { from: "client", bytes: MAGIC },
  ask({ type: "hello", id: 1, versions: [1], client: "a test" }),
  { from: "server", bytes: MAGIC },
  answer({ type: "result", id: 1, version: 1, agent: "tokenfwd 0.1.0", snapshot: null }),
];
const KEY = { uri: "pkcs11:id=%01;type=private" };

test("hello says who is there and what is spoken", () => {
  const records = traceOf(START);
  expect(records.map(({ kind }) => kind)).toEqual(["open", "client", "protocol", "call", "close"]);
  expect(records[1]).toMatchObject({ name: "a test" });
  expect(records[2]).toMatchObject({ protocol: "tokenfwd", offered: [1], version: 1 });
  expect(callsOf(records)[0]).toMatchObject({ call: "hello", outs: { version: 1, agent: "tokenfwd 0.1.0", snapshot: null }, ok: true });
});

test("a signature shows the key, the mechanism and the purpose, and lengths of what was signed", () => {
  const records = traceOf([
    ...START,
    ask({ type: "sign", id: 2, key: KEY, data: Buffer.from("document"), purpose: "release", deadlineMs: 2000 }),
    answer({ type: "result", id: 2, signature: Buffer.alloc(64), mechanism: 0x1041, uri: KEY.uri, spki: null }),
  ]);
  expect(callsOf(records)[1]).toMatchObject({
    call: "sign",
    class: "sign",
    args: { key: KEY.uri, mechanism: null, data: { bytes: 8 }, purpose: "release", deadlineMs: 2000 },
    outs: { signature: { bytes: 64 }, mechanism: "CKM_ECDSA", uri: KEY.uri, spki: null },
    rv: null,
    ms: 1,
  });
});

test("a call shows what it would on the other wire, and never its PIN", () => {
  for (const data of [false, true]) {
    const records = traceOf(
      [
        ...START,
        ask({ type: "call", id: 2, call: "C_Login", args: { session: 1, userType: 1, pin: Buffer.from(PIN) } }),
        answer({ type: "result", id: 2, rv: 0xa0, outs: {} }),
        // Not as the protocol has it: as text, and in a request that is not known.
        ask({ type: "call", id: 3, call: "C_Login", args: { session: 1, userType: 1, pin: PIN } }),
        ask({ type: "unlock", id: 4, pin: PIN }),
        ask({ type: "sign", id: 5, key: { uri: `pkcs11:?pin-value=${PIN}` }, data: Buffer.alloc(1) }),
        ask({ type: "call", id: 6, call: "C_Unknown", args: { pin: PIN } }),
      ],
      { data },
    );
    expect(callsOf(records)).toMatchObject([
      { call: "hello" },
      { call: "C_Login", args: { session: 1, userType: "CKU_USER", pin: { pin: true } }, rv: "CKR_PIN_INCORRECT", ok: false },
      { call: "call", note: "C_Login.pin is not a byte string; no answer came" },
      { call: "unlock", note: "a request that is not known; no answer came" },
      { call: "sign", note: "sign.key.uri carries query attributes; no answer came" },
      { call: "call", note: "call.call is no call of the table; no answer came" },
    ]);
    const text = JSON.stringify(records);
    for (const shape of ["utf8", "hex", "base64"] as const) expect(text).not.toContain(Buffer.from(PIN).toString(shape));
  }
});

test("errors, events and cancels are there, each at its request", () => {
  const records = traceOf([
    ...START,
    ask({ type: "subscribe", id: 2, events: ["touch"] }, { type: "ping", id: 3 }, { type: "cancel", id: 2 }, { type: "cancel", id: 9 }),
    answer({ type: "event", event: "touch", slot: 1, waiting: true }, { type: "error", id: 2, code: "cancelled", message: "taken back" }),
    answer({ type: "event", event: "a new one" }, { type: "result", id: 3 }),
    answer({ type: "error", id: null, code: "protocol", message: "a frame" }),
  ]);
  expect(records.filter(({ kind }) => kind === "cancel")).toMatchObject([{ n: 2 }, { n: null }]);
  expect(records.filter(({ kind }) => kind === "event")).toMatchObject([
    { event: "touch", fields: { slot: 1, waiting: true } },
    { event: "a new one", fields: {} },
  ]);
  expect(callsOf(records).slice(1)).toMatchObject([
    { call: "subscribe", ok: false, error: { code: "cancelled", message: "taken back" } },
    { call: "ping", ok: true, ms: 2 },
  ]);
  expect(notesOf(records)).toEqual(["broken: the connection ends: protocol: a frame"]);
});

test("a message that cannot be read is a record, and the next is read", () => {
  const broken: Passed = { from: "client", bytes: Buffer.from("00000002c1c1", "hex") };
  const records = traceOf([...START, broken, { from: "client", bytes: Buffer.from("00000000", "hex") }, ask({ type: "ping", id: 7 })]);
  expect(notesOf(records)).toEqual([
    "broken: a message that cannot be read: malformed: a message that is no map at byte 0",
    "broken: a message that cannot be read: malformed: a message that is no map at byte 0",
  ]);
  expect(callsOf(records).map(({ call }) => call)).toEqual(["hello", "ping"]);
});

test("another framing, and a server that is none of ours, is said once", () => {
  const records = traceOf([
    { from: "client", bytes: MAGIC },
    { from: "server", bytes: Buffer.from([0]) },
    { from: "server", bytes: Buffer.from([1, 2, 3]) },
  ]);
  expect(notesOf(records)).toEqual(["broken: it does not speak tokenfwd RPC, or another version of its framing"]);
  expect(records.find(({ kind }) => kind === "protocol")).toMatchObject({ protocol: "tokenfwd", version: null });
});
