/*
 * A program that runs until it is stopped, with what it says kept for tests to read and to wait for. It must be stopped by whoever
 * started it, ends by its id, and dies with this process.
 */
import { spawn } from "node:child_process";

export interface Daemon {
  readonly pid: number;
  /** What it has said so far, on stdout and stderr. */
  log(): string;
  /** Resolves when what it said from `from` on (a length of the log, default 0) matches; rejects after `timeoutMs` (default 20,000) or when it has ended. */
  waitFor(pattern: RegExp, options?: { readonly from?: number; readonly timeoutMs?: number }): Promise<void>;
  /** Whether it still runs. */
  running(): boolean;
  /** SIGTERM, after a second SIGKILL; or the signal named, at once. Safe to call twice. */
  stop(signal?: "SIGTERM" | "SIGKILL"): Promise<void>;
}

/** Starts `file`; rejects when it does not start. */
export async function startDaemon(file: string, args: readonly string[], env: NodeJS.ProcessEnv, cwd: string): Promise<Daemon> {
  const child = spawn(file, [...args], { env, cwd, stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  let over = false;
  const watchers = new Set<() => void>();
  const told = () => {
    for (const watcher of [...watchers]) watcher();
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      told();
    });
  }
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => {
      over = true;
      told();
      resolve();
    });
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  void ended.then(() => process.removeListener("exit", kill));
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("spawn", resolve);
  });
  return {
    pid: child.pid ?? 0,
    log: () => text,
    running: () => !over,
    waitFor: (pattern, { from = 0, timeoutMs = 20_000 } = {}) =>
      new Promise((resolve, reject) => {
        const settle = (why: string | null) => {
          clearTimeout(timer);
          watchers.delete(look);
          if (why === null) resolve();
          else reject(new Error(`${args.join(" ")} ${why} ${pattern}: ${text.slice(from)}`));
        };
        const look = () => {
          if (pattern.test(text.slice(from))) settle(null);
          else if (over) settle("ended without");
        };
        const timer = setTimeout(() => settle("did not say"), timeoutMs);
        watchers.add(look);
        look();
      }),
    async stop(signal = "SIGTERM") {
      if (over) return;
      child.kill(signal);
      const timer = setTimeout(kill, 1_000);
      await ended;
      clearTimeout(timer);
    },
  };
}
