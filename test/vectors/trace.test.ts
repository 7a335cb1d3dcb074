/*
 * The conversations of stock peers and the messages of tokenfwd RPC, as a trace reads them: every byte belongs to something that was
 * understood, however the bytes come.
 */
import { describe, expect, it } from "vitest";
import { dialectOfVersion } from "../../src/wire/p11kit/mechanisms.js";
import { decodeRequest } from "../../src/wire/p11kit/requests.js";
import { MAGIC } from "../../src/wire/rpc/messages.js";
import { pinBytes } from "../../src/wire/trace/shown.js";
import { byteByByte, type Conversation, callsOf, notesOf, rpcVectors, stockConversations, traceOf } from "../support/traces.js";

const conversations = stockConversations();

/** Bytes of the PINs in a conversation, counted without the trace. */
function pinsIn({ passed }: Conversation): number {
  let bytes = 0;
  for (const { from, bytes: frame } of passed) {
    if (from !== "client" || frame.length === 1) continue;
    const request = decodeRequest(frame.subarray(12 + frame.readUInt32BE(4)), dialectOfVersion(passed[0]?.bytes[0] ?? 0));
    if (request.kind === "call") bytes += pinBytes(request.args);
  }
  return bytes;
}

const sum = (numbers: readonly (number | null)[]): number => numbers.reduce<number>((total, one) => total + (one ?? Number.NaN), 0);

describe("a trace of stock peers", () => {
  it("has all conversations to read", () => {
    expect(conversations.length).toBeGreaterThan(40);
  });

  it.each(conversations.map((one) => [one.name, one] as const))("reads %s to the last byte", (_name, conversation) => {
    const { passed, dialect } = conversation;
    const records = traceOf(passed);
    const calls = callsOf(records);
    const frames = (from: string) => passed.filter((one) => one.from === from && one.bytes.length > 1);
    // A stock server of another dialect closes instead of answering, and that is all that may be odd.
    const unanswered = frames("client").length - frames("server").length;
    expect(notesOf(records)).toEqual([]);
    expect(calls.flatMap(({ note }) => note ?? [])).toEqual(Array.from({ length: unanswered }, () => "no answer came"));
    expect(calls).toHaveLength(frames("client").length);
    expect(records.find(({ kind }) => kind === "protocol")).toMatchObject({
      protocol: "p11-kit",
      offered: passed[0]?.bytes[0],
      version: passed[1]?.bytes[0],
      dialect,
    });
    const length = (from: string) => sum(frames(from).map(({ bytes }) => bytes.length));
    expect(sum(calls.map(({ sent }) => sent))).toBe(length("client") - pinsIn(conversation));
    expect(sum(calls.filter(({ ms }) => ms !== null).map(({ received }) => received))).toBe(length("server"));
    expect(records.at(-1)).toMatchObject({
      kind: "close",
      calls: calls.length,
      unanswered,
      sent: length("client") + 1 - pinsIn(conversation),
      received: length("server") + 1,
    });
  });

  it.each(conversations.map((one) => [one.name, one] as const))("says the same of %s byte by byte", (_name, { passed }) => {
    expect(traceOf(passed, { cut: byteByByte })).toEqual(traceOf(passed));
  });

  it.each(conversations.map((one) => [one.name, one] as const))(
    "says the same of %s when each side comes in one lump",
    (_name, { passed }) => {
      const lumps = (["client", "server"] as const).map((from) => ({
        from,
        bytes: Buffer.concat(passed.filter((one) => one.from === from).map(({ bytes }) => bytes)),
      }));
      const timeless = (records: readonly object[]) => records.map((record) => ({ ...record, t: 0, ms: 0, serverMs: 0, trips: 0 }));
      const calls = callsOf(traceOf(lumps)).filter(({ note }) => note === undefined);
      expect(timeless(calls)).toEqual(timeless(callsOf(traceOf(passed)).filter(({ note }) => note === undefined)));
    },
  );
});

interface RpcVector {
  readonly name: string;
  readonly hex: string;
  readonly expect: { readonly type: string; readonly id?: number; readonly call?: string; readonly event?: string };
  readonly answers?: string;
}

describe("a trace of tokenfwd RPC", () => {
  it.each(rpcVectors<RpcVector>("requests.json").map((one) => [one.name, one] as const))("reads the request %s", (_name, vector) => {
    const { hex, expect: wanted } = vector;
    const frame = Buffer.from(hex, "hex");
    const records = traceOf([{ from: "client", bytes: Buffer.concat([MAGIC, frame]) }]);
    expect(notesOf(records)).toEqual([]);
    if (wanted.type === "cancel") {
      expect(records.map(({ kind }) => kind)).toContain("cancel");
      return;
    }
    expect(callsOf(records)).toMatchObject([{ call: wanted.call ?? wanted.type, note: "no answer came" }]);
  });

  it("reads every answer, error and event of the vectors", () => {
    const requests = rpcVectors<RpcVector>("requests.json");
    const hello = requests.find(({ name }) => name === "hello")?.hex ?? "";
    for (const { hex, expect: wanted } of rpcVectors<RpcVector>("answers.json")) {
      const records = traceOf([
        { from: "client", bytes: Buffer.concat([MAGIC, Buffer.from(hello, "hex")]) },
        { from: "server", bytes: Buffer.concat([MAGIC, Buffer.from(hex, "hex")]) },
      ]);
      if (wanted.type === "event") expect(records).toContainEqual(expect.objectContaining({ kind: "event", event: wanted.event }));
      // Whatever it answers, it is read and belongs to a request or is said to belong to none.
      expect(notesOf(records).filter((note) => !/an answer to no request|the connection ends/.test(note))).toEqual([]);
    }
  });
});
