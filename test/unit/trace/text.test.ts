/* A trace as lines and as a summary: what each record says, and that a stranger's word cannot move the terminal. */
import { expect, test } from "vitest";
import { createSummary } from "../../../src/trace/summary.js";
import { headerLine, recordLine, summaryLines } from "../../../src/trace/text.js";
import type { CallRecord, TraceRecord } from "../../../src/wire/trace/records.js";
import { stockConversations, traceOf } from "../../support/traces.js";

function linesOf(name: string): string[] {
  const passed = stockConversations().find((one) => one.name === name)?.passed ?? [];
  return traceOf(passed).map((record) => recordLine(record).trim());
}

const call = (more: Partial<CallRecord>): CallRecord => ({
  kind: "call",
  t: 1,
  c: 1,
  n: 1,
  call: "C_Sign",
  class: "sign",
  args: {},
  rv: "CKR_OK",
  outs: {},
  ms: 1,
  sent: 1,
  received: 1,
  ok: true,
  ...more,
});

test("the lines of a wrong PIN tell what happened", () => {
  const lines = linesOf("09-wrong-pin");
  expect(lines[0]).toBe("0.000 c1 open       kind=test");
  expect(lines[1]).toBe("2.000 c1 protocol   p11-kit version 0, offered 0, legacy mechanisms");
  expect(lines).toContain("15.000 c1 #7 C_Login(session=17, userType=CKU_USER, pin=(PIN not shown)) ! CKR_PIN_INCORRECT 1.00 ms 51>29");
  expect(lines.at(-1)).toMatch(
    /^\S+ c1 close {6}by the client after 19.0 ms: 8 calls, 9 round trips, server 8.00 ms, \d+ bytes sent, \d+ received$/,
  );
});

test("templates, queries, mechanisms and lengths are short", () => {
  const lines = linesOf("41-h-misc-26").join("\n");
  expect(lines).toContain("C_FindObjectsInit(session=17, template=[CKA_CLASS=CKO_PRIVATE_KEY, CKA_ID=01])");
  expect(lines).toContain("C_SignInit(session=17, mechanism=CKM_RSA_PKCS, key=3)");
  expect(lines).toContain("query=[CKA_LABEL/10, CKA_MODULUS/length, CKA_PRIVATE_EXPONENT/10]) ! CKR_ATTRIBUTE_SENSITIVE");
  expect(lines).toContain("C_Sign(session=17, data=32 bytes, room=10) CKR_BUFFER_TOO_SMALL -> output=length 256");
});

test("a line of a hostile file holds no control character", () => {
  const hostile = "\u001b]0;owned\u0007\n\u202e";
  const records: TraceRecord[] = [
    { kind: "client", t: 1, c: 1, name: hostile },
    { kind: "note", t: 1, c: 1, level: "info", from: null, text: hostile },
    { kind: "event", t: 1, c: 1, event: hostile, fields: { [hostile]: hostile } },
    call({ call: hostile, args: { [hostile]: [hostile, { type: hostile, value: hostile }] }, note: hostile, error: { code: hostile } }),
  ];
  for (const record of records) expect(recordLine(record)).not.toMatch(/[\u0000-\u001f\u202e]/);
  expect(headerLine({ tokenfwdTrace: 1, started: hostile, by: hostile, of: { a: hostile }, data: true })).not.toMatch(
    /[\u0000-\u001f\u202e]/,
  );
  const summary = createSummary();
  for (const record of records) summary.add(record);
  for (const line of summaryLines(summary.result())) expect(line).not.toMatch(/[\u0000-\u001f\u202e]/);
});

test("a summary says where the time went, by kind of call", () => {
  const summary = createSummary();
  for (let index = 1; index <= 100; index++) summary.add(call({ ms: index }));
  summary.add(call({ call: "C_Login", ms: 30_000, ok: false }));
  summary.add(call({ ms: null, ok: false }));
  summary.add({ kind: "open", t: 0, c: 1, origin: {} });
  summary.add({
    kind: "close",
    t: 1,
    c: 1,
    by: null,
    calls: 1,
    unanswered: 0,
    trips: 7,
    sent: 10,
    received: 20,
    ms: 50_000,
    serverMs: 40_000,
  });
  const result = summary.result();
  expect(result).toMatchObject({ connections: 1, calls: 102, failed: 2, unanswered: 1, trips: 7, serverMs: 40_000, clientMs: 10_000 });
  const [login, sign] = result.byCall;
  expect(login).toMatchObject({ call: "C_Login", count: 1, totalMs: 30_000, maxMs: 30_000 });
  expect(sign).toMatchObject({ call: "C_Sign", count: 101, failed: 1, totalMs: 5050, maxMs: 100 });
  expect(Math.abs((sign?.medianMs ?? 0) / 50 - 1)).toBeLessThan(0.05);
  expect(Math.abs((sign?.p95Ms ?? 0) / 95 - 1)).toBeLessThan(0.05);
  const lines = summaryLines(result);
  expect(lines[1]).toBe(
    "time: 50.0 s connected, of which the server and what lies behind it 40.0 s (80 %), the client and its way here 10.0 s (20 %)",
  );
  expect(lines.some((line) => /^C_Login +1 +1 +30\.0 s +30\.0 s +30\.0 s +30\.0 s$/.test(line))).toBe(true);
});
