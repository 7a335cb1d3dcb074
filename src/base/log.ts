/*
 * The diagnostic log behind TOKENFWD_LOG: one JSON object a line, in a file of mode 0600. It must never hold a PIN, a
 * passphrase or the bytes of anything (a Buffer is logged as its length), never a control character from outside, and never
 * end the program because a line could not be written.
 */
import { closeSync, constants, fchmodSync, fstatSync, openSync, writeSync } from "node:fs";
import { TokenfwdError } from "./errors.js";
import { printable } from "./printable.js";

/** Where parts of the program say what they do. `text` is a fixed sentence; what varies goes into `fields`. */
export interface Log {
  debug(text: string, fields?: object): void;
  info(text: string, fields?: object): void;
  warn(text: string, fields?: object): void;
  error(text: string, fields?: object): void;
}

/** Says nothing. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

const SECRET = /pin$|passphrase|password|secret/i;
const MAX_DEPTH = 5;
const MAX_ENTRIES = 100;
const MAX_TEXT = 2000;

function safe(value: unknown, depth: number): unknown {
  if (typeof value === "string") return printable(value, MAX_TEXT);
  if (typeof value === "bigint") return value.toString();
  if (value === null || typeof value === "number" || typeof value === "boolean") return value;
  if (value instanceof Uint8Array) return `<${value.length} bytes>`;
  if (typeof value !== "object") return value === undefined ? undefined : `<${typeof value}>`;
  if (depth >= MAX_DEPTH) return "<deeper>";
  if (value instanceof Error) {
    const code = "code" in value && typeof value.code === "string" ? { code: printable(value.code) } : {};
    const cause = value.cause === undefined ? {} : { cause: safe(value.cause, depth + 1) };
    return { name: value.name, message: printable(value.message, MAX_TEXT), ...code, ...cause };
  }
  if (Array.isArray(value)) return value.slice(0, MAX_ENTRIES).map((item) => safe(item, depth + 1));
  const out: Record<string, unknown> = {};
  for (const [name, item] of Object.entries(value).slice(0, MAX_ENTRIES)) {
    out[printable(name, 100)] =
      SECRET.test(name) && typeof item !== "boolean" && typeof item !== "number" ? "<removed>" : safe(item, depth + 1);
  }
  return out;
}

/**
 * A log that appends to `path`: `{ ts, pid, level, text, ...fields }`, ts RFC 3339 UTC with milliseconds. A file that is
 * missing is made with 0600; ours with a wider mode is narrowed. Throws E_USAGE when it is a symbolic link, not a regular
 * file, somebody else's, or cannot be opened. Fields whose name ends in `pin` or speaks of a password are removed.
 * The descriptor stays open until the process ends.
 */
export function createFileLog(path: string): Log {
  const shown = printable(path);
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO in place of the file must not stop the program before it can be refused.
    const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    fd = openSync(path, flags, 0o600);
  } catch (cause) {
    const why = cause instanceof Error && "code" in cause ? printable(String(cause.code)) : "unknown reason";
    throw new TokenfwdError("E_USAGE", `cannot open the log ${shown}: ${why}`, {
      cause,
      hint: "TOKENFWD_LOG must name a regular file in a directory you may write to",
    });
  }
  const stat = fstatSync(fd);
  const uid = process.getuid?.();
  if (!stat.isFile() || (uid !== undefined && stat.uid !== uid)) {
    closeSync(fd);
    throw new TokenfwdError("E_USAGE", `the log ${shown} is not a regular file of yours`, { hint: "name another file in TOKENFWD_LOG" });
  }
  if ((stat.mode & 0o077) !== 0) fchmodSync(fd, 0o600);

  let dropped = 0;
  const write = (level: string, text: string, fields: object | undefined): void => {
    // What is ours comes last, so that no field can replace it.
    const line: Record<string, unknown> = {
      ts: "",
      pid: 0,
      level: "",
      text: "",
      ...(fields === undefined ? {} : (safe(fields, 0) as object)),
    };
    line["ts"] = new Date().toISOString();
    line["pid"] = process.pid;
    line["level"] = level;
    line["text"] = printable(text, MAX_TEXT);
    if (dropped > 0) line["dropped"] = dropped;
    try {
      writeSync(fd, `${JSON.stringify(line)}\n`);
      dropped = 0;
    } catch {
      // A full disk must not stop a signature; the next line that fits says how many were lost.
      dropped++;
    }
  };
  return {
    debug: (text, fields) => write("debug", text, fields),
    info: (text, fields) => write("info", text, fields),
    warn: (text, fields) => write("warn", text, fields),
    error: (text, fields) => write("error", text, fields),
  };
}
