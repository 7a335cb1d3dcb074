/*
 * Questions to the person at the workstation, on /dev/tty and never on stdin: yes or no, a line, a key file's passphrase.
 * It must never be used for a PIN (the token host asks that in its own process) and never leave the terminal without echo.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { ReadStream } from "node:tty";
import { printable } from "../base/printable.js";
import { wipeable } from "../base/secret.js";

export interface Terminal {
  /** True when there is a terminal to ask on. */
  readonly available: boolean;
  /** One question, in one line or several. Answers a line as typed, without its end; null when there is no terminal, at Ctrl-D, or when the signal aborts. */
  ask(question: string | readonly string[], signal: AbortSignal): Promise<string | null>;
  /** As ask, without echo unless told, as bytes that the caller overwrites. */
  askSecret(question: string | readonly string[], signal: AbortSignal, echo?: boolean): Promise<Buffer | null>;
}

/** Where nobody is to be asked. */
export const noTerminal: Terminal = { available: false, ask: async () => null, askSecret: async () => null };

const MAX_ANSWER_BYTES = 1024;

/** The controlling terminal at `path`. Opened for each question and closed after it, so that nothing else is kept from reading. */
export function createTerminal(path = "/dev/tty"): Terminal {
  const open = (): number | null => {
    try {
      return openSync(path, "r+");
    } catch {
      return null;
    }
  };
  const probe = open();
  if (probe !== null) closeSync(probe);
  return {
    available: probe !== null,
    async ask(question, signal) {
      const answer = await converse(path, open(), question, true, signal);
      return answer === null ? null : answer.toString("utf8");
    },
    askSecret: (question, signal, echo = false) => converse(path, open(), question, echo, signal),
  };
}

/** Reads one line in raw mode, so that what is typed is ours to echo or not. Ctrl-C counts as an interrupt of the program. */
function converse(
  path: string,
  fd: number | null,
  question: string | readonly string[],
  echo: boolean,
  signal: AbortSignal,
): Promise<Buffer | null> {
  if (fd === null || signal.aborted) {
    if (fd !== null) closeSync(fd);
    return Promise.resolve(null);
  }
  return new Promise((resolve) => {
    // Two descriptors: the reading one becomes non-blocking, what is shown must not get lost to that.
    const shown = openSync(path, "w");
    const show = (text: string | Buffer): void => {
      try {
        writeSync(shown, typeof text === "string" ? Buffer.from(text) : text);
      } catch {
        // The terminal has hung up; the question ends by that, not by an exception out of a listener.
      }
    };
    const input = new ReadStream(fd);
    const wasRaw = process.stdin.isTTY === true && process.stdin.isRaw;
    let typed: Buffer = wipeable(MAX_ANSWER_BYTES);
    let length = 0;
    let finished = false;
    const finish = (answer: Buffer | null): void => {
      if (finished) return;
      finished = true;
      signal.removeEventListener("abort", cancel);
      show("\r\n");
      closeSync(shown);
      if (!wasRaw) input.setRawMode(false);
      typed.fill(0);
      typed = Buffer.alloc(0);
      input.destroy();
      resolve(answer);
    };
    const cancel = (): void => finish(null);
    input.setRawMode(true);
    show(
      [question]
        .flat()
        .map((line) => printable(line, 2000))
        .join("\r\n"),
    );
    signal.addEventListener("abort", cancel, { once: true });
    input.on("error", cancel);
    input.on("end", cancel);
    input.on("data", (chunk: Buffer) => {
      for (const byte of chunk) {
        if (byte === 0x0d || byte === 0x0a) {
          chunk.fill(0);
          finish(copyOf(typed.subarray(0, length)));
          return;
        }
        if (byte === 0x03) {
          finish(null);
          process.kill(process.pid, "SIGINT");
          return;
        }
        if (byte === 0x04 || byte === 0x1b) {
          finish(null);
          return;
        }
        length = edit(typed, length, byte, echo ? show : () => {});
      }
      chunk.fill(0);
    });
  });
}

/** The same bytes in memory that can be wiped. */
function copyOf(bytes: Buffer): Buffer {
  const copy = wipeable(bytes.length);
  bytes.copy(copy);
  return copy;
}

/** Applies one typed byte: backspace, Ctrl-U, or a byte of text. Answers the new length. */
function edit(typed: Buffer, length: number, byte: number, show: (text: string | Buffer) => void): number {
  if (byte === 0x15) {
    show("\b \b".repeat(length));
    return 0;
  }
  if (byte === 0x7f || byte === 0x08) {
    if (length > 0) show("\b \b");
    return Math.max(0, length - 1);
  }
  if (byte < 0x20 || length >= typed.length) return length;
  typed[length] = byte;
  show(Buffer.from([byte]));
  return length + 1;
}
