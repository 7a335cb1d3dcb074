/*
 * The plain values of the p11-kit RPC: numbers, versions, strings, byte arrays, lists of numbers and output rooms.
 * Attributes and mechanisms have files of their own. Nothing here knows calls. See protocol/p11kit-rpc.md, "Values".
 */
import type { Reader, Writer } from "../../base/bytes.js";
import type { Version } from "../../cryptoki/types.js";
import type { Budget } from "./limits.js";

/** The length that stands for a NULL pointer, and the room that stands for a non-NULL buffer of no bytes. */
const ALL_ONES = 0xffffffff;

/** How a NULL byte string is written: 0.25 and later write `valid`, older clients write `absent`. Both are read. */
export type NullForm = "valid" | "absent";

/** A byte array: u32 length and the bytes, or ffffffff for NULL. A view, not a copy. */
export function readByteArray(reader: Reader, what: string): Buffer | null {
  const length = reader.u32(what);
  return length === ALL_ONES ? null : reader.take(length, what);
}

export function writeByteArray(writer: Writer, value: Buffer | null): void {
  writer.u32(value?.length ?? ALL_ONES);
  if (value !== null) writer.bytes(value);
}

/** `ay`: a byte array behind a presence byte, or without it a length alone (a number). */
export function readBytes(reader: Reader, what: string): Buffer | number | null {
  return readPresence(reader, what) ? readByteArray(reader, what) : reader.u32(what);
}

/** Writes an `ay`; a number is a length alone. */
export function writeBytes(writer: Writer, value: Buffer | number | null, nullForm: NullForm = "valid"): void {
  if (typeof value === "number" || (value === null && nullForm === "absent")) {
    writer.u8(0);
    writer.u32(value ?? 0);
    return;
  }
  writer.u8(1);
  writeByteArray(writer, value);
}

/** `au`: numbers behind a presence byte, or a count alone (a number). The count is checked against what is left. */
export function readNumbers(reader: Reader, what: string): bigint[] | number {
  const present = readPresence(reader, what);
  const count = reader.u32(what);
  if (!present) return count;
  if (count > reader.remaining / 8) throw reader.malformed(`${what}: count above the bytes that follow`);
  return Array.from({ length: count }, () => reader.u64(what));
}

export function writeNumbers(writer: Writer, value: readonly bigint[] | number): void {
  if (typeof value === "number") {
    writer.u8(0);
    writer.u32(value);
    return;
  }
  writer.u8(1);
  writer.u32(value.length);
  for (const number of value) writer.u64(number);
}

export function readVersion(reader: Reader, what: string): Version {
  return { major: reader.u8(what), minor: reader.u8(what) };
}

export function writeVersion(writer: Writer, value: Version): void {
  writer.u8(value.major);
  writer.u8(value.minor);
}

/** `s` and `z`: bytes behind a length, never NULL. */
export function readString(reader: Reader, what: string): Buffer {
  const value = readByteArray(reader, what);
  if (value === null) throw reader.malformed(`${what}: no string`);
  return value;
}

/** Writes an `s` of exactly `length` bytes: padded with spaces, or cut. A `z` passes its own length. */
export function writeString(writer: Writer, value: Buffer, length: number): void {
  writer.u32(length);
  writer.bytes(value.subarray(0, length));
  if (value.length < length) writer.bytes(Buffer.alloc(length - value.length, " "));
}

/** `fy`: the caller's output room in bytes, null for a NULL buffer, 0 for a buffer of no bytes. */
export function readByteRoom(reader: Reader, what: string, budget: Budget): number | null {
  const room = reader.u32(what);
  if (room === 0) return null;
  if (room === ALL_ONES) return 0;
  budget.room(room);
  return room;
}

/** Writes an `fy`. `emptyRooms` false (a version 0 server) turns a buffer of no bytes into NULL. */
export function writeByteRoom(writer: Writer, room: number | null, emptyRooms: boolean): void {
  if (room === 0 && emptyRooms) writer.u32(ALL_ONES);
  else writer.u32(room ?? 0);
}

/** `fu`: the caller's output room in numbers; null for none, which is the same as 0 on this wire. */
export function readNumberRoom(reader: Reader, what: string, budget: Budget): number | null {
  const room = reader.u32(what);
  budget.room(room * 8);
  return room === 0 ? null : room;
}

export function writeNumberRoom(writer: Writer, room: number | null): void {
  writer.u32(room ?? 0);
}

function readPresence(reader: Reader, what: string): boolean {
  const byte = reader.u8(what);
  if (byte > 1) throw reader.malformed(`${what}: presence byte ${byte}`);
  return byte === 1;
}
