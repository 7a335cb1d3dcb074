/*
 * The trace file: JSON lines, the first of which says what the file is, the last that it is whole. Made exclusively and with mode 0600,
 * for who signs what from where is nobody else's business. What is read back may be anybody's and is checked. See docs/trace-format.md.
 */
import { closeSync, constants, fstatSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { StringDecoder } from "node:string_decoder";
import { TokenfwdError } from "../base/errors.js";
import { lstatOrNull } from "../base/paths.js";
import { printable } from "../base/printable.js";
import type { ShownFields, TraceRecord } from "../wire/trace/records.js";

/** The version of the format that this program writes and reads. */
export const FORMAT_VERSION = 1;

/** The first line. */
export interface TraceHeader {
  readonly tokenfwdTrace: typeof FORMAT_VERSION;
  /** RFC 3339, UTC: when the trace began, from which all times count. */
  readonly started: string;
  /** The program that wrote it. */
  readonly by: string;
  /** What was traced. */
  readonly of: ShownFields;
  /** Whether byte strings are there, and not their lengths alone. */
  readonly data: boolean;
}

/** The last line of a trace that was ended in order. */
export interface TraceEnd {
  readonly kind: "end";
  readonly t: number;
  readonly records: number;
}

/** Makes the file. Throws E_USAGE where there is one already or it cannot be made. */
export function createTraceFile(path: string): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  try {
    return openSync(path, flags, 0o600);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "unknown reason";
    throw new TokenfwdError(
      "E_USAGE",
      code === "EEXIST" ? `${printable(path)} exists already` : `cannot make ${printable(path)}: ${code}`,
      {
        hint: code === "EEXIST" ? "a file that is there is never written over: name another one" : "name a file in a directory of your own",
        cause,
      },
    );
  }
}

/** Takes the file away again, unless another has come into its place. */
export function removeTraceFile(path: string, fd: number): void {
  const [there, ours] = [lstatOrNull(path), fstatSync(fd)];
  if (there !== null && there.dev === ours.dev && there.ino === ours.ino) unlinkSync(path);
}

/** Writes all of the text. Throws what the system throws. */
export function writeWhole(fd: number, text: string): void {
  const bytes = Buffer.from(text, "utf8");
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

/** A trace that is read line by line. */
export interface TraceReader {
  readonly header: TraceHeader;
  /** The records in the order of the file. Throws E_USAGE at a line that is none. */
  records(): Generator<TraceRecord>;
  /** True once all records were read and the last line said so; false for one that was cut off. */
  readonly complete: boolean;
  close(): void;
}

const CHUNK_BYTES = 256 * 1024;
/** With data a line may hold a whole frame twice over in hex. */
const MAX_LINE_CHARACTERS = 32 * 1024 * 1024;

/** Opens a trace. Throws E_USAGE for what is none, or of a version that is not known. */
export function openTrace(path: string): TraceReader {
  const shown = printable(path);
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO in place of the file must not stop us.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new TokenfwdError("E_USAGE", `cannot read ${shown}: ${(cause as NodeJS.ErrnoException).code ?? "unknown reason"}`, {
      hint: "name a file that tokenfwd trace -o or connect --trace has written",
      cause,
    });
  }
  try {
    if (!fstatSync(fd).isFile()) throw notATrace(shown, "it is no regular file");
    const lines = linesOf(fd, shown);
    const header = readHeader(lines.next().value ?? "", shown);
    let complete = false;
    return {
      header,
      *records() {
        for (const line of lines) {
          if (complete) throw notATrace(shown, "something stands after its end");
          const value = parse(line);
          // The last line of a trace whose writer was ended may be half a line.
          if (value === null && isLast(lines)) return;
          if (value === null || typeof value["kind"] !== "string" || typeof value["t"] !== "number")
            throw notATrace(shown, "a line is no record");
          if (value["kind"] === "end") complete = true;
          else yield value as unknown as TraceRecord;
        }
      },
      get complete() {
        return complete;
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function isLast(lines: Iterator<string>): boolean {
  return lines.next().done === true;
}

function* linesOf(fd: number, shown: string): Generator<string> {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const text = new StringDecoder("utf8");
  let pending = "";
  for (let read = readSync(fd, chunk); read > 0; read = readSync(fd, chunk)) {
    const parts = (pending + text.write(chunk.subarray(0, read))).split("\n");
    pending = parts.pop() ?? "";
    if (pending.length > MAX_LINE_CHARACTERS) throw notATrace(shown, "a line is too long");
    yield* parts;
  }
  if (pending !== "") yield pending;
}

function parse(line: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function readHeader(line: string, shown: string): TraceHeader {
  const value = parse(line.slice(0, 100_000));
  if (value === null || value["tokenfwdTrace"] === undefined) throw notATrace(shown, "its first line does not say so");
  if (value["tokenfwdTrace"] !== FORMAT_VERSION)
    throw notATrace(shown, `it is of version ${printable(String(value["tokenfwdTrace"]), 20)}`);
  const { started, by, of, data } = value;
  return {
    tokenfwdTrace: FORMAT_VERSION,
    started: printable(String(started), 40),
    by: printable(String(by), 100),
    of: (typeof of === "object" && of !== null ? of : {}) as ShownFields,
    data: data === true,
  };
}

function notATrace(shown: string, why: string): TokenfwdError {
  return new TokenfwdError("E_USAGE", `${shown} is no trace that this version reads: ${why}`, {
    hint: "name a file that tokenfwd trace -o or connect --trace has written",
  });
}
