/*
 * The frames of tokenfwd RPC: a 4-byte length and a body. Takes chunks of any size and gives whole frames; a frame that
 * lies within one chunk is not copied. It must never allocate for a frame that is over the limit, nor look into a body.
 * See protocol/tokenfwd-rpc.md, "Frame".
 */
import { DecodeError } from "../../base/bytes.js";
import { wipeable } from "../../base/secret.js";
import { HEADER_BYTES } from "./codec.js";

/** One frame. `body` is a view of the chunk it came in, or of memory of its own. */
export interface Frame {
  readonly body: Buffer;
  /** Size on the wire, header included. */
  readonly size: number;
  /** Overwrites the body with zeros, and for a frame of up to 4 KiB also the bytes of the chunks it was put together from. */
  wipe(): void;
}

export interface FrameDecoderOptions {
  /** The longest body. */
  readonly maxFrameBytes: number;
  /** Called for each whole frame, in order, from within push. */
  readonly onFrame: (frame: Frame) => void;
}

export interface FrameDecoder {
  /**
   * Takes the next bytes of the stream. The chunk becomes the decoder's: frames are views of it and `wipe` overwrites it.
   * Throws DecodeError at the first header that is over the limit or announces no body, after the frames before it
   * were delivered; nothing may be pushed after that.
   */
  push(chunk: Buffer): void;
  /** Overwrites what has come of a frame that is not whole, as `wipe` does: it may hold a part of a PIN. Nothing may be pushed after that. */
  end(): void;
}

/** Above this a frame's chunks are not remembered for wiping, so that many tiny chunks cannot cost much memory. */
const MAX_WIPED_SOURCE_BYTES = 4096;

/** A decoder at the start of a stream of frames (after the magic). */
export function createFrameDecoder(options: FrameDecoderOptions): FrameDecoder {
  return new Decoder(options);
}

class WholeFrame implements Frame {
  readonly body: Buffer;
  readonly size: number;
  readonly #sources: readonly Buffer[];

  constructor(body: Buffer, sources: readonly Buffer[]) {
    this.body = body;
    this.size = HEADER_BYTES + body.length;
    this.#sources = sources;
  }

  wipe(): void {
    this.body.fill(0);
    for (const source of this.#sources) source.fill(0);
  }
}

const NO_SOURCES: readonly Buffer[] = [];

class Decoder implements FrameDecoder {
  readonly #options: FrameDecoderOptions;
  /** The length being read, byte by byte when a chunk ends within it. */
  #length = 0;
  #headerFilled = 0;
  /** The body of a frame that lies in several chunks; null otherwise. */
  #content: Buffer | null = null;
  #contentFilled = 0;
  #sources: Buffer[] = [];

  constructor(options: FrameDecoderOptions) {
    this.#options = options;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#content !== null) at = this.#fill(this.#content, chunk, at);
      else {
        while (this.#headerFilled < HEADER_BYTES && at < chunk.length) {
          this.#length = this.#length * 256 + chunk.readUInt8(at++);
          this.#headerFilled++;
        }
        if (this.#headerFilled < HEADER_BYTES) return;
        const length = this.#checkedLength();
        if (chunk.length - at >= length) {
          this.#headerFilled = 0;
          this.#length = 0;
          this.#options.onFrame(new WholeFrame(chunk.subarray(at, at + length), NO_SOURCES));
          at += length;
        } else this.#content = wipeable(length);
      }
    }
  }

  end(): void {
    if (this.#content !== null) new WholeFrame(this.#content, this.#sources).wipe();
  }

  #checkedLength(): number {
    if (this.#length > this.#options.maxFrameBytes) throw new DecodeError("limit", `frame of ${this.#length} bytes`, 0);
    if (this.#length === 0) throw new DecodeError("malformed", "frame without a body", 0);
    return this.#length;
  }

  #fill(content: Buffer, chunk: Buffer, at: number): number {
    const taken = chunk.copy(content, this.#contentFilled, at);
    if (content.length <= MAX_WIPED_SOURCE_BYTES) this.#sources.push(chunk.subarray(at, at + taken));
    this.#contentFilled += taken;
    if (this.#contentFilled === content.length) {
      const sources = this.#sources;
      this.#headerFilled = 0;
      this.#length = 0;
      this.#content = null;
      this.#contentFilled = 0;
      this.#sources = [];
      this.#options.onFrame(new WholeFrame(content, sources));
    }
    return at + taken;
  }
}
