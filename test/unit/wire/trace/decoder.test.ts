/* The decoder of several connections: what belongs to which, what ends it, and that a fault of its own is a record. */
import { expect, test } from "vitest";
import { createTraceDecoder } from "../../../../src/wire/trace/decoder.js";
import type { TraceRecord } from "../../../../src/wire/trace/records.js";
import { notesOf, stockConversations } from "../../../support/traces.js";

const passed = stockConversations().find(({ name }) => name === "09-wrong-pin")?.passed ?? [];

test("connections are read apart, and closed at the end", () => {
  const records: TraceRecord[] = [];
  const decoder = createTraceDecoder({ data: false, onRecord: (record) => records.push(record) });
  for (const c of [1, 2]) decoder.open(c, { kind: "test" }, 0);
  for (const { from, bytes } of passed) for (const c of [1, 2]) decoder.bytes(c, from, bytes, c);
  decoder.bytes(3, "client", Buffer.from([0]), 3);
  decoder.end(9);
  decoder.close(1, "client", 10);
  const of = (c: number) => records.filter((record) => record.c === c).map(({ kind }) => kind);
  expect(of(1)).toEqual(of(2));
  expect(of(3)).toEqual([]);
  expect(records.filter(({ kind }) => kind === "close")).toHaveLength(2);
});

test("a fault in the reading of one connection is a record, and the others are read on", () => {
  const records: TraceRecord[] = [];
  const decoder = createTraceDecoder({
    data: false,
    onRecord(record) {
      if (record.kind === "call" && record.c === 1 && record.call === "C_Login") throw new TypeError("a bug");
      records.push(record);
    },
  });
  for (const c of [1, 2]) decoder.open(c, { kind: "test" }, 0);
  for (const { from, bytes } of passed) for (const c of [1, 2]) decoder.bytes(c, from, bytes, 1);
  decoder.end(2);
  expect(notesOf(records)).toEqual(["lost: the decoder failed (TypeError): nothing more of this connection is read"]);
  expect(records.filter((record) => record.c === 2 && record.kind === "call")).toHaveLength(8);
  expect(records.filter(({ kind }) => kind === "close")).toHaveLength(2);
});
