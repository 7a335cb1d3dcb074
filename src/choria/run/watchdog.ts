/*
 * Ends choria and takes its directory away when we are killed and cannot: without its relay choria would wait for ever. A shell that
 * waits for our end of a pipe; it must never act while we live, nor after choria has ended.
 */
import { spawn } from "node:child_process";
import { within } from "../../base/within.js";

export interface Watchdog {
  /** choria has ended: there is nothing to do any more. Safe to call twice. */
  release(): Promise<void>;
}

const SCRIPT = `trap '' HUP INT QUIT TERM
read -r word
test "$word" = ended && exit
printf '%s\\n' 'tokenfwd: tokenfwd choria run was killed, so choria is ended' >&2
kill -TERM "$1" 2>/dev/null
rm -rf -- "$2"
for second in 1 2 3; do kill -0 "$1" 2>/dev/null || exit; sleep 1; done
kill -KILL "$1" 2>/dev/null`;

const EXIT_MS = 1_000;

/** Watches for the process `pid`, our child, with its directory. */
export function startWatchdog(pid: number, directory: string): Watchdog {
  const shell = spawn("/bin/sh", ["-c", SCRIPT, "sh", String(pid), directory], { stdio: ["pipe", "ignore", "inherit"], detached: true });
  shell.on("error", () => {});
  shell.stdin.on("error", () => {});
  const gone = new Promise<void>((resolve) => {
    shell.once("close", () => resolve());
  });
  return {
    async release() {
      if (!shell.stdin.writableEnded) shell.stdin.end("ended\n");
      await within(EXIT_MS, gone);
    },
  };
}
