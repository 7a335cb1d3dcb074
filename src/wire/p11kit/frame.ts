/*
 * The frames of the p11-kit RPC: a 12-byte header (call code, options length, body length), options, body.
 * Takes chunks of any size and gives whole frames; one that lies within a chunk is not copied. It must never allocate for a frame
 * that is over a limit, and never look into a body. See protocol/p11kit-rpc.md, "Frame".
 */
import { DecodeError } from "../../base/bytes.js";
import { wipeable } from "../../base/secret.js";
import type { P11KitLimits } from "./limits.js";

/** One frame. `options` and `body` are views of the chunk it came in, or of memory of its own. */
export interface Frame {
  /** Chosen by the client, echoed by the server. */
  readonly code: number;
  readonly options: Buffer;
  readonly body: Buffer;
  /** Size on the wire, header included. */
  readonly size: number;
  /** Overwrites the frame with zeros, and for a frame of up to 4 KiB also the bytes of the chunks it came in. */
  wipe(): void;
}

export interface FrameDecoderOptions extends Pick<P11KitLimits, "maxFrameBytes" | "maxOptionsBytes"> {
  /** Called for each whole frame, in order, from within push. */
  readonly onFrame: (frame: Frame) => void;
}

export interface FrameDecoder {
  /**
   * Takes the next bytes of the stream. The chunk becomes the decoder's: frames are views of it and `wipe` overwrites it.
   * Throws DecodeError `limit` at the first header over a limit, after the frames before it were delivered; nothing may
   * be pushed after that.
   */
  push(chunk: Buffer): void;
  /** Overwrites what has come of a frame that is not whole, as `wipe` does: it may hold a part of a PIN. Nothing may be pushed after that. */
  end(): void;
}

const HEADER_BYTES = 12;
/** Above this a frame's chunks are not remembered for wiping, so that many tiny chunks cannot cost much memory. */
const MAX_WIPED_SOURCE_BYTES = 4096;

/** A decoder at the start of a stream of frames (after the version byte). */
export function createFrameDecoder(options: FrameDecoderOptions): FrameDecoder {
  return new Decoder(options);
}

/** A frame as one Buffer, ready to be written at once. */
export function encodeFrame(code: number, options: Buffer, body: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + options.length + body.length);
  frame.writeUInt32BE(code >>> 0, 0);
  frame.writeUInt32BE(options.length, 4);
  frame.writeUInt32BE(body.length, 8);
  options.copy(frame, HEADER_BYTES);
  body.copy(frame, HEADER_BYTES + options.length);
  return frame;
}

class WholeFrame implements Frame {
  readonly code: number;
  readonly options: Buffer;
  readonly body: Buffer;
  readonly size: number;
  readonly #sources: readonly Buffer[];

  constructor(code: number, content: Buffer, optionsLength: number, sources: readonly Buffer[]) {
    this.code = code;
    this.options = content.subarray(0, optionsLength);
    this.body = content.subarray(optionsLength);
    this.size = HEADER_BYTES + content.length;
    this.#sources = sources;
  }

  wipe(): void {
    this.options.fill(0);
    this.body.fill(0);
    for (const source of this.#sources) source.fill(0);
  }
}

const NO_SOURCES: readonly Buffer[] = [];

class Decoder implements FrameDecoder {
  readonly #options: FrameDecoderOptions;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerFilled = 0;
  /** Options and body of the frame being read; null while its header is incomplete. */
  #content: Buffer | null = null;
  #contentFilled = 0;
  #sources: Buffer[] = [];

  constructor(options: FrameDecoderOptions) {
    this.#options = options;
  }

  push(chunk: Buffer): void {
    let rest = this.#headerFilled === 0 ? this.#takeWhole(chunk) : chunk;
    while (rest.length > 0) {
      if (this.#content === null) {
        const taken = rest.copy(this.#header, this.#headerFilled, 0, HEADER_BYTES - this.#headerFilled);
        this.#headerFilled += taken;
        rest = rest.subarray(taken);
        if (this.#headerFilled < HEADER_BYTES) return;
        this.#content = this.#allocate();
      }
      const content = this.#content;
      const taken = rest.copy(content, this.#contentFilled);
      if (taken > 0 && content.length <= MAX_WIPED_SOURCE_BYTES) this.#sources.push(rest.subarray(0, taken));
      this.#contentFilled += taken;
      rest = rest.subarray(taken);
      if (this.#contentFilled === content.length) this.#deliver(content);
    }
  }

  /** Delivers the frames that lie within the chunk from its beginning on, and answers what is left of it. */
  #takeWhole(chunk: Buffer): Buffer {
    let at = 0;
    while (chunk.length - at >= HEADER_BYTES) {
      const content = at + HEADER_BYTES;
      const optionsLength = chunk.readUInt32BE(at + 4);
      const length = this.#checkedLength(optionsLength, chunk.readUInt32BE(at + 8));
      if (length > chunk.length - content) break;
      const code = chunk.readUInt32BE(at);
      at = content + length;
      this.#options.onFrame(new WholeFrame(code, chunk.subarray(content, at), optionsLength, NO_SOURCES));
    }
    return at === 0 ? chunk : chunk.subarray(at);
  }

  end(): void {
    this.#content?.fill(0);
    for (const source of this.#sources) source.fill(0);
  }

  #allocate(): Buffer {
    // Not from the shared pool: what is wiped must not have neighbours, and what is kept must not keep them alive.
    return wipeable(this.#checkedLength(this.#header.readUInt32BE(4), this.#header.readUInt32BE(8)));
  }

  #checkedLength(optionsLength: number, bodyLength: number): number {
    const { maxFrameBytes, maxOptionsBytes } = this.#options;
    if (optionsLength > maxOptionsBytes) throw new DecodeError("limit", `options of ${optionsLength} bytes`, 4);
    const size = HEADER_BYTES + optionsLength + bodyLength;
    if (size > maxFrameBytes) throw new DecodeError("limit", `frame of ${size} bytes`, 8);
    return optionsLength + bodyLength;
  }

  #deliver(content: Buffer): void {
    const sources = this.#sources;
    const frame = new WholeFrame(this.#header.readUInt32BE(0), content, this.#header.readUInt32BE(4), sources);
    this.#headerFilled = 0;
    this.#content = null;
    this.#contentFilled = 0;
    this.#sources = [];
    this.#options.onFrame(frame);
  }
}
