/*
 * Runs choria to its end: its stdin and stdout are ours, and so is the terminal; signals are passed on; and when what it speaks to is no
 * more, it is ended, because it would wait for ever. It must never outlive us by more than the time that it has to end, however we end.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { within } from "../../base/within.js";
import { createLogLines } from "./log-lines.js";
import { makeRealPipe } from "./real-pipe.js";
import { startWatchdog } from "./watchdog.js";

export interface ChoriaProcess {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Ours alone; taken away should we be killed. */
  readonly directory: string;
  readonly stderr: Writable;
  /** Resolves when signer or relay is of no more use; choria is ended then. */
  readonly gone: Promise<TokenfwdError>;
  /** Calls back for each signal that we got and choria should get; answers how to stop. */
  onSignal(pass: (signal: NodeJS.Signals) => void): () => void;
}

/** How long it has to end after TERM; its own limit is 10 s. */
const END_MS = 3_000;
/** For what stands in the pipe when it has ended: a child of its own may hold it open. */
const DRAIN_MS = 1_000;

/** How it ended: the code, or the signal's name. */
export interface ChoriaEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** @throws TokenfwdError E_CHORIA when it does not start; what `gone` resolved to, once it has been ended */
export async function superviseChoria(options: ChoriaProcess): Promise<ChoriaEnd> {
  const pipe = makeRealPipe(options.directory);
  const child = spawn(options.program, [...options.args], {
    cwd: options.cwd,
    env: options.env,
    stdio: ["inherit", "inherit", pipe.fd],
  });
  pipe.closeOurs();
  const ended = end(child, options.program);
  ended.catch(() => {});
  const watchdog = child.pid === undefined ? null : startWatchdog(child.pid, options.directory);
  const lines = createLogLines();
  lines.on("data", (chunk: Buffer) => options.stderr.write(chunk));
  pipe.readable.on("error", () => lines.end()).pipe(lines);
  const stop = options.onSignal((signal) => child.kill(signal));
  let cause: TokenfwdError | null = null;
  void options.gone.then((error) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    cause = error;
    child.kill("SIGTERM");
    const hard = setTimeout(() => child.kill("SIGKILL"), END_MS);
    ended.then(
      () => clearTimeout(hard),
      () => clearTimeout(hard),
    );
  });
  try {
    const result = await ended;
    await within(DRAIN_MS, finished(lines));
    if (cause !== null) throw cause;
    return result;
  } finally {
    stop();
    pipe.readable.destroy();
    await watchdog?.release();
  }
}

function end(child: ChildProcess, program: string): Promise<ChoriaEnd> {
  return new Promise((resolve, reject) => {
    child.once("error", (cause: NodeJS.ErrnoException) =>
      reject(
        new TokenfwdError("E_CHORIA", `${printable(program)} cannot be started: ${printable(cause.message)}`, {
          hint: "try it by itself",
          cause,
        }),
      ),
    );
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
}
