/*
 * A trace as a person reads it in a terminal: a line for each record, and the summary as a table. Everything in a record may be a
 * stranger's word, so every line goes through base/printable here, whoever made the record.
 */
import { printable } from "../base/printable.js";
import type { CallRecord, Shown, ShownFields, TraceRecord } from "../wire/trace/records.js";
import type { TraceHeader } from "./format.js";
import type { TraceSummary } from "./summary.js";

const MAX_LINE = 4000;
const MAX_VALUE = 200;

/** What was traced, in a line. */
export function headerLine({ started, by, of, data }: TraceHeader): string {
  return line(`trace of ${showFields(of)}, begun ${started} by ${by}${data ? ", with data" : ""}`);
}

/** One record as one line. */
export function recordLine(record: TraceRecord): string {
  return line(`${time(record.t)} c${record.c} ${recordText(record)}`);
}

function recordText(record: TraceRecord): string {
  switch (record.kind) {
    case "open":
      return `open       ${showFields(record.origin)}`;
    case "protocol": {
      const { protocol, version, offered, dialect } = record;
      if (protocol === "unknown") return "protocol   unknown";
      const agreed = version === null || version === undefined ? "no answer" : `version ${version}`;
      const offer = offered === undefined ? "" : `, offered ${typeof offered === "number" ? offered : offered.join(", ")}`;
      return `protocol   ${protocol} ${agreed}${offer}${dialect === undefined ? "" : `, ${dialect} mechanisms`}`;
    }
    case "client":
      return `client     calls itself "${record.name}"`;
    case "call":
      return callText(record);
    case "event":
      return `event      ${record.event} ${showFields(record.fields)}`;
    case "cancel":
      return `cancel     ${record.n === null ? "of a request that is over" : `of #${record.n}`}`;
    case "note":
      return `${(record.level === "info" ? "note" : record.level).padEnd(10)} ${record.from === null ? "" : `${record.from}: `}${record.text}`;
    case "close": {
      const { by, calls, trips, ms, serverMs, sent, received } = record;
      const who = by === null ? "the trace ended" : `by the ${by}`;
      return `close      ${who} after ${short(ms)}: ${plural(calls, "call")}, ${plural(trips, "round trip")}, server ${short(serverMs)}, ${sent} bytes sent, ${received} received`;
    }
    default:
      return "record     of a kind that is not known";
  }
}

function callText({ n, call, args, rv, outs, ms, ok, error, note, sent, received }: CallRecord): string {
  const result = error !== undefined ? `error ${showFields(error)}` : (rv ?? (ok ? "ok" : "no answer"));
  const given = Object.keys(outs).length === 0 ? "" : ` -> ${showFields(outs)}`;
  const took = ms === null ? "" : ` ${short(ms)}`;
  const size = `${sent ?? "?"}>${received ?? "?"}`;
  return `#${n} ${call}(${showFields(args)}) ${ok ? "" : "! "}${result}${given}${took} ${size}${note === undefined ? "" : ` [${note}]`}`;
}

/** Fields as `name=value`, the values as they would be in a call. */
function showFields(fields: ShownFields): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${showValue(value)}`)
    .join(", ");
}

/** A value in little room: byte strings by length, attributes by type. */
export function showValue(value: Shown): string {
  if (value === null) return "NULL";
  if (Array.isArray(value)) return cut(`[${(value as readonly Shown[]).map(showValue).join(", ")}]`);
  if (typeof value !== "object") return cut(String(value));
  const fields = value as ShownFields;
  const { type } = fields;
  if (fields["pin"] === true) return "(PIN not shown)";
  if (typeof fields["hex"] === "string") return cut(`${fields["hex"]} (${String(fields["bytes"])} bytes)`);
  if (Object.keys(fields).join() === "bytes" && typeof fields["bytes"] === "number") return `${fields["bytes"]} bytes`;
  if (Object.keys(fields).join() === "length") return `length ${String(fields["length"])}`;
  if (typeof type === "string" && "value" in fields) return `${type}=${showValue(fields["value"] ?? null)}`;
  if (typeof type === "string" && "room" in fields) return `${type}/${fields["room"] ?? "length"}`;
  if (typeof type === "string" && "length" in fields) return `${type}:length ${String(fields["length"])}`;
  if (typeof type === "string" && fields["unavailable"] === true) return `${type}:unavailable`;
  if (typeof type === "string" && Object.keys(fields).length === 1) return type;
  return cut(`{${showFields(fields)}}`);
}

/** The summary as lines. */
export function summaryLines(summary: TraceSummary): string[] {
  const { connections, calls, failed, unanswered, trips, connectionMs, serverMs, clientMs, broken, lost } = summary;
  const share = (ms: number): string => (connectionMs === 0 ? "" : ` (${Math.round((100 * ms) / connectionMs)} %)`);
  const lines = [
    `${plural(connections, "connection")}, ${plural(calls, "call")} (${failed} failed, ${unanswered} without an answer), ${plural(trips, "round trip")}`,
    `time: ${short(connectionMs)} connected, of which the server and what lies behind it ${short(serverMs)}${share(serverMs)}, the client and its way here ${short(clientMs)}${share(clientMs)}`,
  ];
  if (broken > 0) lines.push(`the protocol was broken ${plural(broken, "time")}`);
  if (lost > 0) lines.push(`the trace lost what passed ${plural(lost, "time")}`);
  if (summary.byCall.length > 0) {
    const rows = summary.byCall.map((one) => [
      one.call,
      String(one.count),
      String(one.failed),
      short(one.totalMs),
      short(one.medianMs),
      short(one.p95Ms),
      short(one.maxMs),
    ]);
    lines.push("", ...columns([["call", "count", "failed", "total", "median", "p95", "max"], ...rows]));
  }
  return lines.map(line);
}

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join("  "),
  );
}

/** A number of things in words. */
export const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

/** Milliseconds in a form that can be compared at a glance. */
export function short(ms: number): string {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

function time(t: number): string {
  return t.toFixed(3).padStart(12);
}

function cut(text: string): string {
  return text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE)}...` : text;
}

function line(text: string): string {
  return printable(text, MAX_LINE);
}
