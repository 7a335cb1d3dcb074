/*
 * Runs CMD or a login shell on the bastion with our stdio: a pty exactly when both ends are terminals, the local terminal raw for as long and
 * restored whatever happens, stdin silent while a PIN is asked for. It must never swallow a byte of stdin that CMD did not get
 * because a question was open, and never leave the terminal raw.
 */
import { PassThrough, type Readable, type Writable } from "node:stream";
import type { ReadStream, WriteStream } from "node:tty";
import type { Forward, RemoteWork } from "../../forward/types.js";
import { signalStatus } from "../lifetime.js";
import { enterRawMode } from "../raw-mode.js";

/** The process's own streams, or a test's. */
export interface LocalStdio {
  readonly stdin: Readable & Partial<Pick<ReadStream, "isTTY" | "setRawMode">>;
  readonly stdout: Writable & Partial<Pick<WriteStream, "isTTY" | "columns" | "rows">>;
  readonly stderr: Writable;
  /** As enterRawMode, which is the default. */
  enterRaw?(): (() => void) | null;
}

export type PtyChoice = "auto" | "force" | "forbid";

export interface RemoteCommand {
  /** True when CMD gets a terminal. */
  readonly pty: boolean;
  /** Whether the local terminal is raw at this moment. */
  isRaw(): boolean;
  /** While held, local stdin is not read: somebody is typing a PIN on the same terminal. */
  holdStdin(held: boolean): void;
  /** Runs it to its end. Answers the exit status: CMD's own, 128+n for a signal, null when the channel ended without one. */
  run(forward: Forward, work: RemoteWork, signal: AbortSignal): Promise<number | null>;
}

/** Prepares to run a command; nothing is touched before run(). */
export function createRemoteCommand(local: LocalStdio, choice: PtyChoice, term: string): RemoteCommand {
  const pty = choice === "force" || (choice === "auto" && local.stdin.isTTY === true && local.stdout.isTTY === true);
  let leaveRaw: (() => void) | null = null;
  const restore = (): void => {
    const leave = leaveRaw;
    leaveRaw = null;
    leave?.();
  };
  const gate = createGate(local.stdin);
  return {
    pty,
    isRaw: () => leaveRaw !== null,
    holdStdin: (held) => gate.hold(held && local.stdin.isTTY === true),
    async run(forward, work, signal) {
      const resizers: (() => void)[] = [];
      process.once("exit", restore);
      if (pty && local.stdin.isTTY === true) leaveRaw = (local.enterRaw ?? enterRawMode)() ?? nodeRawMode(local.stdin);
      gate.open();
      try {
        const size = () => ({ cols: local.stdout.columns ?? 80, rows: local.stdout.rows ?? 24 });
        const ended = await forward.run(work, {
          stdin: gate.stream,
          stdout: local.stdout,
          stderr: local.stderr,
          pty: pty ? { ...size(), term } : null,
          signal,
          onResize(listener) {
            const onResize = (): void => listener(size());
            local.stdout.on("resize", onResize);
            resizers.push(() => local.stdout.off("resize", onResize));
          },
        });
        if (ended.signal !== null) return signalStatus(ended.signal);
        return ended.code;
      } finally {
        gate.close();
        for (const stop of resizers) stop();
        restore();
        process.off("exit", restore);
      }
    },
  };
}

/** Where there is no stty: better than no raw mode. */
function nodeRawMode(stdin: LocalStdio["stdin"]): () => void {
  stdin.setRawMode?.(true);
  return () => void stdin.setRawMode?.(false);
}

/** stdin behind a gate: pausing it is ours alone, whoever reads the other side. */
function createGate(stdin: Readable): { readonly stream: Readable; open(): void; hold(held: boolean): void; close(): void } {
  const stream = new PassThrough();
  let opened = false;
  let held = false;
  let full = false;
  const flow = (): void => {
    if (!opened || held || full) stdin.pause();
    else stdin.resume();
  };
  const onData = (chunk: Buffer): void => {
    if (!stream.write(chunk)) {
      full = true;
      flow();
    }
  };
  const onEnd = (): void => void stream.end();
  stream.on("drain", () => {
    full = false;
    if (opened) flow();
  });
  stream.on("error", () => undefined);
  return {
    stream,
    open() {
      opened = true;
      stdin.on("data", onData);
      stdin.on("end", onEnd);
      stdin.on("error", onEnd);
      flow();
    },
    hold(value) {
      held = value;
      if (opened) flow();
    },
    close() {
      opened = false;
      stdin.off("data", onData);
      stdin.off("end", onEnd);
      stdin.pause();
    },
  };
}
