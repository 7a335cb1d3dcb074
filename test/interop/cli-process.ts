/*
 * Runs the built command as a user would and lets a test wait for what it says. It must never look inside: only streams,
 * exit status and signals. Every process it starts is ended by its own pid.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export const TOKENFWD = fileURLToPath(new URL("../../bin/tokenfwd.js", import.meta.url));

export interface CliExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export type CliEvent = Readonly<Record<string, unknown>> & { readonly event: string };

export interface CliProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly stdout: () => Buffer;
  readonly stderr: () => string;
  /** The events on stdout or stderr so far; other lines are left out. */
  events(): readonly CliEvent[];
  /** Resolves once `ready` answers something for what has been written so far; rejects with everything when the process ends first. */
  until<T>(ready: () => T | undefined): Promise<T>;
  untilEvent(name: string): Promise<CliEvent>;
  untilStderr(pattern: RegExp): Promise<void>;
  readonly exited: Promise<CliExit>;
  /** Ends it with SIGTERM if it still runs, and waits. */
  end(): Promise<void>;
}

export function startCli(
  args: readonly string[],
  options: {
    env?: NodeJS.ProcessEnv;
    stdin?: "pipe" | "ignore";
    fd3?: number;
    /** Words in front, such as `ip netns exec NAME`; they must end in an exec, so that the process stays the same. */
    within?: readonly string[];
    /** The command to run instead of this checkout's, such as one that npm has installed. */
    program?: string;
    cwd?: string;
  } = {},
): CliProcess {
  const stdio: ("pipe" | "ignore" | number)[] = [options.stdin ?? "ignore", "pipe", "pipe"];
  if (options.fd3 !== undefined) stdio.push(options.fd3);
  // A session of its own has no terminal: /dev/tty of whoever runs the tests must not be asked.
  const command = options.program === undefined ? [process.execPath, TOKENFWD] : [options.program];
  const [file = "", ...words] = [...(options.within ?? []), ...command, ...args];
  const child = spawn(file, words, { env: options.env ?? process.env, stdio, detached: true, cwd: options.cwd });
  const out: Buffer[] = [];
  let err = "";
  const watchers = new Set<() => void>();
  const changed = (): void => {
    for (const watcher of [...watchers]) watcher();
  };
  child.stdout?.on("data", (chunk: Buffer) => {
    out.push(chunk);
    changed();
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    err += chunk.toString("utf8");
    changed();
  });
  let ended = false;
  const exited = new Promise<CliExit>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      ended = true;
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: err });
      changed();
    });
  });
  const events = (): CliEvent[] =>
    `${Buffer.concat(out).toString("utf8")}\n${err}`
      .split("\n")
      .filter((line) => line.startsWith('{"v":1,') && line.endsWith("}"))
      .map((line) => JSON.parse(line) as CliEvent);
  const until = <T>(ready: () => T | undefined): Promise<T> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = ready();
        if (found === undefined && !ended) return;
        watchers.delete(look);
        if (found !== undefined) resolve(found);
        else reject(new Error(`ended before it was seen; stdout: ${Buffer.concat(out).toString("utf8")} stderr: ${err}`));
      };
      watchers.add(look);
      look();
    });
  return {
    child,
    pid: child.pid ?? 0,
    stdout: () => Buffer.concat(out),
    stderr: () => err,
    events,
    until,
    untilEvent: (name) => until(() => events().find((one) => one.event === name)),
    untilStderr: (pattern) => until(() => (pattern.test(err) ? true : undefined)).then(() => undefined),
    exited,
    async end() {
      if (!ended) child.kill("SIGTERM");
      await exited;
    },
  };
}

/** Runs it to its end. */
export async function runCli(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; input?: Buffer | string; fd3?: number; cwd?: string } = {},
): Promise<CliExit> {
  const { input, ...rest } = options;
  const cli = startCli(args, { ...rest, stdin: input === undefined ? "ignore" : "pipe" });
  if (input !== undefined) cli.child.stdin?.end(input);
  return cli.exited;
}
