/*
 * `tokenfwd trace show`: a trace as text, as JSON lines, or as one page for a browser, all of it or what is asked for. The file may be
 * anybody's: what is shown of it has gone through base/printable, and the page lets nothing of it run.
 */
import { writeSync } from "node:fs";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { createTraceFile, openTrace, type TraceReader, writeWhole } from "../../trace/format.js";
import { createPage } from "../../trace/page/page.js";
import { createSummary } from "../../trace/summary.js";
import { headerLine, recordLine, summaryLines } from "../../trace/text.js";
import type { TraceRecord } from "../../wire/trace/records.js";
import { usage } from "../options.js";
import { createUi } from "../ui.js";
import { createFilter, type RawFilterOptions } from "./filter.js";

/** The options of trace show as commander hands them over. */
export interface RawTraceShowOptions extends RawFilterOptions {
  readonly format?: string;
  readonly html?: string;
  readonly summary?: boolean;
}

/** Answers 0. Throws E_USAGE for the options and for a file that is no trace, E_OUTPUT where stdout cannot be written. */
export function runTraceShow(path: string, raw: RawTraceShowOptions): number {
  const { format = "text", html } = raw;
  if (format !== "text" && format !== "jsonl") throw usage("--format takes text or jsonl", "a page for a browser is --html FILE");
  if (html === "") throw usage("--html names no file", "name a file that is not there yet");
  const filter = createFilter(raw);
  const reader = openTrace(path);
  try {
    if (html !== undefined) writePage(html, reader, filter);
    else if (format === "jsonl") writeLines(jsonLines(reader, filter));
    else writeLines(textLines(reader, filter, raw.summary === true));
    if (!reader.complete) createUi(process.stderr).warning(`${printable(path)} has no end: it was cut off, or is still being written`);
    return 0;
  } finally {
    reader.close();
  }
}

function* jsonLines(reader: TraceReader, filter: (record: TraceRecord) => boolean): Generator<string> {
  yield jsonLine(reader.header);
  for (const record of reader.records()) if (filter(record)) yield jsonLine(record);
}

/** JSON in ASCII alone: nothing is lost, and nothing in it can move a terminal. */
function jsonLine(value: unknown): string {
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function* textLines(reader: TraceReader, filter: (record: TraceRecord) => boolean, summaryOnly: boolean): Generator<string> {
  const summary = createSummary();
  yield headerLine(reader.header);
  for (const record of reader.records()) {
    if (!filter(record)) continue;
    summary.add(record);
    if (!summaryOnly) yield recordLine(record);
  }
  yield "";
  yield* summaryLines(summary.result());
}

function writePage(path: string, reader: TraceReader, filter: (record: TraceRecord) => boolean): void {
  const kept: TraceRecord[] = [];
  const summary = createSummary();
  for (const record of reader.records()) {
    if (!filter(record)) continue;
    summary.add(record);
    kept.push(record);
  }
  const page = createPage({ header: reader.header, records: kept, summary: summary.result(), complete: reader.complete });
  const fd = createTraceFile(path);
  writeWhole(fd, page);
  createUi(process.stderr).line(`wrote ${printable(path)}: open it in a browser, it needs no network`);
}

const BLOCK_CHARACTERS = 64 * 1024;

/** Writes at once and waits where the reader is slow: nothing else runs in this process. A reader that has gone is enough. */
function writeLines(lines: Iterable<string>): void {
  let block = "";
  try {
    for (const line of lines) {
      block += `${line}\n`;
      if (block.length < BLOCK_CHARACTERS) continue;
      writeStdout(block);
      block = "";
    }
    writeStdout(block);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EPIPE") return;
    if (error instanceof TokenfwdError) throw error;
    throw new TokenfwdError(
      "E_OUTPUT",
      `the trace could not be written to stdout (${(error as NodeJS.ErrnoException).code ?? "unknown"})`,
      {
        hint: "see where stdout leads to, and run it again",
        cause: error,
      },
    );
  }
}

function writeStdout(text: string): void {
  const bytes = Buffer.from(text, "utf8");
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      // A terminal or pipe that others have set not to block.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}
