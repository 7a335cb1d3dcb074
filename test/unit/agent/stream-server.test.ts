/* One stream and the wire that its first byte names: what is waited for, how long, and how it ends. */
import { expect, test, vi } from "vitest";
import { type StreamLine, serveStream, type WireServer } from "../../../src/agent/stream-server.js";
import { streamPair } from "../../support/stream-pair.js";

function serving({ greetingTimeoutMs = 60_000, lingerMs = 60_000 } = {}) {
  const [mine, theirs] = streamPair();
  const firstBytes: number[] = [];
  const reasons: string[] = [];
  const pushed: Buffer[] = [];
  let line: StreamLine | null = null;
  let resolveIdle = (): void => {};
  const server: WireServer & { pendingBytes: number; ended: number } = {
    ended: 0,
    pendingBytes: 0,
    idle: new Promise<void>((resolve) => {
      resolveIdle = resolve;
    }),
    push: (chunk) => pushed.push(chunk),
    end() {
      server.ended += 1;
      resolveIdle();
    },
  };
  const counters = { bytesIn: 0, bytesOut: 0 };
  const done = serveStream({
    stream: theirs,
    counters,
    serve(firstByte, given) {
      firstBytes.push(firstByte);
      line = given;
      return server;
    },
    onViolation: (reason) => reasons.push(reason),
    greetingTimeoutMs,
    lingerMs,
  });
  const read: Buffer[] = [];
  mine.on("data", (chunk: Buffer) => read.push(chunk));
  const theLine = (): StreamLine => {
    if (line === null) throw new Error("no first byte yet");
    return line;
  };
  return { mine, theirs, firstBytes, reasons, pushed, server, counters, done, read, line: theLine };
}

test("the first byte chooses once, and goes to the wire with the rest", async () => {
  const { mine, firstBytes, pushed, counters, done } = serving();
  mine.write(Buffer.from([0xf4, 1, 2]));
  mine.write(Buffer.from([3]));
  await vi.waitFor(() => expect(counters.bytesIn).toBe(4));
  expect(firstBytes).toEqual([0xf4]);
  expect(Buffer.concat(pushed)).toEqual(Buffer.from([0xf4, 1, 2, 3]));
  mine.destroy();
  await done;
});

test("a wire that was not greeted in time is closed, and the reason says what is missing", async () => {
  const silent = serving({ greetingTimeoutMs: 20 });
  await silent.done;
  expect(silent.reasons).toEqual(["no version byte in 0.02 s"]);
  const halfway = serving({ greetingTimeoutMs: 20 });
  halfway.mine.write(Buffer.from([0xf4]));
  await halfway.done;
  expect(halfway.reasons).toEqual(["no hello in 0.02 s"]);
  expect(halfway.server.ended).toBeGreaterThan(0);
});

test("a greeted wire may be silent", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const { mine, firstBytes, line, reasons, server, done, theirs } = serving({ greetingTimeoutMs: 20 });
    mine.write(Buffer.from([2]));
    while (firstBytes.length === 0) await new Promise((resolve) => setImmediate(resolve));
    line().greeted();
    vi.advanceTimersByTime(60_000);
    expect([reasons, server.ended, theirs.destroyed]).toEqual([[], 0, false]);
    mine.destroy();
    await done;
  } finally {
    vi.useRealTimers();
  }
});

test("what was written before a violation still goes out, where the wire asks for that", async () => {
  const { mine, line, reasons, read, counters, done } = serving();
  mine.write(Buffer.from([0xf4]));
  await vi.waitFor(() => expect(line).not.toThrow());
  line().write(Buffer.from("the last word"));
  line().violate("broken", { afterWrites: true });
  line().violate("again");
  await done;
  expect(Buffer.concat(read).toString()).toBe("the last word");
  expect([reasons, counters.bytesOut]).toEqual([["broken"], 13]);
});

test("one that never reads the last word is closed all the same", async () => {
  const { mine, line, done, theirs } = serving({ lingerMs: 30 });
  mine.pause();
  mine.write(Buffer.from([0xf4]));
  await vi.waitFor(() => expect(line).not.toThrow());
  for (let i = 0; i < 64; i++) line().write(Buffer.alloc(16 * 1024));
  line().violate("broken", { afterWrites: true });
  await done;
  expect(theirs.destroyed).toBe(true);
});

test("a stream that ends before its first byte is over, without a wire and without a complaint", async () => {
  const { mine, firstBytes, reasons, done } = serving();
  mine.end();
  await done;
  expect([firstBytes, reasons]).toEqual([[], []]);
});

test("a stream with too much unanswered input is not read until its server says so", async () => {
  const { mine, line, server, theirs, done } = serving();
  mine.write(Buffer.from([2]));
  await vi.waitFor(() => expect(line).not.toThrow());
  server.pendingBytes = 3 * 1024 * 1024;
  mine.write(Buffer.from([3]));
  await vi.waitFor(() => expect(theirs.isPaused()).toBe(true));
  // One of many messages is done with: a stream that were read on here would let more in than goes out.
  server.onDrain?.();
  expect(theirs.isPaused()).toBe(true);
  server.pendingBytes = 0;
  server.onDrain?.();
  expect(theirs.isPaused()).toBe(false);
  mine.destroy();
  await done;
});
