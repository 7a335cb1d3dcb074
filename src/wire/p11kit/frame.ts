/*
 * The frames of the p11-kit RPC: a 12-byte header (call code, options length, body length), options, body.
 * Takes chunks of any size and gives whole frames; copies each byte once. It must never allocate for a frame that is
 * over a limit, and never look into a body. See protocol/p11kit-rpc.md, "Frame".
 */
import { DecodeError } from "../../base/bytes.js";
import { wipeable } from "../../base/secret.js";
import type { P11KitLimits } from "./limits.js";

/** One frame. `options` and `body` are views of memory that the frame owns. */
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
   * Takes the next bytes of the stream. The chunk becomes the decoder's: `wipe` may overwrite it later.
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
    let rest = chunk;
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

  end(): void {
    this.#content?.fill(0);
    for (const source of this.#sources) source.fill(0);
  }

  #allocate(): Buffer {
    const { maxFrameBytes, maxOptionsBytes } = this.#options;
    const optionsLength = this.#header.readUInt32BE(4);
    const bodyLength = this.#header.readUInt32BE(8);
    if (optionsLength > maxOptionsBytes) throw new DecodeError("limit", `options of ${optionsLength} bytes`, 4);
    const size = HEADER_BYTES + optionsLength + bodyLength;
    if (size > maxFrameBytes) throw new DecodeError("limit", `frame of ${size} bytes`, 8);
    // Not from the shared pool: what is wiped must not have neighbours, and what is kept must not keep them alive.
    return wipeable(optionsLength + bodyLength);
  }

  #deliver(content: Buffer): void {
    const sources = this.#sources;
    const optionsLength = this.#header.readUInt32BE(4);
    const frame: Frame = {
      code: this.#header.readUInt32BE(0),
      options: content.subarray(0, optionsLength),
      body: content.subarray(optionsLength),
      size: HEADER_BYTES + content.length,
      wipe() {
        content.fill(0);
        for (const source of sources) source.fill(0);
      },
    };
    this.#headerFilled = 0;
    this.#content = null;
    this.#contentFilled = 0;
    this.#sources = [];
    this.#options.onFrame(frame);
  }
}
