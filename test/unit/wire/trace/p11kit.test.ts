/* A traced p11-kit conversation where it is not as stock peers have it: broken, unknown, too long, out of order, and with secrets. */
import { expect, test } from "vitest";
import { callByName } from "../../../../src/cryptoki/calls.js";
import { encodeFrame } from "../../../../src/wire/p11kit/frame.js";
import { encodeRequest, initializeArgs } from "../../../../src/wire/p11kit/requests.js";
import { encodeError, encodeResponse } from "../../../../src/wire/p11kit/responses.js";
import { callsOf, notesOf, type Passed, traceOf } from "../../../support/traces.js";

const FORM = { dialect: "new" } as const;
const NONE = Buffer.alloc(0);
const PIN = "Kq7vTz3mWx9b";

type Args = Readonly<Record<string, unknown>>;
const ask = (code: number, name: Parameters<typeof callByName>[0], args: Args): Passed => ({
  from: "client",
  bytes: encodeFrame(code, NONE, encodeRequest(callByName(name), args, FORM)),
});
const answer = (code: number, name: Parameters<typeof callByName>[0], args: Args, result: Args & { rv: number }): Passed => ({
  from: "server",
  bytes: encodeFrame(code, NONE, encodeResponse(callByName(name), args, result)),
});
const raw = (from: Passed["from"], hex: string): Passed => ({ from, bytes: Buffer.from(hex, "hex") });
const HELLO = [raw("client", "02"), raw("server", "02")];
const login = { session: 1n, userType: 1n, pin: Buffer.from(PIN) };

test("a call has its name, its arguments by name, its result, its duration and its sizes", () => {
  const args = { session: 7n, data: Buffer.from("document"), room: 256 };
  const records = traceOf([...HELLO, ask(16, "C_Sign", args), answer(16, "C_Sign", args, { rv: 0, output: Buffer.alloc(64, 1) })]);
  expect(callsOf(records)).toEqual([
    {
      kind: "call",
      t: 3,
      c: 1,
      n: 1,
      call: "C_Sign",
      class: "sign",
      args: { session: 7, data: { bytes: 8 }, room: 256 },
      rv: "CKR_OK",
      outs: { output: { bytes: 64 } },
      ms: 1,
      sent: 12 + 4 + 4 + 5 + 8 + 5 + 8 + 4,
      received: 12 + 4 + 4 + 2 + 5 + 64,
      ok: true,
    },
  ]);
});

test("with data a byte string is shown, and a PIN is not, nor how long it is", () => {
  const sign = { session: 7n, data: Buffer.from("document"), room: 256 };
  const sizes = [4, 9].map((length) => {
    const pin = { ...login, pin: Buffer.from(PIN.slice(0, length)) };
    const setPin = { session: 1n, oldPin: pin.pin, newPin: Buffer.from(PIN) };
    const records = traceOf(
      [
        ...HELLO,
        ask(16, "C_Sign", sign),
        ask(17, "C_Login", pin),
        ask(18, "C_SetPIN", setPin),
        ask(19, "C_InitToken", { slot: 1n, pin: pin.pin, label: Buffer.alloc(32, "x") }),
        ask(20, "C_LoginUser", { ...pin, username: Buffer.from("operator") }),
        // Its last argument is missing: what it holds of a PIN is not told either.
        { from: "client", bytes: encodeFrame(21, NONE, encodeRequest(callByName("C_Login"), pin, FORM).subarray(0, -1)) },
        { from: "client", bytes: encodeFrame(22, NONE, encodeRequest(callByName("C_Login"), pin, FORM)).subarray(0, -1) },
      ],
      { data: true },
    );
    const text = JSON.stringify(records);
    expect(text).toContain(Buffer.from("document").toString("hex"));
    for (const shape of ["utf8", "hex", "base64"] as const) expect(text).not.toContain(Buffer.from(pin.pin).toString(shape));
    expect(callsOf(records)[1]?.args).toEqual({ session: 1, userType: "CKU_USER", pin: { pin: true } });
    return text;
  });
  expect(sizes[0]).toBe(sizes[1]);
});

test("that there was no PIN is shown: the token asks by itself", () => {
  expect(callsOf(traceOf([...HELLO, ask(16, "C_Login", { ...login, pin: null })]))[0]?.args).toMatchObject({ pin: null });
});

test("values of keys are shown by length, names of things as they are", () => {
  const template = [
    { type: 0x0, value: Buffer.from("0300000000000000", "hex"), length: 8 },
    { type: 0x3, value: Buffer.from("ops\u202ekey"), length: 9 },
    { type: 0x102, value: Buffer.from("01", "hex"), length: 1 },
    { type: 0x123, value: Buffer.from("private exponent"), length: 16 },
    { type: 0x11, value: Buffer.from("secret value"), length: 12 },
    { type: 0x1, value: Buffer.from([1]), length: 1 },
  ];
  const [call] = callsOf(traceOf([...HELLO, ask(16, "C_CreateObject", { session: 1n, template })]));
  expect(call?.args).toEqual({
    session: 1,
    template: [
      { type: "CKA_CLASS", value: "CKO_PRIVATE_KEY" },
      { type: "CKA_LABEL", value: "ops\\u{202e}key" },
      { type: "CKA_ID", value: "01" },
      { type: "CKA_PRIVATE_EXPONENT", value: { bytes: 16 } },
      { type: "CKA_VALUE", value: { bytes: 12 } },
      { type: "CKA_TOKEN", value: true },
    ],
  });
});

test("a body that cannot be read is a record, and the next call is read", () => {
  const records = traceOf([
    ...HELLO,
    raw("client", `00000010${"00000000"}00000004${"0000002a"}`),
    raw("client", `00000011${"00000000"}00000004${"000003e7"}`),
    ask(18, "C_GetSlotList", { tokenPresent: 1, room: null }),
    { from: "server", bytes: encodeFrame(17, NONE, encodeError(0x54)) },
    { from: "server", bytes: encodeFrame(18, NONE, Buffer.from("00000063", "hex")) },
  ]);
  expect(callsOf(records)).toMatchObject([
    { n: 2, call: "call 999", class: null, rv: "CKR_FUNCTION_NOT_SUPPORTED", ok: false, note: "a call that is not known", sent: null },
    { n: 3, call: "C_GetSlotList", rv: null, note: "its answer: truncated: signature length at byte 4" },
    { n: 1, call: "C_SignInit", note: "truncated: signature length at byte 4; no answer came" },
  ]);
});

test("a frame that is longer than anybody reads is passed over, and what follows is read", () => {
  const long = Buffer.alloc(12 + 5_000_000);
  long.writeUInt32BE(16, 0);
  long.writeUInt32BE(5_000_000, 8);
  const records = traceOf([...HELLO, { from: "client", bytes: long }, ask(17, "C_Finalize", {})]);
  expect(callsOf(records)).toMatchObject([
    { call: "no call", sent: 5_000_012, note: "too long to be looked at; no answer came" },
    { call: "C_Finalize" },
  ]);
});

test("answers in another order find their calls, and one to nothing is said to be that", () => {
  const records = traceOf([
    ...HELLO,
    ask(16, "C_Initialize", initializeArgs() as unknown as Args),
    ask(17, "C_CloseSession", { session: 1n }),
    answer(17, "C_CloseSession", {}, { rv: 0 }),
    answer(99, "C_CloseSession", {}, { rv: 0 }),
    answer(16, "C_Initialize", {}, { rv: 0 }),
  ]);
  expect(callsOf(records).map(({ n, call, ms }) => [n, call, ms])).toEqual([
    [2, "C_CloseSession", 1],
    [1, "C_Initialize", 4],
  ]);
  expect(notesOf(records)).toEqual(["broken: an answer of 20 bytes to no request"]);
});

test("the time with a whole request under way is the server's, and the round trips are counted", () => {
  const { bytes } = ask(17, "C_Finalize", {});
  const records = traceOf([
    ...HELLO,
    ask(16, "C_Finalize", {}),
    answer(16, "C_Finalize", {}, { rv: 0 }),
    { from: "client", bytes: bytes.subarray(0, 5) },
    { from: "client", bytes: bytes.subarray(5) },
    answer(17, "C_Finalize", {}, { rv: 0 }),
  ]);
  expect(records.at(-1)).toMatchObject({ kind: "close", trips: 3, ms: 8, serverMs: 2, by: "client" });
});

test("a stream that ends within a message says so, and not how much of it had come", () => {
  const records = traceOf([...HELLO, raw("client", "0000001000000000000000")]);
  expect(notesOf(records)).toEqual(["broken: it ended in the middle of a message"]);
});

test("a client that writes mechanisms otherwise than it says is told of once", () => {
  const legacy = (code: number): Passed => ({
    from: "client",
    bytes: encodeFrame(
      code,
      NONE,
      encodeRequest(callByName("C_SignInit"), { session: 1n, mechanism: { type: 0x40, parameter: null }, key: 2n }, { dialect: "legacy" }),
    ),
  });
  const records = traceOf([...HELLO, legacy(16), legacy(17)]);
  expect(notesOf(records)).toEqual(["info: it writes mechanisms in the legacy dialect, which is not that of the version it offered"]);
  expect(callsOf(records)[0]?.args).toMatchObject({ mechanism: { type: "CKM_SHA256_RSA_PKCS" } });
});

test("a first byte of no protocol ends the reading, and a server that speaks first too", () => {
  expect(notesOf(traceOf([raw("client", "47455420")]))).toEqual(["broken: no protocol that is known: its first byte is 0x47"]);
  expect(notesOf(traceOf([raw("server", "53534800")]))).toEqual(["broken: no protocol that is known: it spoke before the client did"]);
});

test("a client that asks and asks is followed only so far", () => {
  const records = traceOf([...HELLO, ...Array.from({ length: 1030 }, (_, index) => ask(index, "C_Finalize", {}))]);
  expect(callsOf(records)).toHaveLength(1030);
  expect(callsOf(records)[0]?.note).toBe("no answer came before 1024 further requests");
});
