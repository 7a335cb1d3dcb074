/*
 * Runs stock `p11-kit server` in a directory of its own and keeps it exactly as long as this process lives: a small shell
 * beside it ends it, with all it has started, when its stdin ends, which no way of dying can prevent. It must never be reached
 * by another user, and never print to our streams.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { lstatOrNull, maxSocketPathBytes, runtimeDirectory } from "../base/paths.js";
import { printable } from "../base/printable.js";
import { within } from "../base/within.js";

export interface StockProcessOptions {
  /** The module's real path. */
  readonly modulePath: string;
  /** A `pkcs11:` URI of tokens; it stands in the process's arguments. */
  readonly uri: string;
  readonly signal: AbortSignal;
  readonly log: Log;
}

export interface StockProcess {
  readonly socket: string;
  /** Resolves, never rejects, when the server has ended by itself. Never settles after close(). */
  readonly gone: Promise<TokenfwdError>;
  /** Ends the server and all it has started, and removes its directory. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * $1 is the directory, $2 on the server's command. The shell leads a process group of its own, so the last line ends the server's
 * children too, in the midst of a call of the module if need be. It ends without a word of the shell's about who was killed.
 */
const KEEPER = `dir=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
trap 'kill "$server" 2>/dev/null' HUP INT TERM
{ cat <&3; kill "$server"; } >/dev/null 2>&1 &
wait "$server"; status=$?
trap '' HUP INT TERM
kill "$server" 2>/dev/null && wait "$server"
rm -f "$dir/p11.sock"; rmdir "$dir"
kill -TERM 0
exit "$status"`;

const START_MS = 10_000;
const STOP_MS = 3_000;
const KEPT_WORDS = 2_000;

/** Starts it and waits until it listens. Rejects with E_STOCK, E_SOCKET_PATH, or the signal's reason. */
export async function startStockProcess(options: StockProcessOptions): Promise<StockProcess> {
  const { modulePath, uri, signal, log } = options;
  signal.throwIfAborted();
  const directory = mkdtempSync(join(runtimeDirectory(), "tokenfwd-stock-"));
  const socket = join(directory, "p11.sock");
  if (Buffer.byteLength(socket) > maxSocketPathBytes()) {
    rmSync(directory, { recursive: true, force: true });
    throw new TokenfwdError("E_SOCKET_PATH", `the path ${printable(socket)} is longer than a socket's may be`, {
      hint: "let XDG_RUNTIME_DIR name a shorter directory of yours with mode 0700",
    });
  }
  const words = ["p11-kit", "server", "--foreground", "--name", socket, "--provider", modulePath, uri];
  const child = spawn("/bin/sh", ["-c", KEEPER, "tokenfwd-stock", directory, ...words], {
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const spoken = listen(child, log);
  const ended = new Promise<void>((resolve) => {
    child.once("error", () => resolve());
    child.once("exit", () => resolve());
  });
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      child.stdin?.destroy();
      await within(STOP_MS, ended);
      killGroup(child);
      rmSync(directory, { recursive: true, force: true });
    })();
    return closing;
  };
  try {
    await started(child, spoken, ended, signal);
    if (lstatOrNull(socket)?.isSocket() !== true) throw failed("it made no socket", spoken.said());
  } catch (error) {
    await close();
    throw error;
  }
  const gone = new Promise<TokenfwdError>((resolve) => {
    void ended.then(() => {
      if (closing === null) resolve(failed(`it ended (${ending(child)})`, spoken.said()));
    });
  });
  return { socket, gone, close };
}

interface Words {
  /** The last of what it said on stderr, printable. */
  said(): string;
  /** Resolves when it has printed its address. */
  readonly address: Promise<void>;
}

function listen(child: ChildProcess, log: Log): Words {
  let printed = "";
  let errors = "";
  for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.on("error", () => {});
  const address = new Promise<void>((resolve) => {
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      printed = (printed + text).slice(-KEPT_WORDS);
      if (/P11_KIT_SERVER_ADDRESS=.*\n/.test(printed)) resolve();
    });
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-KEPT_WORDS);
    log.info("p11-kit server", { said: text.trim() });
  });
  return { said: () => printable(errors.trim().split("\n").at(-1) ?? "", 300), address };
}

async function started(child: ChildProcess, words: Words, ended: Promise<void>, signal: AbortSignal): Promise<void> {
  let stop = (): void => {};
  const aborted = new Promise<void>((resolve) => {
    stop = () => resolve();
    signal.addEventListener("abort", stop, { once: true });
  });
  let isReady = false;
  const ready = words.address.then(() => {
    isReady = true;
  });
  await within(START_MS, Promise.race([ready, ended, aborted]));
  signal.removeEventListener("abort", stop);
  signal.throwIfAborted();
  if (isReady) return;
  if (child.exitCode === null && child.signalCode === null) throw failed(`it does not listen after ${START_MS / 1000} s`, words.said());
  throw child.exitCode === 127 || /not a valid command/.test(words.said())
    ? missing()
    : failed(`it ended (${ending(child)})`, words.said());
}

function ending(child: ChildProcess): string {
  return child.signalCode ?? `status ${child.exitCode}`;
}

function failed(what: string, said: string): TokenfwdError {
  return new TokenfwdError("E_STOCK", `p11-kit server of --stock: ${what}${said === "" ? "" : `; it said: ${said}`}`, {
    hint: "leave out --stock, or try by hand: p11-kit server --foreground --provider MODULE pkcs11:",
  });
}

function missing(): TokenfwdError {
  return new TokenfwdError("E_STOCK", "--stock needs the program p11-kit server on this workstation, and it is not there", {
    hint: "install it (Debian, Ubuntu, Arch, Homebrew: p11-kit; Fedora, RHEL, openSUSE, Alpine: p11-kit-server), or leave out --stock",
  });
}

/** Whatever is left of the group that the shell led. */
function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // Nothing is left.
  }
}
