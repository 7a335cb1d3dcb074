/*
 * Choria's configuration syntax as its own parser reads it (go-choria 0.30, config/util.go), with all it does not do: it strips
 * no quotes and no comment behind a value, and passes over in silence what is not `key = value`. It must never be more lenient,
 * nor stricter, than choria: what is read here decides whom we talk to.
 */

/** `key = value` of one line, as they stand there; `line` counts from 1. */
export interface Setting {
  readonly key: string;
  readonly value: string;
  readonly line: number;
}

/** A line that choria passes over although it is no comment. */
export interface IgnoredLine {
  readonly text: string;
  readonly line: number;
}

export interface ParsedConfig {
  /** In the file's order; of two with one key the later counts. */
  readonly settings: readonly Setting[];
  readonly ignored: readonly IgnoredLine[];
  /** The line that is too long for choria, which reads no further; null when it reads all. */
  readonly cutAt: number | null;
}

/** Go's bufio.Scanner gives up before a line of this many bytes. */
const MAX_LINE_BYTES = 65_536;
// Neither expression is anchored in the original; `\s` is ASCII in Go and `.` takes everything but a line feed.
// What Go calls space; String.trim also takes a byte order mark, which to choria is part of the first key.
const EDGES =
  /^[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+|[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/g;
const SETTING = /([^\n]+?)[\t\n\f\r ]*=[\t\n\f\r ]*([^\n]+)/;

/** Reads a file's text. Never throws: nothing is an error to choria either. */
export function parseConfig(text: string): ParsedConfig {
  const settings: Setting[] = [];
  const ignored: IgnoredLine[] = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const line = index + 1;
    if (Buffer.byteLength(raw) >= MAX_LINE_BYTES) return { settings, ignored, cutAt: line };
    const trimmed = raw.replace(EDGES, "");
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const [, key, value] = SETTING.exec(trimmed) ?? [];
    if (key === undefined || value === undefined) ignored.push({ text: trimmed, line });
    else settings.push({ key, value, line });
  }
  return { settings, ignored, cutAt: null };
}

/** A boolean as choria reads one: what is no word for yes is no. */
export function booleanOf(value: string): boolean {
  return /^(1|yes|true|y|t)$/i.test(value.trim());
}

/** A list with commas. */
export function listOf(value: string): string[] {
  return value.split(",").map((one) => one.trim());
}

/** A whole number, or null where choria would keep what it had. */
export function integerOf(value: string): number | null {
  return /^[+-]?\d+$/.test(value) ? Number(value) : null;
}

/** A path: only a `~` at its beginning is replaced, and no variable. */
export function pathOf(value: string, home: string): string {
  const trimmed = value.trim();
  return trimmed.startsWith("~") ? `${home}${trimmed.slice(1)}` : trimmed;
}
