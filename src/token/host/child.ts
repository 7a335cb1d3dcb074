/*
 * One life of a token host process: starts it, carries messages, ends it. It owns the process and its pipes and nothing
 * else; who restarts what and what a death means is the supervisor's business (host.ts).
 */
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import type { Socket } from "node:net";
import type { Duplex, Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Log } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import { createFrameDecoder, decodeBody, encodeFrame } from "./frames.js";
import type { FromHost, ToHost } from "./messages.js";

const CLOSE_MS = 2000;
const MAX_LINE_BYTES = 2000;

export interface HostChildOptions {
  /** A descriptor of this process that the host shall have as 4, or null. */
  readonly pinDescriptor: number | null;
  /** Whether it lends its PIN to other hosts of the module, or borrows theirs (pin-link.ts). */
  readonly pinLink: "lends" | "borrows" | null;
  readonly log: Log;
  onMessage(message: FromHost): void;
  /** Called once, with how it ended in words. */
  onExit(how: string): void;
}

export interface HostChild {
  readonly pid: number | undefined;
  /** `secret`: the bytes are wiped once they are written. `now`: the host waits for nothing else. */
  send(message: ToHost, how?: { readonly secret?: boolean; readonly now?: boolean }): void;
  /** The lender's end of the pipe to a host that borrows, for `lendTo` of another; null for any other host. Nothing may be read from it here. */
  readonly lenderEnd: Socket | null;
  /** Hands the end on to a host that lends, and keeps nothing of it. */
  lendTo(lenderEnd: Socket): void;
  /** SIGKILL; `onExit` follows. */
  kill(): void;
  /** Asks it to end, kills it when it does not; resolves when it is gone. */
  close(): Promise<void>;
}

/** The program of the host: compiled beside this file, or in dist/ when this file runs as source (tests). */
function programPath(): string {
  const beside = fileURLToPath(new URL("./main.js", import.meta.url));
  if (existsSync(beside)) return beside;
  return fileURLToPath(new URL("../../../dist/token/host/main.js", import.meta.url));
}

/** What the module prints goes to the log, a printable line at a time, and never to a terminal. */
function capture(stream: Readable, name: string, log: Log): void {
  let pending = "";
  stream.on("data", (chunk: Buffer) => {
    const lines = (pending + chunk.toString("latin1")).split("\n");
    pending = (lines.pop() ?? "").slice(-MAX_LINE_BYTES);
    for (const line of lines) log.debug("the module wrote", { stream: name, line: printable(Buffer.from(line, "latin1")) });
  });
  stream.on("error", () => {});
}

export function startHostChild({ pinDescriptor, pinLink, log, onMessage, onExit }: HostChildOptions): HostChild {
  const pinStdio = pinDescriptor === null ? [] : [pinDescriptor];
  const extraStdio = pinLink === null ? pinStdio : [pinDescriptor ?? "ignore", pinLink === "lends" ? "ipc" : "pipe"];
  // Without a shell and without a group of its own: it shares our terminal, so that it can ask on it.
  const child: ChildProcess = spawn(process.execPath, [programPath()], {
    stdio: ["ignore", "pipe", "pipe", "pipe", ...extraStdio] as StdioOptions,
  });
  const stdio: readonly unknown[] = child.stdio;
  const pipe = stdio[3] as Duplex;
  const decoder = createFrameDecoder();
  if (child.stdout) capture(child.stdout, "stdout", log);
  if (child.stderr) capture(child.stderr, "stderr", log);

  const gone = new Promise<void>((resolve) => {
    let over = false;
    const finish = (how: string) => {
      if (over) return;
      over = true;
      resolve();
      onExit(how);
    };
    child.on("error", (error) => finish(printable(error.message)));
    // `close` comes after the last of its output, so no message is lost.
    child.on("close", (code, signal) => finish(signal === null ? `ended with status ${code}` : `was ended by ${signal}`));
  });
  pipe.on("error", () => {
    // A broken pipe is the sign of a death, which `close` tells.
  });
  pipe.on("data", (chunk: Buffer) => {
    let messages: FromHost[];
    try {
      messages = decoder.push(chunk).map((body) => decodeBody<FromHost>(body));
    } catch (error) {
      // Memory that a module has overwritten, or a module that writes to our pipe: a fault like any other.
      log.warn("the token host sent what is no message", { error });
      child.kill("SIGKILL");
      return;
    }
    for (const message of messages) onMessage(message);
  });

  return {
    get pid() {
      return child.pid;
    },
    send(message, { secret = false, now = false } = {}) {
      const frame = encodeFrame(message, secret);
      // What comes up in one turn of the event loop goes in one write, while the host is at work anyway: with many clients that is most calls.
      if (!now && pipe.writableCorked === 0) {
        pipe.cork();
        setImmediate(() => pipe.uncork());
      }
      if (secret) pipe.write(frame, () => frame.fill(0));
      else pipe.write(frame);
    },
    lenderEnd: pinLink === "borrows" ? (stdio[5] as Socket) : null,
    lendTo(lenderEnd) {
      // Once it is sent, nothing of it is here but a stream without a pipe, which its own process's end waits for.
      if (!child.connected) lenderEnd.destroy();
      else child.send("a borrower", lenderEnd, { keepOpen: false }, () => lenderEnd.destroy());
    },
    kill: () => void child.kill("SIGKILL"),
    async close() {
      const timer = setTimeout(() => child.kill("SIGKILL"), CLOSE_MS);
      pipe.end(encodeFrame({ kind: "close" } satisfies ToHost));
      await gone;
      clearTimeout(timer);
    },
  };
}
