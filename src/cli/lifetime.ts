/*
 * The life of a command that runs until it is told to stop: what a signal means before and after ready, what is closed at the
 * end and in which order, and for how long. It must never leave something open because something else would not close.
 */
import { constants } from "node:os";
import { TokenfwdError } from "../base/errors.js";
import { within } from "../base/within.js";

export interface Lifetime {
  /** Aborts at the first signal, with E_INTERRUPTED as reason. */
  readonly signal: AbortSignal;
  /** The signal that ended us, null as long as none has. */
  readonly stoppedBy: NodeJS.Signals | null;
  /** Resolves at the first signal. */
  readonly stopped: Promise<NodeJS.Signals>;
  /** As if `signal` had arrived. */
  stop(signal: NodeJS.Signals): void;
  /** Registers what has been opened; closed in reverse order. */
  defer(close: () => Promise<void> | void): void;
  /**
   * Waits for something that cannot be aborted itself. When the signal comes first, rejects with E_INTERRUPTED and gives
   * what still arrives to `discard`.
   */
  wait<T>(promise: Promise<T>, discard?: (late: T) => Promise<void> | void): Promise<T>;
  /** Closes everything, each within five seconds. Safe to call twice. */
  close(): Promise<void>;
}

const CLOSE_TIMEOUT_MS = 5000;

/** The status of a failure of ours when there is a CMD: ssh's own. */
export const COMMAND_FAILURE = 255;

/** How a lifetime hears of signals; answers how to stop listening. */
export type SignalSource = (listener: (signal: NodeJS.Signals) => void) => () => void;

/** SIGINT, SIGTERM and SIGHUP of the process. A second one of them ends it at once with 128 + its number. */
export const processSignals: SignalSource = (listener) => {
  const names: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  let seen = false;
  const onSignal = (name: NodeJS.Signals): void => {
    if (seen) process.exit(signalStatus(name));
    seen = true;
    listener(name);
  };
  for (const name of names) process.on(name, onSignal);
  return () => {
    for (const name of names) process.off(name, onSignal);
  };
};

/** 128 + the number of a signal, `SIGTERM` or `TERM`; 255 for one that this system does not have. */
export function signalStatus(name: string): number {
  const number = (constants.signals as Readonly<Record<string, number>>)[name.startsWith("SIG") ? name : `SIG${name}`];
  return number === undefined ? COMMAND_FAILURE : 128 + number;
}

/** A lifetime fed by `signals`. */
export function createLifetime(signals: SignalSource): Lifetime {
  const abort = new AbortController();
  const closers: (() => Promise<void> | void)[] = [];
  let stoppedBy: NodeJS.Signals | null = null;
  let tell: (signal: NodeJS.Signals) => void = () => {};
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    tell = resolve;
  });
  const stop = (signal: NodeJS.Signals): void => {
    if (stoppedBy !== null) return;
    stoppedBy = signal;
    tell(signal);
    abort.abort(new TokenfwdError("E_INTERRUPTED", "interrupted"));
  };
  const unsubscribe = signals(stop);
  let closing: Promise<void> | undefined;
  return {
    signal: abort.signal,
    get stoppedBy() {
      return stoppedBy;
    },
    stopped,
    stop,
    defer: (close) => void closers.push(close),
    wait(promise, discard) {
      return new Promise((resolve, reject) => {
        let given = false;
        const onAbort = (): void => {
          given = true;
          reject(abort.signal.reason);
        };
        if (abort.signal.aborted) onAbort();
        abort.signal.addEventListener("abort", onAbort, { once: true });
        promise.then(
          (value) => {
            abort.signal.removeEventListener("abort", onAbort);
            resolve(value);
          },
          (error: unknown) => {
            abort.signal.removeEventListener("abort", onAbort);
            reject(error);
          },
        );
        // What is given up on is still waited for at the end, so that it is not left running.
        closers.push(async () => {
          if (given) await promise.then(discard, () => undefined);
        });
      });
    },
    close() {
      closing ??= (async () => {
        for (let close = closers.pop(); close !== undefined; close = closers.pop())
          await within(CLOSE_TIMEOUT_MS, Promise.resolve().then(close));
        unsubscribe();
      })();
      return closing;
    },
  };
}
