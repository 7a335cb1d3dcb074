/*
 * One line off a stream, with what follows left in it: all that a relay reads of NATS itself. It must never hold more than it
 * was allowed to, nor wait without an end.
 */
import type { Duplex } from "node:stream";

export type LineFailure = "ended" | "too-long" | "late";

/** Why there is no line. */
export class LineError extends Error {
  readonly failure: LineFailure;

  constructor(failure: LineFailure) {
    super(TEXTS[failure]);
    this.failure = failure;
  }
}
LineError.prototype.name = "LineError";

const TEXTS: Readonly<Record<LineFailure, string>> = {
  ended: "it hung up before the end of the line",
  "too-long": "the line has no end",
  late: "no line came in time",
};

export interface LineLimits {
  readonly maxBytes: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const LF = 10;
const CR = 13;

/**
 * The next line without its end (CR LF, or LF alone, as NATS takes it). What came after it is put back. Nobody else may read
 * meanwhile. Rejects with a LineError, or with the signal's reason; the stream stays the caller's.
 */
export function readLine(stream: Duplex, { maxBytes, timeoutMs, signal }: LineLimits): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    const settle = (outcome: () => void): void => {
      clearTimeout(timer);
      stream.off("readable", look);
      for (const name of ENDINGS) stream.off(name, ended);
      signal.removeEventListener("abort", aborted);
      outcome();
    };
    const fail = (failure: LineFailure): void => settle(() => reject(new LineError(failure)));
    const ended = (): void => fail("ended");
    const aborted = (): void => settle(() => reject(signal.reason));
    const found = (end: Buffer, rest: Buffer): void => {
      const line = Buffer.concat([...pieces, end]);
      settle(() => {
        if (rest.length > 0) stream.unshift(rest);
        resolve(line.at(-1) === CR ? line.subarray(0, -1) : line);
      });
    };
    /** Whether there is more to be read for. */
    const take = (chunk: Buffer): boolean => {
      const at = chunk.indexOf(LF);
      const end = at < 0 ? chunk : chunk.subarray(0, at);
      length += end.length;
      if (length > maxBytes) fail("too-long");
      else if (at >= 0) found(end, chunk.subarray(at + 1));
      else pieces.push(chunk);
      return length <= maxBytes && at < 0;
    };
    const look = (): void => {
      let wantsMore = true;
      while (wantsMore) {
        const chunk: Buffer | null = stream.read();
        wantsMore = chunk !== null && take(chunk);
      }
    };
    const timer = setTimeout(() => fail("late"), timeoutMs);
    if (signal.aborted) {
      aborted();
      return;
    }
    if (stream.destroyed || stream.readableEnded) {
      ended();
      return;
    }
    signal.addEventListener("abort", aborted, { once: true });
    for (const name of ENDINGS) stream.once(name, ended);
    stream.on("readable", look);
    look();
  });
}

const ENDINGS = ["end", "close", "error"] as const;
