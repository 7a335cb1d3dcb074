/*
 * How the agent and its token host talk over their pipe: a length (u32 LE) and a message (pack.ts). Both ends are
 * ours and of one version, so there is no negotiation; nothing from a bastion ever reaches this framing unparsed.
 * Each byte received is in one place only, for a frame may hold a PIN in `client` mode: whoever has done with a body wipes it.
 */
import { wipeable } from "../../base/secret.js";
import { pack, unpack } from "./pack.js";

/** Larger than any call can be: the wire caps a request at 1 MiB. */
const MAX_FRAME_BYTES = 8 * 1024 * 1024;

const HEADER_BYTES = 4;

/** One message as bytes for one write. `secret`: the caller wipes it once it is written. */
export function encodeFrame(message: object, secret = false): Buffer {
  const frame = pack(message, HEADER_BYTES, secret);
  frame.writeUInt32LE(frame.length - HEADER_BYTES);
  return frame;
}

export interface FrameDecoder {
  /** Takes a chunk of any size, which is the decoder's then, and answers the bodies it completed. Throws RangeError over the limit. */
  push(chunk: Buffer): Buffer[];
}

export function createFrameDecoder(): FrameDecoder {
  const header = Buffer.alloc(4);
  let headerBytes = 0;
  let body: Buffer | null = null;
  let filled = 0;

  return {
    push(chunk) {
      const bodies: Buffer[] = [];
      let offset = 0;
      while (offset < chunk.length) {
        if (body === null) {
          const taken = chunk.copy(header, headerBytes, offset, offset + 4 - headerBytes);
          headerBytes += taken;
          offset += taken;
          if (headerBytes < 4) break;
          const length = header.readUInt32LE();
          if (length === 0 || length > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${length} bytes`);
          // All of it is here: no copy.
          if (length <= chunk.length - offset) {
            bodies.push(chunk.subarray(offset, offset + length));
            offset += length;
            headerBytes = 0;
            continue;
          }
          body = wipeable(length);
          filled = 0;
          headerBytes = 0;
        }
        const taken = chunk.copy(body, filled, offset, offset + body.length - filled);
        chunk.fill(0, offset, offset + taken);
        filled += taken;
        offset += taken;
        if (filled === body.length) {
          bodies.push(body);
          body = null;
        }
      }
      return bodies;
    },
  };
}

/** The message in a body; throws RangeError where it is none. Buffers in it are views of the body: wiping one wipes the other. */
export function decodeBody<T>(body: Buffer): T {
  return unpack(body) as T;
}
