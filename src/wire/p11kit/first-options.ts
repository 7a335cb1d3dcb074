/*
 * Reads the options of a client's first frame out of bytes that go elsewhere: what a forward of bare streams has in place of
 * a server of its own. It must never keep a byte of a frame's body, where a PIN could be.
 */

const VERSION_AND_HEADER_BYTES = 13;
/** Longer ones are not for us: a stock client writes 6 bytes. */
const MAX_OPTIONS_BYTES = 256;

export interface FirstOptionsReader {
  /** Looks at the client's next bytes, which stay the caller's. False once there is nothing left to look for. */
  push(chunk: Buffer): boolean;
}

/** Calls `found` once, from within push, with a copy of the options of the frame after the version byte, unless they are long. */
export function createFirstOptionsReader(found: (options: Buffer) => void): FirstOptionsReader {
  const kept = Buffer.alloc(VERSION_AND_HEADER_BYTES + MAX_OPTIONS_BYTES);
  let filled = 0;
  let wanted = VERSION_AND_HEADER_BYTES;
  let isDone = false;
  return {
    push(chunk) {
      let rest = chunk;
      while (!isDone) {
        const taken = rest.copy(kept, filled, 0, wanted - filled);
        filled += taken;
        rest = rest.subarray(taken);
        if (filled < wanted) return true;
        const length = kept.readUInt32BE(5);
        if (wanted === VERSION_AND_HEADER_BYTES && length > 0 && length <= MAX_OPTIONS_BYTES) {
          wanted += length;
          continue;
        }
        isDone = true;
        if (length <= MAX_OPTIONS_BYTES) found(Buffer.from(kept.subarray(VERSION_AND_HEADER_BYTES, filled)));
      }
      return false;
    },
  };
}
