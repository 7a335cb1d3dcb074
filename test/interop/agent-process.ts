/*
 * The two servers that tests compare, as processes: our `tokenfwd agent run` and stock `p11-kit server`, each on a socket in
 * a temporary directory. Whoever starts one must dispose of it; the process ends by its id, never by its name.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { SoftHsm } from "../support/softhsm.js";

/** What is needed of a token to serve it: also true of a copy of one. */
export type ServedToken = Pick<SoftHsm, "env" | "modulePath" | "pin">;

/** The built program. `npm test` builds it before the tests start. */
export const TOKENFWD = fileURLToPath(new URL("../../bin/tokenfwd.js", import.meta.url));

function findClient(): string {
  const places = readdirSync("/usr/lib").filter((name) => name.endsWith("-linux-gnu"));
  for (const place of places) {
    const path = `/usr/lib/${place}/pkcs11/p11-kit-client.so`;
    try {
      readFileSync(path);
      return path;
    } catch {
      // not this architecture
    }
  }
  throw new Error("p11-kit-client.so is not installed; run npm run setup");
}

/** Stock p11-kit's client module. */
export const P11KIT_CLIENT = findClient();

export interface ServerProcess {
  readonly pid: number;
  readonly socket: string;
  /** The value of P11_KIT_SERVER_ADDRESS. */
  readonly address: string;
  stdout(): string;
  stderr(): string;
  /** Resolves when stderr holds what is looked for, rejects when the process ends first. */
  waitFor(pattern: RegExp): Promise<void>;
  /** Ends the process by SIGTERM and answers how it ended. Safe to call twice. */
  stop(): Promise<{ readonly code: number | null; readonly signal: string | null }>;
  /** Stops, and removes the temporary directory. */
  dispose(): Promise<void>;
}

function supervise(child: ChildProcess, dir: string, socket: string): ServerProcess {
  const text = { stdout: "", stderr: "" };
  const watchers = new Set<() => void>();
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once("error", (error) => {
      text.stderr += error.message;
      resolve({ code: null, signal: null });
    });
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (chunk: string) => {
      text[name] += chunk;
      for (const watcher of [...watchers]) watcher();
    });
  }
  const stop = async () => {
    child.kill("SIGTERM");
    return await ended;
  };
  return {
    pid: child.pid ?? -1,
    socket,
    address: `unix:path=${socket}`,
    stdout: () => text.stdout,
    stderr: () => text.stderr,
    async waitFor(pattern) {
      await new Promise<void>((resolve, reject) => {
        const watcher = () => {
          if (!pattern.test(text.stderr) && !pattern.test(text.stdout)) return;
          watchers.delete(watcher);
          resolve();
        };
        watchers.add(watcher);
        watcher();
        void ended.then(({ code, signal }) =>
          reject(new Error(`ended with ${code ?? signal} before ${pattern}: ${text.stderr}${text.stdout}`)),
        );
      });
    },
    stop,
    async dispose() {
      await stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export interface AgentProcessOptions {
  readonly token: ServedToken;
  /** `file`: the token's PIN from a file of mode 0600. `client`: the PIN that a client sends. `ask`: by TOKENFWD_PINENTRY of the token's env. */
  readonly pin: "file" | "client" | "ask";
  /** Further arguments. `--key all` unless --key is among them. */
  readonly args?: readonly string[];
}

/** Starts our agent and waits until it listens. */
export async function startAgent(options: AgentProcessOptions): Promise<ServerProcess> {
  const { token, pin, args = [] } = options;
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-agent-"));
  const socket = join(dir, "s");
  writeFileSync(join(dir, "pin"), `${token.pin}\n`, { mode: 0o600 });
  const source = pin === "file" ? `file:${join(dir, "pin")}` : pin;
  const key = args.includes("--key") ? [] : ["--key", "all"];
  const words = ["agent", "run", "--module", token.modulePath, "--socket", socket, "--pin-source", source, ...key, ...args];
  // In a session of its own there is no terminal to ask on, wherever the tests run.
  const child = spawn(process.execPath, [TOKENFWD, ...words], {
    env: token.env,
    stdio: ["ignore", "pipe", "pipe"],
    detached: pin === "ask",
  });
  const server = supervise(child, dir, socket);
  try {
    await server.waitFor(/listening on/);
  } catch (error) {
    await server.dispose();
    throw error;
  }
  return server;
}

/** Starts stock p11-kit's server on the token and waits until it listens. */
export async function startStockServer(token: ServedToken): Promise<ServerProcess> {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-stock-"));
  const socket = join(dir, "s");
  const words = ["server", "--foreground", "--provider", token.modulePath, "--name", socket, "pkcs11:"];
  const child = spawn("p11-kit", words, { env: token.env, stdio: ["ignore", "pipe", "pipe"] });
  const server = supervise(child, dir, socket);
  try {
    await server.waitFor(/P11_KIT_SERVER_ADDRESS/);
  } catch (error) {
    await server.dispose();
    throw error;
  }
  return server;
}

/** Resident memory of a process in bytes, with that of its children. */
export function residentBytes(pid: number): number {
  const of = (id: number): number => {
    const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"));
    return Number(line?.[1] ?? 0) * 1024;
  };
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
  return of(pid) + children.reduce((sum, child) => sum + residentBytes(child), 0);
}
