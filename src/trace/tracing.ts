/*
 * A trace that is being taken: the recorder in this thread, the decoder in another, and the file between them. It owns the file and
 * the thread. Whatever goes wrong with either is told once, and never to the streams.
 */
import { closeSync, existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { version } from "../base/version.js";
import { within } from "../base/within.js";
import { roundMs } from "../wire/trace/ledger.js";
import type { ShownFields, StreamTap } from "../wire/trace/records.js";
import { createTraceFile, FORMAT_VERSION, removeTraceFile, type TraceHeader, writeWhole } from "./format.js";
import { type BatchSink, createRecorder } from "./recorder.js";
import type { TraceSummary } from "./summary.js";
import type { FromWorker, ToWorker, WorkerSettings } from "./worker.js";

export interface TracingOptions {
  /** The file, made exclusively; null: `onText` gets the lines for a person as they come. */
  readonly path: string | null;
  /** Byte strings too, except PINs. */
  readonly data: boolean;
  /** What is traced, in printable words. */
  readonly of: ShownFields;
  onText?(text: string): void;
  /** Called at most once: nothing is written from now on, and why. */
  onFailure(why: string): void;
  /** The thread's program; for tests. */
  readonly program?: string;
}

export interface Tracing {
  readonly header: TraceHeader;
  /** A stream that begins now. */
  tap(origin: ShownFields): StreamTap;
  /**
   * Writes down what is left and answers the summary, null where the decoder has failed. A file in which nothing was written down
   * is taken away again: whoever tries once more gives the same name. Safe to call twice.
   */
  close(): Promise<TraceSummary | null>;
}

const CLOSE_MS = 4000;
/** Far above what decoding takes: it is there for what we have not thought of. */
const MAX_HEAP_MB = 128;
const SPARE_BATCHES = 4;

/** The program of the thread: compiled beside this file, or in dist/ when this file runs as source (tests). */
function workerPath(): string {
  const beside = fileURLToPath(new URL("./worker.js", import.meta.url));
  return existsSync(beside) ? beside : fileURLToPath(new URL("../../dist/trace/worker.js", import.meta.url));
}

/** Begins a trace. Throws E_USAGE when the file is there already or cannot be made. */
export function startTracing(options: TracingOptions): Tracing {
  const { path, data, of } = options;
  const header: TraceHeader = {
    tokenfwdTrace: FORMAT_VERSION,
    started: new Date().toISOString(),
    by: `tokenfwd ${version()}`,
    of,
    data,
  };
  const begun = performance.now();
  const now = (): number => performance.now() - begun;
  const fd = path === null ? null : createTraceFile(path);
  if (fd !== null) writeWhole(fd, `${JSON.stringify(header)}\n`);

  const workerData: WorkerSettings = { fd, data };
  const worker = new Worker(options.program ?? workerPath(), { workerData, resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB } });
  // The thread is for the streams; alone it must not keep the process.
  worker.unref();
  const spare: ArrayBuffer[] = [];
  let outstanding = 0;
  let alive = true;
  let failureTold = false;
  let settle: (summary: TraceSummary | null) => void = () => {};
  const ended = new Promise<TraceSummary | null>((resolve) => {
    settle = resolve;
  });

  function fail(why: string): void {
    if (failureTold) return;
    failureTold = true;
    options.onFailure(why);
  }

  worker.on("message", (message: FromWorker) => {
    if (message.kind === "free") {
      outstanding -= 1;
      if (spare.length < SPARE_BATCHES) spare.push(message.memory);
    } else if (message.kind === "text") options.onText?.(message.text);
    else if (message.kind === "failed") fail(`it cannot be written: ${message.code}`);
    else settle(message.summary);
  });
  worker.on("error", (error: Error & { readonly code?: string }) => {
    alive = false;
    const why = `the decoder has ended: ${error.code ?? error.name}`;
    try {
      const note = { kind: "note", t: roundMs(now()), c: 0, level: "lost", from: null, text: why };
      if (fd !== null) writeWhole(fd, `${JSON.stringify(note)}\n`);
    } catch {
      // Told below, and there is nowhere else to write it.
    }
    fail(why);
  });
  worker.on("exit", () => {
    alive = false;
    settle(null);
  });

  const post = (message: ToWorker, transfer: readonly ArrayBuffer[] = []): void => worker.postMessage(message, [...transfer]);
  const sink: BatchSink = {
    send(memory, used) {
      if (!alive) return;
      outstanding += 1;
      post({ kind: "batch", memory, used }, [memory]);
    },
    get outstanding() {
      // Nobody takes it any more, and nothing is kept for nobody.
      return alive ? outstanding : Number.POSITIVE_INFINITY;
    },
    reuse: () => spare.pop(),
  };
  const recorder = createRecorder({ sink, now });

  async function end(): Promise<TraceSummary | null> {
    recorder.close();
    if (alive) {
      worker.ref();
      post({ kind: "end", at: roundMs(now()) });
    }
    let summary: TraceSummary | null = null;
    await within(
      CLOSE_MS,
      ended.then((given) => {
        summary = given;
      }),
    );
    await worker.terminate();
    if (fd !== null && path !== null) {
      if ((summary as TraceSummary | null)?.records === 0) removeTraceFile(path, fd);
      closeSync(fd);
    }
    return summary;
  }

  let closing: Promise<TraceSummary | null> | undefined;
  return {
    header,
    tap: recorder.tap,
    close() {
      closing ??= end();
      return closing;
    },
  };
}
