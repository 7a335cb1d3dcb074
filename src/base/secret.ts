/*
 * Bytes that must not be printed or outlive their use: a PIN, a passphrase. It must never be turned into a string by
 * anybody but the call that needs one, and shows itself as `[secret]` wherever it is inspected, logged or serialised.
 */
import { inspect } from "node:util";

export interface SecretBytes extends Disposable {
  /** The bytes themselves, not a copy; all zero after `dispose`. */
  readonly bytes: Buffer;
  readonly disposed: boolean;
  /** Overwrites the bytes. Safe to call twice. */
  dispose(): void;
}

class Secret implements SecretBytes {
  // Private fields are out of reach of JSON.stringify, util.inspect and structured clones.
  readonly #bytes: Buffer;
  #disposed = false;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  dispose(): void {
    this.#bytes.fill(0);
    this.#disposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  [inspect.custom](): string {
    return "[secret]";
  }
}

/**
 * Zeroed memory that `fill` really wipes. A Buffer of at most 64 bytes from Buffer.alloc lies in V8's own heap and is
 * copied when it is first touched, so that wiping misses the copy (measured: one stale PIN for each log-in).
 */
export function wipeable(length: number): Buffer {
  return Buffer.from(new ArrayBuffer(length));
}

/** Takes ownership of the buffer: the caller must not keep or copy it. */
export function secretBytes(bytes: Buffer): SecretBytes {
  return new Secret(bytes);
}
