/*
 * What passed on the traced streams, packed into one piece of memory that is handed from thread to thread: entries one after another,
 * each with its connection and its time. Pure; it must never hold a byte twice, so that wiping the memory wipes them all.
 *
 *   u8 operation   u8 detail   u16 unused   u32 connection   f64 milliseconds   u32 length   bytes
 */

import type { TraceDecoder } from "../wire/trace/decoder.js";
import type { Direction, ShownFields } from "../wire/trace/records.js";

const HEADER_BYTES = 20;
const OPERATIONS = { open: 1, client: 2, server: 3, close: 4, lost: 5 } as const;
type Operation = keyof typeof OPERATIONS;
const NAMES: ReadonlyMap<number, Operation> = new Map(Object.entries(OPERATIONS).map(([name, code]) => [code, name as Operation]));
const CLOSERS: readonly (Direction | null)[] = [null, "client", "server"];

/** Memory that entries are put into. */
export interface Batch {
  readonly memory: ArrayBuffer;
  /** Bytes in use. */
  readonly used: number;
  open(c: number, origin: ShownFields, at: number): boolean;
  /** Takes as many of the bytes as there is room for and answers how many; none where there is no room for a header. */
  bytes(c: number, from: Direction, bytes: Buffer, at: number): number;
  close(c: number, by: Direction | null, at: number): boolean;
  lost(c: number, at: number): boolean;
}

/** An empty batch in this memory. The methods answer false, or 0, when it is full. */
export function createBatch(memory: ArrayBuffer): Batch {
  return new PackedBatch(memory);
}

class PackedBatch implements Batch {
  readonly memory: ArrayBuffer;
  readonly #bytes: Buffer;
  used = 0;

  constructor(memory: ArrayBuffer) {
    this.memory = memory;
    this.#bytes = Buffer.from(memory);
  }

  open(c: number, origin: ShownFields, at: number): boolean {
    const text = Buffer.from(JSON.stringify(origin), "utf8");
    if (this.#room() < text.length) return false;
    this.#header("open", 0, c, at, text.length);
    this.used += text.copy(this.#bytes, this.used);
    return true;
  }

  bytes(c: number, from: Direction, bytes: Buffer, at: number): number {
    const taken = Math.min(bytes.length, this.#room());
    if (taken <= 0) return 0;
    this.#header(from, 0, c, at, taken);
    bytes.copy(this.#bytes, this.used, 0, taken);
    this.used += taken;
    return taken;
  }

  close(c: number, by: Direction | null, at: number): boolean {
    if (this.#room() < 0) return false;
    this.#header("close", CLOSERS.indexOf(by), c, at, 0);
    return true;
  }

  lost(c: number, at: number): boolean {
    if (this.#room() < 0) return false;
    this.#header("lost", 0, c, at, 0);
    return true;
  }

  #room(): number {
    return this.#bytes.length - this.used - HEADER_BYTES;
  }

  #header(operation: Operation, detail: number, c: number, at: number, length: number): void {
    const start = this.used;
    this.#bytes[start] = OPERATIONS[operation];
    this.#bytes[start + 1] = detail;
    this.#bytes.writeUInt32LE(c, start + 4);
    this.#bytes.writeDoubleLE(at, start + 8);
    this.#bytes.writeUInt32LE(length, start + 16);
    this.used += HEADER_BYTES;
  }
}

/** Gives the entries of a batch to a decoder, in order, and wipes the memory. */
export function drainBatch(memory: ArrayBuffer, used: number, decoder: TraceDecoder): void {
  const all = Buffer.from(memory, 0, used);
  try {
    for (let start = 0; start < used; ) {
      const c = all.readUInt32LE(start + 4);
      const at = all.readDoubleLE(start + 8);
      const end = start + HEADER_BYTES + all.readUInt32LE(start + 16);
      const bytes = all.subarray(start + HEADER_BYTES, end);
      const operation = NAMES.get(all.readUInt8(start));
      if (operation === "open") decoder.open(c, JSON.parse(bytes.toString("utf8")) as ShownFields, at);
      else if (operation === "close") decoder.close(c, CLOSERS[all.readUInt8(start + 1)] ?? null, at);
      else if (operation === "lost") decoder.lost(c, at);
      else if (operation !== undefined) decoder.bytes(c, operation, bytes, at);
      start = end;
    }
  } finally {
    all.fill(0);
  }
}
