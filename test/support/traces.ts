/*
 * Traces in memory for tests: bytes of both directions into a decoder, the records out of it, and the conversations that the vectors
 * hold. It starts nothing.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createTraceDecoder } from "../../src/wire/trace/decoder.js";
import type { CallRecord, Direction, TraceRecord } from "../../src/wire/trace/records.js";

const VECTORS = join(import.meta.dirname, "../../protocol/vectors");

/** Bytes that went one way. */
export interface Passed {
  readonly from: Direction;
  readonly bytes: Buffer;
}

/** A recorded conversation of stock p11-kit peers. */
export interface Conversation {
  readonly name: string;
  readonly client: string;
  readonly dialect: "legacy" | "new";
  readonly passed: readonly Passed[];
}

/** All of the p11-kit vectors, in the order of their names. */
export function stockConversations(): readonly Conversation[] {
  return readdirSync(join(VECTORS, "p11kit"))
    .filter((file) => /^\d\d-.*\.json$/.test(file))
    .map((file) => {
      const { name, client, dialect, frames } = JSON.parse(readFileSync(join(VECTORS, "p11kit", file), "utf8")) as {
        name: string;
        client: string;
        dialect: "legacy" | "new";
        frames: readonly { readonly dir: "request" | "response"; readonly hex: string }[];
      };
      const passed = frames.map(
        ({ dir, hex }): Passed => ({ from: dir === "request" ? "client" : "server", bytes: Buffer.from(hex, "hex") }),
      );
      return { name, client, dialect, passed };
    });
}

/** A vector file of tokenfwd RPC. */
export function rpcVectors<T>(file: string): readonly T[] {
  return JSON.parse(readFileSync(join(VECTORS, "rpc", file), "utf8")) as readonly T[];
}

/** How a test cuts what passed. */
export type Cut = (bytes: Buffer) => readonly Buffer[];

export const whole: Cut = (bytes) => [bytes];
export const byteByByte: Cut = (bytes) => [...bytes].map((byte) => Buffer.from([byte]));

/** The records of one connection. Times count in milliseconds from 1, one for each that passed. */
export function traceOf(passed: readonly Passed[], options: { readonly data?: boolean; readonly cut?: Cut } = {}): TraceRecord[] {
  const records: TraceRecord[] = [];
  const decoder = createTraceDecoder({ data: options.data ?? false, onRecord: (record) => records.push(record) });
  const cut = options.cut ?? whole;
  decoder.open(1, { kind: "test" }, 0);
  let at = 0;
  for (const { from, bytes } of passed) {
    at += 1;
    for (const piece of cut(bytes)) decoder.bytes(1, from, piece, at);
  }
  decoder.close(1, "client", at + 1);
  return records;
}

/** The calls among records. */
export function callsOf(records: readonly TraceRecord[]): CallRecord[] {
  return records.filter((record) => record.kind === "call");
}

/** The notes among records. */
export function notesOf(records: readonly TraceRecord[]): string[] {
  return records.flatMap((record) => (record.kind === "note" ? [`${record.level}: ${record.text}`] : []));
}
