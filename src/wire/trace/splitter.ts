/*
 * Splits one direction of a traced stream into frames and goes on where a decoder of a peer must stop: a frame that is too long is
 * passed over, for its header says where the next begins. It must never hold more than its budget, and wipes what it has copied.
 */
import { wipeable } from "../../base/secret.js";

/** Where frames begin and end. */
export interface FrameShape {
  readonly headerBytes: number;
  /** The bytes that follow this header. */
  restBytes(header: Buffer): number;
}

/** What all splitters of a trace may hold of unfinished frames together, in bytes. */
export interface HeldBudget {
  left: number;
}

export interface SplitterOptions {
  readonly shape: FrameShape;
  /** A longer frame is passed over. */
  readonly maxFrameBytes: number;
  readonly budget: HeldBudget;
  /** A whole frame, header included; the bytes are valid within the call. `at` as given to the push that completed it. */
  onFrame(frame: Buffer, at: number): void;
  /** A frame that is not looked at, when it has passed. */
  onSkipped(header: Buffer, bytes: number, at: number): void;
}

export interface Splitter {
  push(chunk: Buffer, at: number): void;
  /** The stream has ended: wipes and frees what it holds. Answers how many bytes of an unfinished frame have come. */
  end(): number;
}

const FIRST_BYTES = 4096;
const NOTHING = Buffer.alloc(0);

/** A splitter at the beginning of a frame. */
export function createSplitter(options: SplitterOptions): Splitter {
  return new FrameSplitter(options);
}

class FrameSplitter implements Splitter {
  readonly #options: SplitterOptions;
  /** What has come of a frame that is not whole; memory of our own. */
  #held: Buffer = NOTHING;
  #filled = 0;
  /** Bytes of the frame under way, header included; null until its header is whole. */
  #size: number | null = null;
  /** Bytes of a frame that is passed over which are still to come. */
  #skipping = 0;
  #skippedSize = 0;
  #header: Buffer = NOTHING;

  constructor(options: SplitterOptions) {
    this.#options = options;
  }

  push(chunk: Buffer, at: number): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#skipping > 0) rest = this.#skip(rest, at);
      else if (this.#filled === 0) rest = this.#takeDirectly(rest, at);
      else rest = this.#takeMore(rest, at);
    }
  }

  end(): number {
    const come = this.#skipping > 0 ? this.#skippedSize - this.#skipping : this.#filled;
    this.#release();
    return come;
  }

  /** A frame that lies whole in the chunk is not copied. */
  #takeDirectly(rest: Buffer, at: number): Buffer {
    const { shape, maxFrameBytes, onFrame } = this.#options;
    if (rest.length >= shape.headerBytes) {
      const size = shape.headerBytes + shape.restBytes(rest.subarray(0, shape.headerBytes));
      if (size <= rest.length && size <= maxFrameBytes) {
        onFrame(rest.subarray(0, size), at);
        return rest.subarray(size);
      }
    }
    return this.#takeMore(rest, at);
  }

  #takeMore(rest: Buffer, at: number): Buffer {
    const { shape, maxFrameBytes, onFrame } = this.#options;
    const wanted = (this.#size ?? shape.headerBytes) - this.#filled;
    const taken = rest.subarray(0, wanted);
    if (!this.#keep(taken)) return this.#giveUp(rest, at);
    const left = rest.subarray(taken.length);
    if (this.#size === null) {
      if (this.#filled < shape.headerBytes) return left;
      this.#size = shape.headerBytes + shape.restBytes(this.#held.subarray(0, shape.headerBytes));
      if (this.#size > maxFrameBytes) return this.#giveUp(left, at);
    }
    if (this.#filled < this.#size) return left;
    const frame = this.#held.subarray(0, this.#size);
    try {
      onFrame(frame, at);
    } finally {
      this.#release();
    }
    return left;
  }

  /** Passes over the frame under way. */
  #giveUp(rest: Buffer, at: number): Buffer {
    const { headerBytes } = this.#options.shape;
    if (this.#size === null) {
      // Not even a header's worth of room: nothing is left to go by but to drop what came.
      this.#release();
      return NOTHING;
    }
    const header = Buffer.from(this.#held.subarray(0, headerBytes));
    const size = this.#size;
    const skipping = size - this.#filled;
    this.#release();
    this.#header = header;
    this.#skippedSize = size;
    this.#skipping = skipping;
    return this.#skip(rest, at);
  }
  #skip(rest: Buffer, at: number): Buffer {
    const passed = Math.min(rest.length, this.#skipping);
    this.#skipping -= passed;
    if (this.#skipping === 0) this.#options.onSkipped(this.#header, this.#skippedSize, at);
    return rest.subarray(passed);
  }

  /** Copies into memory of our own, which grows as bytes come and not as a header claims. False above the budget. */
  #keep(bytes: Buffer): boolean {
    const end = this.#filled + bytes.length;
    if (end > this.#held.length) {
      const { budget } = this.#options;
      const room = Math.max(end, Math.min(FIRST_BYTES, this.#size ?? FIRST_BYTES), Math.min(2 * this.#held.length, this.#size ?? end));
      if (room > budget.left) return false;
      budget.left -= room - this.#held.length;
      const grown = wipeable(room);
      this.#held.copy(grown, 0, 0, this.#filled);
      this.#held.fill(0);
      this.#held = grown;
    }
    bytes.copy(this.#held, this.#filled);
    this.#filled = end;
    return true;
  }

  #release(): void {
    this.#held.fill(0);
    this.#options.budget.left += this.#held.length;
    this.#held = NOTHING;
    this.#filled = 0;
    this.#size = null;
  }
}
