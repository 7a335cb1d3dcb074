/*
 * msgpack as tokenfwd RPC uses it: one map with text keys in one frame. The one file that names msgpackr. It must never
 * be given bytes that scan.ts has not passed: msgpackr itself has no depth limit, takes extensions and lets a repeated key win.
 * The pure-JavaScript entry is used: nothing native may be needed on a bastion. See protocol/tokenfwd-rpc.md, "Values".
 */
import { Packr, RESERVE_START_SPACE } from "msgpackr/pack";

/** Bytes of the length in front of each body. */
export const HEADER_BYTES = 4;

const SHAPE = { useRecords: false, mapsAsObjects: true, variableMapSize: true, int64AsType: "auto" } as const;
const viewing = new Packr(SHAPE);
const copying = new Packr({ ...SHAPE, copyBuffers: true });

/** A decoded body: what scan.ts lets through is always a map. Numbers up to 2^53 are numbers, above that bigints. */
export type Fields = Readonly<Record<string, unknown>>;

/**
 * A message as a whole frame, length included. Members that are undefined must not be there; numbers must have gone
 * through `integer`. The frame shares memory with other frames of the near past: whoever wipes it may wipe it whole, and
 * whoever keeps it keeps up to 8 KiB.
 */
export function encodeFrame(message: Fields): Buffer {
  const frame = viewing.pack(message, RESERVE_START_SPACE | HEADER_BYTES);
  frame.writeUInt32BE(frame.length - HEADER_BYTES, 0);
  return frame;
}

/**
 * The same with more members behind those of `head`, which it is given. They are filled in one by one: an object that is spread into
 * another has V8 look for its shape anew each time, a fifth of a client's time for a signature.
 */
export function encodeMessage(head: Record<string, unknown>, more: Fields): Buffer {
  for (const name in more) head[name] = more[name];
  return encodeFrame(head);
}

/** Decodes a body that scan.ts has passed. Byte strings are views of `body`, so whoever keeps one copies it. */
export function decodeBody(body: Buffer): Fields {
  return viewing.unpack(body) as Fields;
}

/** The same with byte strings that are copies, for what is kept. */
export function decodeBodyCopied(body: Buffer): Fields {
  return copying.unpack(body) as Fields;
}

/** A number as it must be given to the encoder, which would write one above 32 bits as a float. */
export function integer(value: bigint | number): bigint | number {
  if (typeof value === "number") return value <= 0xffffffff ? value : BigInt(value);
  return value <= 0xffffffffn ? Number(value) : value;
}
