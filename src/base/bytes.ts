/*
 * A bounds-checked big-endian reader and a growing big-endian writer: what every wire codec is built on.
 * The reader must never read past its end, never allocate what a peer only claims, and never copy unless told to.
 */

/** Why bytes could not be read. `truncated` ends too early, `limit` is over one of our caps, `malformed` is anything else. */
export type DecodeFailure = "truncated" | "limit" | "malformed";

/** Bytes that are not what they should be. The message says what was being read and where; it never holds the bytes. */
export class DecodeError extends Error {
  readonly failure: DecodeFailure;
  /** Offset in the buffer that was being read. */
  readonly offset: number;

  constructor(failure: DecodeFailure, what: string, offset: number) {
    super(`${failure}: ${what} at byte ${offset}`);
    this.failure = failure;
    this.offset = offset;
  }
}
DecodeError.prototype.name = "DecodeError";

/** Reads forward through one buffer. `what` names the field for the error; every method throws DecodeError `truncated`. */
export interface Reader {
  readonly offset: number;
  readonly remaining: number;
  u8(what: string): number;
  u32(what: string): number;
  u64(what: string): bigint;
  /** The next `length` bytes, as a view of the underlying buffer. */
  take(length: number, what: string): Buffer;
  /** A `malformed` error at the current offset, for the caller to throw. */
  malformed(what: string): DecodeError;
}

/** A reader at the start of `bytes`, which it neither copies nor changes. */
export function createReader(bytes: Buffer): Reader {
  return new ByteReader(bytes);
}

/** Byte by byte: Buffer's own method checks its number in functions of their own, which is most of its time. The bytes must be there. */
function u32At(bytes: Buffer, at: number): number {
  const byte = (place: number): number => bytes[at + place] as number;
  return ((byte(0) << 24) | (byte(1) << 16) | (byte(2) << 8) | byte(3)) >>> 0;
}

class ByteReader implements Reader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  u8(what: string): number {
    return this.#bytes[this.#advance(1, what)] as number;
  }

  u32(what: string): number {
    return u32At(this.#bytes, this.#advance(4, what));
  }

  u64(what: string): bigint {
    const at = this.#advance(8, what);
    const high = u32At(this.#bytes, at);
    const low = BigInt(u32At(this.#bytes, at + 4));
    return high === 0 ? low : (BigInt(high) << 32n) | low;
  }

  take(length: number, what: string): Buffer {
    const start = this.#advance(length, what);
    return this.#bytes.subarray(start, start + length);
  }

  malformed(what: string): DecodeError {
    return new DecodeError("malformed", what, this.#offset);
  }

  #advance(length: number, what: string): number {
    const start = this.#offset;
    if (length > this.#bytes.length - start) throw new DecodeError("truncated", what, start);
    this.#offset = start + length;
    return start;
  }
}

/** Writes forward into a buffer that grows. Numbers are taken modulo their width. */
export interface Writer {
  readonly length: number;
  u8(value: number): void;
  u32(value: number): void;
  u64(value: bigint): void;
  bytes(value: Buffer): void;
  /** Everything written so far as one Buffer. The writer must not be used afterwards. */
  finish(): Buffer;
}

/** An empty writer; `expectedBytes` only saves growing. */
export function createWriter(expectedBytes = 256): Writer {
  return new ByteWriter(expectedBytes);
}

class ByteWriter implements Writer {
  #bytes: Buffer;
  #length = 0;

  constructor(expectedBytes: number) {
    this.#bytes = Buffer.allocUnsafe(Math.max(16, expectedBytes));
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    const at = this.#room(1);
    this.#bytes[at] = value & 0xff;
  }

  u32(value: number): void {
    const at = this.#room(4);
    this.#bytes[at] = value >>> 24;
    this.#bytes[at + 1] = value >>> 16;
    this.#bytes[at + 2] = value >>> 8;
    this.#bytes[at + 3] = value;
  }

  u64(value: bigint): void {
    const at = this.#room(8);
    this.#bytes.writeBigUInt64BE(BigInt.asUintN(64, value), at);
  }

  bytes(value: Buffer): void {
    const at = this.#room(value.length);
    value.copy(this.#bytes, at);
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #room(length: number): number {
    const at = this.#length;
    const end = at + length;
    if (end > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(end, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, at);
      this.#bytes = grown;
    }
    this.#length = end;
    return at;
  }
}
