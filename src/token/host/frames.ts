/*
 * How the agent and its token host talk over their pipe: a length (u32 LE) and a v8-serialised message. Both ends are
 * ours and of one version, so there is no negotiation; nothing from a bastion ever reaches this framing unparsed.
 * Received bytes are wiped once copied: a frame may hold a PIN in `client` mode.
 */
import { deserialize, serialize } from "node:v8";
import { wipeable } from "../../base/secret.js";

/** Larger than any call can be: the wire caps a request at 1 MiB. */
const MAX_FRAME_BYTES = 8 * 1024 * 1024;

/** One message as bytes for one write. The caller may wipe it once it is written. */
export function encodeFrame(message: object): Buffer {
  const body = serialize(message);
  const frame = wipeable(4 + body.length);
  frame.writeUInt32LE(body.length);
  body.copy(frame, 4);
  body.fill(0);
  return frame;
}

export interface FrameDecoder {
  /** Takes a chunk of any size, wipes it, and answers the bodies it completed. Throws RangeError over the limit. */
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
          body = wipeable(length);
          filled = 0;
          headerBytes = 0;
        }
        const taken = chunk.copy(body, filled, offset, offset + body.length - filled);
        filled += taken;
        offset += taken;
        if (filled === body.length) {
          bodies.push(body);
          body = null;
        }
      }
      chunk.fill(0);
      return bodies;
    },
  };
}

/** The message in a body. Buffers in it are views of the body: wiping one wipes the other. */
export function decodeBody<T>(body: Buffer): T {
  return deserialize(body) as T;
}
