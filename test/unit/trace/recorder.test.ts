/* What the serving thread takes down, and what the decoding one makes of it: order, times, pieces, gaps, and wiped memory. */
import { expect, test } from "vitest";
import { drainBatch } from "../../../src/trace/batch.js";
import { type BatchSink, createRecorder } from "../../../src/trace/recorder.js";
import { createTraceDecoder } from "../../../src/wire/trace/decoder.js";
import type { TraceRecord } from "../../../src/wire/trace/records.js";
import { notesOf, stockConversations, traceOf } from "../../support/traces.js";

interface Sent {
  readonly memory: ArrayBuffer;
  readonly used: number;
}

function recording(options: { batchBytes?: number; maxOutstanding?: number } = {}) {
  const sent: Sent[] = [];
  let time = 0;
  let waiting = 0;
  const sink: BatchSink = {
    send(memory, used) {
      waiting += 1;
      sent.push({ memory, used });
    },
    get outstanding() {
      return waiting;
    },
    reuse: () => undefined,
  };
  const recorder = createRecorder({ sink, now: () => time, ...options });
  return {
    recorder,
    sent,
    at(ms: number) {
      time = ms;
    },
    /** The decoder has caught up. */
    caughtUp() {
      waiting = 0;
    },
    records(): TraceRecord[] {
      const records: TraceRecord[] = [];
      const decoder = createTraceDecoder({ data: false, onRecord: (record) => records.push(record) });
      for (const { memory, used } of sent) drainBatch(memory, used, decoder);
      decoder.end(time);
      return records;
    },
  };
}

test("what is read back is what a decoder would have seen, in batches of any size", () => {
  const conversation = stockConversations().find(({ name }) => name === "04-sign-sha256-rsa-pkcs");
  const passed = conversation?.passed ?? [];
  for (const batchBytes of [64, 100, 4096, 65_536]) {
    const run = recording({ batchBytes });
    const tap = run.recorder.tap({ kind: "test" });
    for (const [index, { from, bytes }] of passed.entries()) {
      run.at(index + 1);
      tap.bytes(from, bytes);
    }
    run.at(passed.length + 1);
    tap.closed("client");
    tap.closed("server");
    run.recorder.close();
    expect(run.records()).toEqual(traceOf(passed));
  }
});

test("the memory that was handed over is wiped when it has been read", () => {
  const run = recording();
  run.recorder.tap({ kind: "test" }).bytes("client", Buffer.from("00canary", "latin1"));
  run.recorder.flush();
  run.records();
  expect(Buffer.from(run.sent[0]?.memory ?? new ArrayBuffer(1)).some((byte) => byte !== 0)).toBe(false);
});

test("bytes are copied at once: whoever owns them may overwrite them", () => {
  const run = recording();
  const tap = run.recorder.tap({ kind: "test" });
  const bytes = Buffer.from([2]);
  tap.bytes("client", bytes);
  bytes.fill(0xff);
  tap.bytes("server", Buffer.from([2]));
  run.recorder.flush();
  expect(run.records()).toContainEqual(expect.objectContaining({ kind: "protocol", offered: 2 }));
});

test("a decoder that is too far behind costs the trace a gap, which it tells of, and nothing else", () => {
  const run = recording({ batchBytes: 128, maxOutstanding: 2 });
  const first = run.recorder.tap({ kind: "test" });
  first.bytes("client", Buffer.from([2]));
  for (let index = 0; index < 100; index++) first.bytes("client", Buffer.alloc(50));
  expect(run.sent).toHaveLength(2);
  // One that comes meanwhile is not in the trace at all.
  const missed = run.recorder.tap({ kind: "test" });
  missed.bytes("client", Buffer.from([2]));
  run.caughtUp();
  first.bytes("client", Buffer.from([1]));
  const next = run.recorder.tap({ kind: "test" });
  next.bytes("client", Buffer.from([1]));
  next.closed("client");
  run.recorder.close();
  const records = run.records();
  expect(notesOf(records).filter((note) => note.startsWith("lost"))).toEqual([
    "lost: bytes passed that were not kept: nothing more of this connection is read",
  ]);
  expect(records).toContainEqual(expect.objectContaining({ kind: "protocol", c: 3, offered: 1 }));
  missed.closed(null);
});

test("after its end nothing is taken", () => {
  const run = recording();
  const tap = run.recorder.tap({ kind: "test" });
  run.recorder.close();
  tap.bytes("client", Buffer.from([2]));
  tap.closed(null);
  run.recorder.tap({ kind: "test" }).bytes("client", Buffer.from([2]));
  run.recorder.flush();
  expect(run.sent).toHaveLength(1);
});
