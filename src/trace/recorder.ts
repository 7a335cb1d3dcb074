/*
 * Takes down what passes on traced streams, in the thread that serves them: a copy into memory that another thread decodes. It does
 * nothing else with the bytes, so that a traced stream is as fast as one that is not; and when the other side cannot keep up it
 * drops, and says so, and never makes a stream wait.
 */
import type { Direction, ShownFields, StreamTap } from "../wire/trace/records.js";
import { type Batch, createBatch } from "./batch.js";

/** Where full batches go. */
export interface BatchSink {
  /** Takes the memory over. */
  send(memory: ArrayBuffer, used: number): void;
  /** Batches that have not been decoded yet. */
  readonly outstanding: number;
  /** Wiped memory to be used again, or undefined. */
  reuse(): ArrayBuffer | undefined;
}

export interface RecorderOptions {
  readonly sink: BatchSink;
  /** Milliseconds since the trace began. */
  now(): number;
  /** Default 64 KiB. */
  readonly batchBytes?: number;
  /** Above this many batches that wait for the decoder, bytes are dropped. Default 256. */
  readonly maxOutstanding?: number;
}

export interface Recorder {
  /** A stream that begins now; `origin` says where it comes from, in printable words. */
  tap(origin: ShownFields): StreamTap;
  /** Hands over what is there. */
  flush(): void;
  /** Nothing more is taken. */
  close(): void;
}

const BATCH_BYTES = 64 * 1024;
const MAX_OUTSTANDING = 256;
/** How long an entry waits for others at most. */
const FLUSH_MS = 100;

/** A recorder without a stream. */
export function createRecorder(options: RecorderOptions): Recorder {
  const { sink, now, batchBytes = BATCH_BYTES, maxOutstanding = MAX_OUTSTANDING } = options;
  let batch: Batch | null = null;
  let timer: NodeJS.Timeout | null = null;
  let connections = 0;
  let closed = false;

  function flush(): void {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    if (batch === null) return;
    const full = batch;
    batch = null;
    sink.send(full.memory, full.used);
  }

  /** The batch to put into, or null where the decoder is too far behind. */
  function current(): Batch | null {
    if (batch !== null) return batch;
    if (closed || sink.outstanding >= maxOutstanding) return null;
    batch = createBatch(sink.reuse() ?? new ArrayBuffer(batchBytes));
    timer = setTimeout(flush, FLUSH_MS).unref();
    return batch;
  }

  /** Puts one entry, into the next batch where this one is full. */
  function put(entry: (into: Batch) => boolean): boolean {
    const first = current();
    if (first === null) return false;
    if (entry(first)) return true;
    flush();
    const second = current();
    return second !== null && entry(second);
  }

  class Tap implements StreamTap {
    readonly #c: number;
    /** Bytes of it were dropped, and the decoder is to be told before anything else. */
    #gap = false;
    #closed = false;

    constructor(origin: ShownFields) {
      this.#c = ++connections;
      const at = now();
      if (!put((into) => into.open(this.#c, origin, at))) this.#closed = true;
    }

    bytes(from: Direction, bytes: Buffer): void {
      if (this.#closed || !this.#mendGap()) return;
      const at = now();
      let rest = bytes;
      while (rest.length > 0) {
        const into = current();
        if (into === null) {
          this.#gap = true;
          return;
        }
        const taken = into.bytes(this.#c, from, rest, at);
        rest = rest.subarray(taken);
        if (rest.length > 0) flush();
      }
    }

    closed(by: Direction | null): void {
      if (this.#closed) return;
      this.#closed = true;
      this.#mendGap();
      const at = now();
      put((into) => into.close(this.#c, by, at));
    }

    #mendGap(): boolean {
      if (this.#gap && put((into) => into.lost(this.#c, now()))) this.#gap = false;
      return !this.#gap;
    }
  }

  return {
    tap: (origin) => new Tap(origin),
    flush,
    close() {
      flush();
      closed = true;
    },
  };
}
