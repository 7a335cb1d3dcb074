/*
 * Which records of a trace are shown. Every filter that is given must let a record through; one that speaks of calls lets nothing
 * else through.
 */
import type { TraceRecord } from "../../wire/trace/records.js";
import { parseNumber, usage } from "../options.js";

export interface RawFilterOptions {
  readonly connection?: string;
  readonly call?: string;
  readonly failed?: boolean;
  readonly slower?: string;
}

const CALLS = /^[A-Za-z0-9_*-]+(,[A-Za-z0-9_*-]+)*$/;

/** A filter from the command line. Throws E_USAGE. */
export function createFilter(raw: RawFilterOptions): (record: TraceRecord) => boolean {
  const c = raw.connection === undefined ? null : parseNumber(raw.connection.replace(/^c/, ""), "--connection", 1, 999_999_999);
  const named = raw.call === undefined ? null : namesFilter(raw.call);
  const slowerMs = raw.slower === undefined ? null : parseMs(raw.slower);
  const failed = raw.failed === true;
  return (record) => {
    if (c !== null && record.c !== c) return false;
    if (named === null && slowerMs === null && !failed) return true;
    // A protocol that was broken is a failure, whichever call it was in.
    if (record.kind !== "call") return failed && named === null && slowerMs === null && record.kind === "note" && record.level !== "info";
    if (named !== null && !named(record.call)) return false;
    if (slowerMs !== null && (record.ms ?? 0) < slowerMs) return false;
    return !failed || !record.ok;
  };
}

/** Names with commas, a `*` for any characters, the case and the `C_` left out at will. */
function namesFilter(text: string): (call: string) => boolean {
  if (!CALLS.test(text)) throw usage("--call takes names of calls", "for example --call C_Sign,C_SignInit or --call 'C_Sign*'");
  const patterns = text.split(",").map((name) => new RegExp(`^(c_)?${name.toLowerCase().replace(/^c_/, "").replaceAll("*", ".*")}$`));
  return (call) => patterns.some((pattern) => pattern.test(call.toLowerCase()));
}

function parseMs(text: string): number {
  if (/^[0-9]{1,9}(\.[0-9]{1,3})?$/.test(text)) return Number(text);
  throw usage("--slower takes milliseconds", "for example --slower 50");
}
