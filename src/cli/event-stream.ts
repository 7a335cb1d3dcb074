/*
 * The events of `--json`: one object a line, `{ "v": 1, "ts", "event", ... }` (design 11). Whatever string they carry is made
 * printable here. It must never carry a secret, and never grow an event name that is not in the list.
 */
import type { Writable } from "node:stream";
import { printable } from "../base/printable.js";

/** The pinned names. */
export const EVENT_NAMES = [
  "connecting",
  "hostkey",
  "auth",
  "probe",
  "forward",
  "verify",
  "tools",
  "ready",
  "prompt",
  "touch",
  "use",
  "refused",
  "lost",
  "reconnecting",
  "restored",
  "closing",
  "closed",
  "error",
] as const;
export type EventName = (typeof EVENT_NAMES)[number];

export interface EventStream {
  emit(event: EventName, data: Readonly<Record<string, unknown>>): void;
}

/** No events at all: what there is without `--json`. */
export const noEvents: EventStream = { emit() {} };

/** Writes events to a stream that stays the caller's. bigint becomes a decimal string, a Buffer never appears. */
export function createEventStream(stream: Pick<Writable, "write">, now: () => Date = () => new Date()): EventStream {
  return {
    emit(event, data) {
      stream.write(`${JSON.stringify({ v: 1, ts: now().toISOString(), event, ...(clean(data, 0) as object) })}\n`);
    },
  };
}

const MAX_TEXT = 2000;
const MAX_DEPTH = 6;

function clean(value: unknown, depth: number): unknown {
  if (typeof value === "string") return printable(value, MAX_TEXT);
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array || depth > MAX_DEPTH) return undefined;
  if (Array.isArray(value)) return value.map((item) => clean(item, depth + 1));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, clean(item, depth + 1)]));
}
