/*
 * Runs a program to its end and answers what it printed. The only place that names execa: argv arrays, never a shell,
 * no secret in argv or environment. It must never be used for a program whose output we stream.
 */
import { execa } from "execa";

export interface RunOptions {
  /** Added to our own environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Default 10,000. The child is ended by SIGTERM, five seconds later by SIGKILL. */
  readonly timeoutMs?: number;
  /** Limit for each of stdout and stderr, default 1 MiB; a child that prints more is ended. */
  readonly maxBytes?: number;
  /** What the child reads; nothing (an empty stdin) by default. */
  readonly input?: Buffer;
}

export interface RunResult {
  /** null when it did not start or a signal ended it. */
  readonly exitCode: number | null;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Why there is no exit code, else null. `missing` = there is no such program. */
  readonly failure: "missing" | "timeout" | "aborted" | "too-much-output" | "killed" | null;
}

/** Runs `file` with `args`. Never rejects for what the program did: look at the answer. */
export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const result = await execa(file, [...args], {
    reject: false,
    encoding: "buffer",
    stripFinalNewline: false,
    timeout: options.timeoutMs ?? 10_000,
    forceKillAfterDelay: 5_000,
    maxBuffer: options.maxBytes ?? 1024 * 1024,
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    ...(options.input === undefined ? { stdin: "ignore" } : { input: options.input }),
  });
  return {
    exitCode: result.exitCode ?? null,
    stdout: Buffer.from(result.stdout ?? []),
    stderr: Buffer.from(result.stderr ?? []),
    failure: failureOf(result),
  };
}

interface Ending {
  readonly exitCode?: number | undefined;
  readonly timedOut: boolean;
  readonly isCanceled: boolean;
  readonly isMaxBuffer: boolean;
  readonly code?: string | undefined;
}

function failureOf(result: Ending): RunResult["failure"] {
  if (result.timedOut) return "timeout";
  if (result.isCanceled) return "aborted";
  if (result.isMaxBuffer) return "too-much-output";
  if (result.code === "ENOENT" || result.code === "EACCES") return "missing";
  return result.exitCode === undefined ? "killed" : null;
}
