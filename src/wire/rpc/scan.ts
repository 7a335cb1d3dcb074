/*
 * A walk over the bytes of one message before anything decodes them: it is a single msgpack map of our few types, within
 * the limits, and nothing follows it. It must never allocate by what a peer claims, and never put a byte of the message
 * into an error. See protocol/tokenfwd-rpc.md, "Values".
 */
import { isUtf8 } from "node:buffer";
import { DecodeError } from "../../base/bytes.js";
import type { RpcLimits } from "./messages.js";

/**
 * Passes a body, or throws DecodeError: `truncated` where it ends too early, `limit` over a cap, `malformed` for
 * everything that tokenfwd RPC does not have (extensions, floats, negative numbers, keys that are no text or stand
 * twice, text that is not UTF-8, bytes after the end).
 */
export function scanMessage(body: Buffer, limits: RpcLimits): void {
  const scanner = new Scanner(body, limits);
  scanner.message();
}

/** Up to this many keys are compared pair by pair; beyond, in a set. */
const PAIRWISE_KEYS = 16;

class Scanner {
  readonly #bytes: Buffer;
  readonly #limits: RpcLimits;
  #at = 0;
  #values = 0;
  /** Where the content of the last text lies. */
  #textStart = 0;

  constructor(bytes: Buffer, limits: RpcLimits) {
    this.#bytes = bytes;
    this.#limits = limits;
  }

  message(): void {
    const head = this.#bytes[0] ?? 0;
    if (!((head >= 0x80 && head <= 0x8f) || head === 0xde || head === 0xdf)) throw this.#malformed("a message that is no map");
    this.#value(1);
    if (this.#at !== this.#bytes.length) throw this.#malformed("bytes after the message");
  }

  /** `depth` is that of a container which begins here. */
  #value(depth: number): void {
    this.#count();
    const head = this.#u8("value");
    if (head <= 0x7f) return;
    if (head <= 0x8f) this.#map(head & 0x0f, depth);
    else if (head <= 0x9f) this.#array(head & 0x0f, depth);
    else if (head <= 0xbf) this.#text(head & 0x1f);
    else this.#longValue(head, depth);
  }

  #longValue(head: number, depth: number): void {
    switch (head) {
      case 0xc0: // nil
      case 0xc2: // false
      case 0xc3: // true
        break;
      case 0xc4:
        this.#skip(this.#u8("length"), "bytes");
        break;
      case 0xc5:
        this.#skip(this.#u16("length"), "bytes");
        break;
      case 0xc6:
        this.#skip(this.#u32("length"), "bytes");
        break;
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        this.#skip(1 << (head - 0xcc), "number");
        break;
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        if ((this.#bytes[this.#at] ?? 0) >= 0x80) throw this.#malformed("a negative number");
        this.#skip(1 << (head - 0xd0), "number");
        break;
      case 0xd9:
      case 0xda:
      case 0xdb:
        this.#text(this.#textLength(head));
        break;
      case 0xdc:
        this.#array(this.#u16("count"), depth);
        break;
      case 0xdd:
        this.#array(this.#u32("count"), depth);
        break;
      case 0xde:
        this.#map(this.#u16("count"), depth);
        break;
      case 0xdf:
        this.#map(this.#u32("count"), depth);
        break;
      case 0xca:
      case 0xcb:
        throw this.#malformed("a float");
      default:
        throw this.#malformed(head >= 0xe0 ? "a negative number" : "an extension or a reserved byte");
    }
  }

  #array(count: number, depth: number): void {
    this.#enter(count, depth);
    for (let index = 0; index < count; index++) this.#value(depth + 1);
  }

  #map(count: number, depth: number): void {
    this.#enter(2 * count, depth);
    const starts: number[] = [];
    const ends: number[] = [];
    const seen = count > PAIRWISE_KEYS ? new Set<string>() : null;
    for (let index = 0; index < count; index++) {
      this.#key();
      const start = this.#textStart;
      const end = this.#at;
      if (seen !== null) {
        const size = seen.size;
        seen.add(this.#bytes.toString("latin1", start, end));
        if (seen.size === size) throw this.#malformed("a key that stands twice");
      } else {
        for (let other = 0; other < index; other++)
          if (this.#same(starts[other] ?? 0, ends[other] ?? 0, start, end)) throw this.#malformed("a key that stands twice");
        starts.push(start);
        ends.push(end);
      }
      this.#value(depth + 1);
    }
  }

  #key(): void {
    this.#count();
    const head = this.#u8("key");
    if (head >= 0xa0 && head <= 0xbf) this.#text(head & 0x1f);
    else if (head >= 0xd9 && head <= 0xdb) this.#text(this.#textLength(head));
    else throw this.#malformed("a key that is no text");
  }

  #textLength(head: number): number {
    return head === 0xd9 ? this.#u8("length") : head === 0xda ? this.#u16("length") : this.#u32("length");
  }

  #text(length: number): void {
    if (length > this.#limits.maxTextBytes) throw new DecodeError("limit", `text of ${length} bytes`, this.#at);
    const start = this.#at;
    this.#skip(length, "text");
    this.#textStart = start;
    for (let at = start; at < this.#at; at++) {
      if ((this.#bytes[at] ?? 0) < 0x80) continue;
      if (!isUtf8(this.#bytes.subarray(start, this.#at))) throw this.#malformed("text that is not UTF-8");
      return;
    }
  }

  #same(start: number, end: number, otherStart: number, otherEnd: number): boolean {
    const length = end - start;
    if (length !== otherEnd - otherStart) return false;
    for (let at = 0; at < length; at++) if (this.#bytes[start + at] !== this.#bytes[otherStart + at]) return false;
    return true;
  }

  /** Checks a container's depth, and that its elements can lie in what is left: each takes a byte at least. */
  #enter(elements: number, depth: number): void {
    if (depth > this.#limits.maxDepth) throw new DecodeError("limit", `nesting deeper than ${this.#limits.maxDepth}`, this.#at);
    if (elements > this.#bytes.length - this.#at) throw new DecodeError("truncated", "count above the bytes that follow", this.#at);
  }

  #count(): void {
    if (++this.#values > this.#limits.maxValues) throw new DecodeError("limit", `more than ${this.#limits.maxValues} values`, this.#at);
  }

  #skip(length: number, what: string): void {
    if (length > this.#bytes.length - this.#at) throw new DecodeError("truncated", what, this.#at);
    this.#at += length;
  }

  #u8(what: string): number {
    const at = this.#at;
    this.#skip(1, what);
    return this.#bytes[at] ?? 0;
  }

  #u16(what: string): number {
    return this.#u8(what) * 0x100 + this.#u8(what);
  }

  #u32(what: string): number {
    return this.#u16(what) * 0x10000 + this.#u16(what);
  }

  #malformed(what: string): DecodeError {
    return new DecodeError("malformed", what, this.#at);
  }
}
