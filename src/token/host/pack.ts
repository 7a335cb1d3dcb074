/*
 * Plain values as bytes, for the pipe between the agent and its token host: null, undefined, booleans, numbers, u64 bigints,
 * strings, byte strings, arrays and objects. Names that the calls table and the messages use take two bytes. Measured beside
 * node:v8's serializer on a signature's messages: a fifth of its time. Both ends are of one version, so the names may change.
 * It must never read past its end, whatever a module has done to the memory of its process.
 */
import { wipeable } from "../../base/secret.js";
import { CALLS } from "../../cryptoki/calls.js";

const TAG = {
  null: 0,
  undefined: 1,
  true: 2,
  false: 3,
  int32: 4,
  double: 5,
  u64: 6,
  name: 7,
  text: 8,
  bytes: 9,
  array: 10,
  object: 11,
} as const;

/** The values of messages that are no name of the table, where they are common. */
const MORE_NAMES = [
  "kind",
  "id",
  "name",
  "args",
  "first",
  "result",
  "begun",
  "rv",
  "call",
  "type",
  "value",
  "length",
  "parameter",
  "bytes",
];
const NAMES: readonly string[] = [...new Set([...MORE_NAMES, ...CALLS.flatMap(({ name, args, outs }) => [name, ...args, ...outs])])];
const INDEX = new Map(NAMES.map((name, index) => [name, index]));
const MAX_U64 = 0xffffffffffffffffn;
const MAX_DEPTH = 32;

/** Written into before a message's length is known; wiped after each, for it may have held a PIN. */
let scratch = wipeable(4096);
let at = 0;

function room(bytes: number): number {
  const start = at;
  at += bytes;
  if (at > scratch.length) {
    const grown = wipeable(Math.max(at, scratch.length * 2));
    scratch.copy(grown, 0, 0, start);
    scratch.fill(0, 0, start);
    scratch = grown;
  }
  return start;
}

function writeTag(tag: number): void {
  const start = room(1);
  scratch[start] = tag;
}

function writeU32(value: number): void {
  setU32(room(4), value);
}

/** Byte by byte: Buffer's own methods check each number in functions of their own, which is most of their time. */
function setU32(start: number, value: number): void {
  scratch[start] = value;
  scratch[start + 1] = value >>> 8;
  scratch[start + 2] = value >>> 16;
  scratch[start + 3] = value >>> 24;
}

function writeText(value: string): void {
  const index = INDEX.get(value);
  if (index !== undefined) {
    const start = room(3);
    scratch[start] = TAG.name;
    scratch[start + 1] = index;
    scratch[start + 2] = index >>> 8;
    return;
  }
  const length = Buffer.byteLength(value);
  writeTag(TAG.text);
  writeU32(length);
  const start = room(length);
  scratch.write(value, start);
}

function writeNumber(value: number): void {
  if (Object.is(value, value | 0)) {
    const start = room(5);
    scratch[start] = TAG.int32;
    setU32(start + 1, value);
    return;
  }
  const start = room(9);
  scratch[start] = TAG.double;
  scratch.writeDoubleLE(value, start + 1);
}

function writeBigint(value: bigint): void {
  // No CK_ULONG: crosses as what it is not, for the driver to refuse.
  if (value < 0n || value > MAX_U64) {
    writeText(String(value));
    return;
  }
  const start = room(9);
  scratch[start] = TAG.u64;
  setU32(start + 1, Number(value & 0xffffffffn));
  setU32(start + 5, Number(value >> 32n));
}

function writeBytes(value: Uint8Array): void {
  writeTag(TAG.bytes);
  writeU32(value.length);
  const start = room(value.length);
  scratch.set(value, start);
}

function writeObject(value: object): void {
  if (value instanceof Uint8Array) {
    writeBytes(value);
    return;
  }
  if (Array.isArray(value)) {
    writeTag(TAG.array);
    writeU32(value.length);
    for (const item of value) writeValue(item);
    return;
  }
  const keys = Object.keys(value);
  writeTag(TAG.object);
  writeU32(keys.length);
  for (const key of keys) {
    writeText(key);
    writeValue((value as Readonly<Record<string, unknown>>)[key]);
  }
}

function writeValue(value: unknown): void {
  switch (typeof value) {
    case "object":
      if (value === null) writeTag(TAG.null);
      else writeObject(value);
      return;
    case "string":
      writeText(value);
      return;
    case "number":
      writeNumber(value);
      return;
    case "bigint":
      writeBigint(value);
      return;
    case "boolean":
      writeTag(value ? TAG.true : TAG.false);
      return;
    case "undefined":
      writeTag(TAG.undefined);
      return;
    default:
      throw new TypeError(`a ${typeof value} cannot cross the pipe`);
  }
}

/**
 * The value as bytes, behind `before` bytes left free. `secret`: memory that can be wiped, else it shares a pool.
 * A bigint outside u64 arrives as text. Throws TypeError for a function or a symbol.
 */
export function pack(value: unknown, before: number, secret: boolean): Buffer {
  at = 0;
  try {
    writeValue(value);
    const packed = secret ? wipeable(before + at) : Buffer.allocUnsafe(before + at);
    scratch.copy(packed, before, 0, at);
    return packed;
  } finally {
    scratch.fill(0, 0, Math.min(at, scratch.length));
    if (scratch.length > 65_536) scratch = wipeable(4096);
  }
}

class Unpacker {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  value(depth: number): unknown {
    switch (this.#u8()) {
      case TAG.null:
        return null;
      case TAG.undefined:
        return undefined;
      case TAG.true:
        return true;
      case TAG.false:
        return false;
      case TAG.int32:
        return this.#u32() | 0;
      case TAG.double:
        return this.#bytes.readDoubleLE(this.#skip(8));
      case TAG.u64:
        return this.#u64();
      case TAG.name:
        return this.#name();
      case TAG.text:
        return this.#take().toString("utf8");
      case TAG.bytes:
        return this.#take();
      case TAG.array:
        return this.#array(depth + 1);
      case TAG.object:
        return this.#object(depth + 1);
      default:
        throw new RangeError("no such tag");
    }
  }

  /** Answers where the next bytes begin, all of which are there. */
  #skip(bytes: number): number {
    const start = this.#at;
    if (bytes > this.#bytes.length - start) throw new RangeError("a value that is cut off");
    this.#at = start + bytes;
    return start;
  }

  #byte(at: number): number {
    return this.#bytes[at] as number;
  }

  #u8(): number {
    return this.#byte(this.#skip(1));
  }

  #u32(): number {
    const at = this.#skip(4);
    return (this.#byte(at) | (this.#byte(at + 1) << 8) | (this.#byte(at + 2) << 16) | (this.#byte(at + 3) << 24)) >>> 0;
  }

  #u64(): bigint {
    const low = BigInt(this.#u32());
    const high = this.#u32();
    return high === 0 ? low : low | (BigInt(high) << 32n);
  }

  #take(): Buffer {
    const length = this.#u32();
    const start = this.#skip(length);
    return this.#bytes.subarray(start, start + length);
  }

  #name(): string {
    const at = this.#skip(2);
    const name = NAMES[this.#byte(at) | (this.#byte(at + 1) << 8)];
    if (name === undefined) throw new RangeError("no such name");
    return name;
  }

  #count(depth: number): number {
    if (depth > MAX_DEPTH) throw new RangeError("nested too deep");
    return this.#u32();
  }

  #array(depth: number): unknown[] {
    const items: unknown[] = [];
    for (let left = this.#count(depth); left > 0; left -= 1) items.push(this.value(depth));
    return items;
  }

  #object(depth: number): object {
    const made: Record<string, unknown> = {};
    for (let left = this.#count(depth); left > 0; left -= 1) {
      const key = this.value(depth);
      if (typeof key !== "string" || key === "__proto__") throw new RangeError("no such key");
      made[key] = this.value(depth);
    }
    return made;
  }
}

/** The value in the bytes, which it must fill. Byte strings are views of them. Throws RangeError. */
export function unpack(bytes: Buffer): unknown {
  const unpacker = new Unpacker(bytes);
  const value = unpacker.value(0);
  if (!unpacker.done) throw new RangeError("bytes after the value");
  return value;
}
