/*
 * Runs a command under a pseudo-terminal (python3's pty) and answers its questions: for PIN prompts, confirmations and
 * everything else that reads /dev/tty. The child is ended by its pid, by whoever started it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const BRIDGE = fileURLToPath(new URL("./pty-bridge.py", import.meta.url));

export interface PtyOptions {
  readonly argv: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly rows?: number;
  readonly columns?: number;
}

export interface PtyResult {
  readonly exitCode: number | null;
  readonly signal: number | null;
  /** Everything the terminal showed. */
  readonly output: string;
  /** How the terminal was left: both true on one that was put back. */
  readonly echo: boolean;
  readonly lineEditing: boolean;
}

export interface PtyProcess extends AsyncDisposable {
  /** Of the bridge; the command is its child. */
  readonly pid: number | undefined;
  readonly output: string;
  /** Types this. */
  send(text: string | Buffer): void;
  /**
   * Resolves once the output after the last match holds a match; rejects with the whole output after `timeoutMs`
   * (default 10,000) or when the command ends first.
   */
  expect(pattern: RegExp, timeoutMs?: number): Promise<void>;
  /** Hangs the terminal up (SIGHUP to the command). */
  hangUp(): void;
  readonly exited: Promise<PtyResult>;
}

/** Starts the command; the caller awaits `exited` or disposes of it. */
export function spawnUnderPty({ argv, env = process.env, cwd, rows = 24, columns = 120 }: PtyOptions): PtyProcess {
  const child: ChildProcess = spawn("python3", [BRIDGE, String(rows), String(columns), ...argv], {
    env,
    stdio: ["pipe", "pipe", "pipe"],
    ...(cwd === undefined ? {} : { cwd }),
  });
  let output = "";
  let report = "";
  let seen = 0;
  let ended = false;
  const watchers = new Set<() => void>();
  const changed = () => {
    for (const watcher of [...watchers]) watcher();
  };
  child.stdout?.on("data", (chunk: Buffer) => {
    output += chunk.toString("utf8");
    changed();
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    report += chunk.toString("utf8");
  });
  child.stdin?.on("error", () => {});
  const exited = new Promise<PtyResult>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", () => {
      ended = true;
      changed();
      const line = report.split("\n").find((one) => one.startsWith("{"));
      if (line === undefined) reject(new Error(`the pty bridge failed: ${report}\n${output}`));
      else resolve({ ...(JSON.parse(line) as Omit<PtyResult, "output">), output });
    });
  });
  // Whoever only disposes of it does not wait for the result.
  exited.catch(() => {});

  return {
    pid: child.pid,
    get output() {
      return output;
    },
    send: (text) => void child.stdin?.write(text),
    expect(pattern, timeoutMs = 10_000) {
      return new Promise((resolve, reject) => {
        const finish = (error?: Error) => {
          clearTimeout(timer);
          watchers.delete(look);
          if (error) reject(error);
          else resolve();
        };
        const look = () => {
          const found = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, "")).exec(output.slice(seen));
          if (found) {
            seen += found.index + found[0].length;
            finish();
          } else if (ended) finish(new Error(`ended before ${pattern}: ${JSON.stringify(output)}`));
        };
        const timer = setTimeout(() => finish(new Error(`no ${pattern} within ${timeoutMs} ms: ${JSON.stringify(output)}`)), timeoutMs);
        watchers.add(look);
        look();
      });
    },
    hangUp: () => void child.stdin?.end(),
    exited,
    async [Symbol.asyncDispose]() {
      if (!ended) child.kill("SIGKILL");
      await exited.catch(() => {});
    },
  };
}

/** Runs the command to its end, typing each answer once its text has appeared, in order. */
export async function runUnderPty(
  options: PtyOptions & {
    readonly answers?: readonly { readonly expect: RegExp; readonly send: string | Buffer }[];
    readonly timeoutMs?: number;
  },
): Promise<PtyResult> {
  await using process = spawnUnderPty(options);
  for (const { expect, send } of options.answers ?? []) {
    await process.expect(expect, options.timeoutMs);
    process.send(send);
  }
  return await process.exited;
}
