/*
 * The processes that sign for the bench. Each gets ready, waits to be released, signs and tells how long each signature took,
 * over lines on its pipes, so that all kinds are driven alike. It must end every process that it starts.
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { CleanUps } from "./clean-ups.js";
import { cpuSeconds, quantile, withDescendants } from "./stats.js";

const INCLUDES = fileURLToPath(new URL("../../node_modules/pkcs11js/includes", import.meta.url));
const RPC_CALLER = fileURLToPath(new URL("./rpc-caller.mjs", import.meta.url));
const BARE_CHAIN = fileURLToPath(new URL("./bare-chain.mjs", import.meta.url));

export type Algorithm = "rsa" | "ec";
/** The ids of the two keys on the token of test/support/softhsm.ts. */
export const KEY_IDS: Readonly<Record<Algorithm, string>> = { rsa: "01", ec: "02" };

/** What they are called in the tables. */
export const KEY_NAMES: Readonly<Record<Algorithm, string>> = { rsa: "RSA-2048", ec: "P-256" };

/** One process that signs. */
export interface Caller {
  readonly pid: number;
  /** Signs for so many seconds, or so many times. Answers how many and how long it took. */
  run(what: { readonly seconds: number } | { readonly times: number }): Promise<{ count: number; seconds: number }>;
  /** Milliseconds of each signature of the last run. */
  latencies(): Promise<number[]>;
  end(): Promise<void>;
}

/** What a set of callers that were released together has done. */
export interface Measured {
  readonly perSecond: number;
  readonly medianMs: number;
  readonly p95Ms: number;
  /** Processor time of the callers and of all of `servers`, per signature. */
  readonly cpuMs: number;
  readonly signatures: number;
}

export interface CallerOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly within?: readonly string[];
  readonly pin?: string;
}

/** Starts a process that speaks the callers' lines and waits until it is ready to sign. */
async function startCaller(words: readonly string[], options: CallerOptions): Promise<Caller> {
  const [program = "", ...args] = [...(options.within ?? []), ...words];
  const child: ChildProcessWithoutNullStreams = spawn(program, args, { env: options.env, stdio: ["pipe", "pipe", "pipe"] });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint += text;
  });
  const waiting: { resolve(line: string): void; reject(error: Error): void }[] = [];
  let ended = false;
  const failed = () => new Error(`${words.slice(0, 2).join(" ")} has ended: ${complaint}`);
  const closed = new Promise<void>((resolve) => {
    const over = (error?: Error) => {
      complaint += error?.message ?? "";
      ended = true;
      for (const one of waiting.splice(0)) one.reject(failed());
      resolve();
    };
    child.once("error", over);
    child.once("close", () => over());
  });
  // Writing to one that has ended: `close` tells why.
  child.stdin.on("error", () => {});
  createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()?.resolve(line));
  const ask = (line: string): Promise<string> =>
    new Promise((resolve, reject) => {
      if (ended) return reject(failed());
      waiting.push({ resolve, reject });
      child.stdin.write(`${line}\n`);
    });
  const ready = await ask(options.pin ?? "");
  if (ready !== "ready") throw new Error(`${words[0]} said ${ready}`);
  return {
    pid: child.pid ?? -1,
    async run(what) {
      const answer = await ask("seconds" in what ? `go ${what.seconds}` : `times ${what.times}`);
      const [, count = "0", ns = "0"] = /^done (\d+) (\d+)$/.exec(answer) ?? [];
      if (count === "0") throw new Error(`no signature: ${answer} ${complaint}`);
      return { count: Number(count), seconds: Number(ns) / 1e9 };
    },
    latencies: async () =>
      (await ask("tell"))
        .trim()
        .split(" ")
        .map((ns) => Number(ns) / 1e6),
    async end() {
      child.stdin.end();
      await closed;
    },
  };
}

/** Builds a C program of this directory and answers its path. */
export function buildProgram(name: "sign-loop" | "come-and-go", dir: string): string {
  const program = join(dir, name);
  const source = fileURLToPath(new URL(`./${name}.c`, import.meta.url));
  execFileSync("cc", ["-O2", "-Wall", "-I", INCLUDES, "-o", program, source, "-ldl"], { stdio: ["ignore", "ignore", "pipe"] });
  return program;
}

/** A C program on a PKCS#11 module: p11-kit-client.so (its server by P11_KIT_SERVER_ADDRESS in `env`) or the token's own. */
export function startModuleCaller(
  program: string,
  module: string,
  token: string,
  algorithm: Algorithm,
  options: CallerOptions,
): Promise<Caller> {
  return startCaller([program, module, token, KEY_IDS[algorithm], algorithm], options);
}

/** Our client library on one connection with `inFlight` signatures under way, by `sign` or by `call`. */
export function startRpcCaller(
  socket: string,
  algorithm: Algorithm,
  how: "sign" | "call",
  inFlight: number,
  options: CallerOptions,
): Promise<Caller> {
  return startCaller([process.execPath, RPC_CALLER, socket, KEY_IDS[algorithm], algorithm, how, String(inFlight)], options);
}

/** Three Node processes with the module behind them and nothing of ours in between (bare-chain.mjs). */
export function startBareChain(
  module: string,
  token: string,
  algorithm: Algorithm,
  inFlight: number,
  options: CallerOptions,
): Promise<Caller> {
  return startCaller([process.execPath, BARE_CHAIN, module, token, KEY_IDS[algorithm], algorithm, String(inFlight)], options);
}

/** Starts so many, one after the other: SoftHSM cannot stand several processes that start on one token at once. */
export async function startMany(n: number, start: () => Promise<Caller>, cleanUps: CleanUps): Promise<Caller[]> {
  const started: Caller[] = [];
  while (started.length < n) {
    const caller = await start();
    cleanUps.add(() => caller.end());
    started.push(caller);
  }
  return started;
}

/** Releases the callers together and waits for all. `servers` are the processes whose time counts too, with their children. */
export async function measure(callers: readonly Caller[], servers: readonly number[], seconds: number): Promise<Measured> {
  const pids = withDescendants([...servers, ...callers.map((caller) => caller.pid)]);
  const before = cpuSeconds(pids);
  const runs = await Promise.all(callers.map((caller) => caller.run({ seconds })));
  const cpu = cpuSeconds(pids) - before;
  const all: number[] = [];
  for (const caller of callers) for (const one of await caller.latencies()) all.push(one);
  const sorted = Float64Array.from(all).sort();
  const signatures = runs.reduce((sum, run) => sum + run.count, 0);
  return {
    perSecond: runs.reduce((sum, run) => sum + run.count / run.seconds, 0),
    medianMs: quantile(sorted, 0.5),
    p95Ms: quantile(sorted, 0.95),
    cpuMs: (cpu * 1000) / signatures,
    signatures,
  };
}
