/*
 * The thread that decodes: takes batches of bytes, writes records, and hands the memory back wiped. It shares nothing with the thread
 * that serves the streams but what is handed over, so that nothing that happens here, not even running out of memory, touches them.
 */
import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { createTraceDecoder } from "../wire/trace/decoder.js";
import type { TraceRecord } from "../wire/trace/records.js";
import { drainBatch } from "./batch.js";
import { writeWhole } from "./format.js";
import { createSummary, type TraceSummary } from "./summary.js";
import { recordLine } from "./text.js";

/** What the thread is started with. */
export interface WorkerSettings {
  /** The file's descriptor; null: lines of text are handed back instead. */
  readonly fd: number | null;
  readonly data: boolean;
}

/** To the thread. */
export type ToWorker =
  | { readonly kind: "batch"; readonly memory: ArrayBuffer; readonly used: number }
  | { readonly kind: "end"; readonly at: number };

/** From the thread. */
export type FromWorker =
  | { readonly kind: "free"; readonly memory: ArrayBuffer }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "failed"; readonly code: string }
  | { readonly kind: "ended"; readonly summary: TraceSummary };

/** Behind everything that serves, where both want the processor. */
const NICENESS = 10;

/** Lets the threads that serve go first. Only Linux has a priority for each thread; elsewhere all are equal. */
function stepBack(): void {
  try {
    const [, thread] = /\/task\/(\d+)$/.exec(readlinkSync("/proc/thread-self")) ?? [];
    if (thread !== undefined) setPriority(Number(thread), NICENESS);
  } catch {
    // It is a courtesy.
  }
}

function work(settings: WorkerSettings, port: NonNullable<typeof parentPort>): void {
  const { fd, data } = settings;
  const summary = createSummary();
  let pending = "";
  let failed = false;
  const tell = (message: FromWorker, transfer: readonly ArrayBuffer[] = []): void => port.postMessage(message, [...transfer]);

  const decoder = createTraceDecoder({
    data,
    onRecord(record: TraceRecord) {
      summary.add(record);
      pending += `${fd === null ? recordLine(record) : JSON.stringify(record)}\n`;
    },
  });

  function write(): void {
    const text = pending;
    pending = "";
    if (text === "" || failed) return;
    if (fd === null) {
      tell({ kind: "text", text });
      return;
    }
    try {
      writeWhole(fd, text);
    } catch (error) {
      // A full disk ends the trace and not what is traced.
      failed = true;
      tell({ kind: "failed", code: (error as NodeJS.ErrnoException).code ?? "unknown reason" });
    }
  }

  port.on("message", (message: ToWorker) => {
    if (message.kind === "batch") {
      drainBatch(message.memory, message.used, decoder);
      write();
      tell({ kind: "free", memory: message.memory }, [message.memory]);
      return;
    }
    decoder.end(message.at);
    const result = summary.result();
    if (fd !== null) pending += `${JSON.stringify({ kind: "end", t: message.at, records: result.records })}\n`;
    write();
    tell({ kind: "ended", summary: result });
    port.close();
  });
}

if (parentPort !== null) {
  stepBack();
  work(workerData as WorkerSettings, parentPort);
}
