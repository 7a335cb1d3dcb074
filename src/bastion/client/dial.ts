/*
 * Opens a Unix socket within a time. It must never leave a socket behind that nobody owns, nor let one fail unheard.
 */
import { connect, type OnReadOpts, type Socket } from "node:net";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";

const WHY: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  ECONNREFUSED: "exists, but nobody listens on it any more",
  EACCES: "may not be used by this user",
  ENOTSOCK: "is not a socket",
  EAGAIN: "has too many connections waiting",
};

/** An error about the socket at `path`; `why` follows its name. */
export function socketError(path: string, why: string, cause?: unknown): TokenfwdError {
  return new TokenfwdError("E_AGENT_SOCKET", `the socket ${printable(path)} ${why}`, {
    hint: "is tokenfwd connect still running at the workstation? start it again, or name another socket with --socket",
    cause,
  });
}

/** What may come in one read. */
const READ_BYTES = 64 * 1024;

/**
 * A connected socket, the caller's own. Rejects with E_AGENT_SOCKET, or with the signal's reason. `take` gets what comes, which is
 * the taker's, in place of the socket's `data`: read into the same memory each time, for memory of its own for each read, given
 * back but for the few bytes of an answer, costs more than the answer.
 */
export function dial(path: string, timeoutMs: number, signal: AbortSignal, take?: (bytes: Buffer) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const socket = connect(take === undefined ? { path } : { path, onread: readingInto(take) });
    const settle = (outcome: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
      outcome();
    };
    const fail = (reason: unknown): void =>
      settle(() => {
        socket.destroy();
        reject(reason);
      });
    const aborted = (): void => fail(signal.reason);
    const timer = setTimeout(() => fail(socketError(path, `did not take a connection in ${timeoutMs / 1000} s`)), timeoutMs);
    signal.addEventListener("abort", aborted, { once: true });
    // Stays for the socket's life: after an error comes "close", which is what its owner listens to.
    socket.on("error", (error: NodeJS.ErrnoException) =>
      fail(socketError(path, WHY[error.code ?? ""] ?? `cannot be opened (${error.code ?? "unknown reason"})`, error)),
    );
    socket.once("connect", () => settle(() => resolve(socket)));
  });
}

function readingInto(take: (bytes: Buffer) => void): OnReadOpts {
  return {
    buffer: Buffer.allocUnsafeSlow(READ_BYTES),
    callback(count, bytes) {
      take(Buffer.from(bytes.subarray(0, count)));
      return true;
    },
  };
}

/** How long a socket that we close may take to send what was written to it. */
const LINGER_MS = 1_000;

/** Closes a socket when what was written has gone out, or soon. */
export function hangUp(socket: Socket): void {
  if (socket.destroyed) return;
  socket.destroySoon();
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

/** Whether somebody listens there; the connection is given up at once. Rejects with the signal's reason alone. */
export async function isListening(path: string, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
  try {
    (await dial(path, timeoutMs, signal)).destroy();
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}
