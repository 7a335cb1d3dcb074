/*
 * Typed reading of a decoded map, field by field. Whatever is not as the protocol has it throws RpcError `protocol` that
 * names the field and never its value. A field that is absent is read as nil. See protocol/tokenfwd-rpc.md, "Values".
 */
import type { Fields } from "./codec.js";
import { RpcError } from "./messages.js";

const U32 = 0xffffffff;

/** The error for a field that is not what it should be; `where` is the message and field, as `sign.key`. */
export function unfit(where: string, wanted: string): RpcError {
  return new RpcError("protocol", `${where} is not ${wanted}`);
}

export function asMap(value: unknown, where: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value) || Buffer.isBuffer(value)) throw unfit(where, "a map");
  return value as Fields;
}

export function asArray(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw unfit(where, "an array");
  return value;
}

export function asText(value: unknown, where: string): string {
  if (typeof value !== "string") throw unfit(where, "a text");
  return value;
}

export function asBytes(value: unknown, where: string): Buffer {
  if (!Buffer.isBuffer(value)) throw unfit(where, "a byte string");
  return value;
}

export function asBool(value: unknown, where: string): boolean {
  if (typeof value !== "boolean") throw unfit(where, "a truth value");
  return value;
}

/** A number of at most `most`, which is at most 2^53 - 1. */
export function asNumber(value: unknown, where: string, most = U32): number {
  if (typeof value !== "number" || value > most) throw unfit(where, `a number up to ${most}`);
  return value;
}

/** Any number of the protocol: up to 64 bits. */
export function asU64(value: unknown, where: string): bigint {
  if (typeof value === "number") return BigInt(value);
  if (typeof value !== "bigint") throw unfit(where, "a number");
  return value;
}

/** nil or absent gives null, anything else goes through `read`. */
export function orNull<T>(value: unknown, where: string, read: (value: unknown, where: string) => T): T | null {
  return value === undefined || value === null ? null : read(value, where);
}

/** Absent gives the default; nil does not. */
export function orDefault<T>(value: unknown, where: string, fallback: T, read: (value: unknown, where: string) => T): T {
  return value === undefined ? fallback : read(value, where);
}

/** One of a few words. */
export function asWord<T extends string>(value: unknown, where: string, words: readonly T[]): T {
  const word = words.find((one) => one === value);
  if (word === undefined) throw unfit(where, `one of ${words.join(", ")}`);
  return word;
}
