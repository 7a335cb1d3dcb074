/*
 * Questions on /dev/tty, never on stdin: the PIN is typed without an echo, and the terminal is put back however the
 * question ends. It must never keep what was typed: every buffer of it is wiped or handed over as a secret.
 */
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { ReadStream } from "node:tty";
import { secretBytes, wipeable } from "../../base/secret.js";
import type { Asker } from "./asker.js";

const TTY = "/dev/tty";
const MAX_LINE_BYTES = 255;

/** The line a person typed, or null for a cancel. */
type Line = Buffer | null;

/**
 * The controlling terminal as an Asker, or null where there is none, or where it belongs to another job just now:
 * a background process that touches it is stopped by the kernel.
 */
export function openTerminal(): Asker | null {
  let fd: number;
  try {
    fd = openSync(TTY, "r+");
  } catch {
    return null;
  }
  const terminalState = inForeground() ? sttyState(fd) : null;
  closeSync(fd);
  if (terminalState === null) return null;
  return {
    terminalState,
    async pin({ token, who, notices }, signal) {
      const before = notices.map((notice) => `tokenfwd: ${notice}\r\n`).join("");
      const line = await readLine(`${before}tokenfwd: ${who} asks for the PIN of the token "${token}": `, false, signal);
      return line === null ? { kind: "cancelled" } : { kind: "given", pin: secretBytes(line) };
    },
    async confirm(question, signal) {
      const line = await readLine(`tokenfwd: ${question} [yes/no] `, true, signal);
      if (line === null) return "cancelled";
      return /^\s*(y|yes)\s*$/i.test(line.toString("utf8")) ? "yes" : "no";
    },
  };
}

/** True unless Linux says that another process group has the terminal (proc(5), fields pgrp and tpgid). */
function inForeground(): boolean {
  try {
    const stat = readFileSync("/proc/self/stat", "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[2] === fields[5];
  } catch {
    return true;
  }
}

/** What `stty` needs to put the terminal back, or null when it cannot be read. */
function sttyState(fd: number): string | null {
  const { status, stdout } = spawnSync("stty", ["-g"], { stdio: [fd, "pipe", "ignore"], encoding: "latin1", timeout: 2000 });
  const state = status === 0 ? stdout.trim() : "";
  return /^[0-9a-zA-Z:=,-]{1,1000}$/.test(state) ? state : null;
}

/** Puts the controlling terminal back into a state that `sttyState` gave: for whoever outlives a killed host. */
export function restoreTerminal(state: string): void {
  let fd: number;
  try {
    fd = openSync(TTY, "r+");
  } catch {
    return;
  }
  spawnSync("stty", [state], { stdio: [fd, "ignore", "ignore"], timeout: 2000 });
  writeSync(fd, "\r\n");
  closeSync(fd);
}

/** Reads one line in raw mode (output processing may be off, so a line ends with both). Ctrl-C, Ctrl-D and Esc cancel, Ctrl-U starts again, backspace takes back. */
function readLine(prompt: string, echo: boolean, signal: AbortSignal): Promise<Line> {
  return new Promise((resolve, reject) => {
    let input: ReadStream;
    let output: number;
    try {
      output = openSync(TTY, "w");
      input = new ReadStream(openSync(TTY, "r+"));
    } catch {
      resolve(null);
      return;
    }
    const line = wipeable(MAX_LINE_BYTES);
    let length = 0;

    const show = (text: string) => {
      try {
        writeSync(output, text);
      } catch {
        // A terminal that has gone shows nothing; its end arrives as an event of the stream.
      }
    };
    const finish = (answer: Line, error?: Error) => {
      signal.removeEventListener("abort", onAbort);
      input.removeAllListeners("data");
      try {
        input.setRawMode(false);
      } catch {
        // The terminal has gone: there is nothing to put back.
      }
      show("\r\n");
      input.destroy();
      closeSync(output);
      line.fill(0);
      if (error) reject(error);
      else resolve(answer);
    };
    const onAbort = () => finish(null);
    /** Takes back one character, which in UTF-8 may be several bytes. */
    const eraseOne = () => {
      if (length === 0) return;
      do length -= 1;
      while (length > 0 && ((line[length] ?? 0) & 0xc0) === 0x80);
      if (echo) show("\b \b");
    };
    const onByte = (byte: number): Line | undefined => {
      if (byte === 0x0d || byte === 0x0a) return Buffer.from(line.subarray(0, length));
      if (byte === 0x03 || byte === 0x04 || byte === 0x1b) return null;
      if (byte === 0x7f || byte === 0x08) eraseOne();
      else if (byte === 0x15) while (length > 0) eraseOne();
      else if (byte >= 0x20 && length < MAX_LINE_BYTES) {
        line[length] = byte;
        length += 1;
        if (echo) show(String.fromCharCode(byte));
      }
      return undefined;
    };

    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) {
      finish(null);
      return;
    }
    input.on("error", () => finish(null));
    input.on("end", () => finish(null));
    input.setRawMode(true);
    show(prompt);
    input.on("data", (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; at += 1) {
        // An arrow key or a bracketed paste is an escape sequence and no wish to cancel.
        if (chunk[at] === 0x1b && chunk[at + 1] === 0x5b) {
          at += 2;
          while (at < chunk.length && !((chunk[at] ?? 0) >= 0x40 && (chunk[at] ?? 0) <= 0x7e)) at += 1;
          continue;
        }
        const answer = onByte(chunk[at] ?? 0);
        if (answer === undefined) continue;
        chunk.fill(0);
        finish(answer);
        return;
      }
      chunk.fill(0);
    });
  });
}
