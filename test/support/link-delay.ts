/*
 * A workstation and a bastion at the two ends of a link with an exact round-trip time, made of test/support/link-delay.c.
 * It must never touch the machine's own network; everything is gone after dispose. Linux, root and /dev/net/tun only.
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createNamespaces, namespacesMissing } from "./namespaces.js";

const SOURCE = fileURLToPath(new URL("./link-delay.c", import.meta.url));

/** What has passed since the last count. */
export interface LinkCount {
  /** TCP segments with data that the workstation, and the bastion, have sent. */
  readonly fromWorkstation: number;
  readonly fromBastion: number;
  /** How often the direction of such segments turned: two are one round trip, as long as one thing happens at a time. */
  readonly flights: number;
  readonly dropped: number;
  /** How much later than it should the latest packet left, in microseconds. */
  readonly lateUs: number;
}

export interface DelayedLink extends AsyncDisposable {
  /** Words in front of a program that shall run on the workstation or the bastion; they end in an exec. */
  readonly onWorkstation: readonly string[];
  readonly onBastion: readonly string[];
  /** Their addresses on the delayed link. */
  readonly workstationAddress: string;
  readonly bastionAddress: string;
  /** Half of it each way. Holds for packets that enter from now on. */
  setRttMs(ms: number): Promise<void>;
  count(): Promise<LinkCount>;
  /** Safe to call twice. */
  dispose(): Promise<void>;
}

/** Why no such link can be made here, or null when one can. */
export function delayedLinkMissing(): string | null {
  const missing = namespacesMissing();
  if (missing !== null) return missing;
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
    execFileSync("cc", ["--version"], { stdio: "ignore" });
    return null;
  } catch (error) {
    return `no delayed link can be made here: ${(error as Error).message}`;
  }
}

/** One line of answer for each line of command, in order. */
function createDialogue(child: ChildProcessWithoutNullStreams): { next(): Promise<string>; ask(line: string): Promise<string> } {
  const waiting: { resolve(line: string): void; reject(error: Error): void }[] = [];
  const ready: string[] = [];
  let complaint = "";
  let ended = false;
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint += text;
  });
  // The next write tells of a pipe that is closed; `close` tells why.
  child.stdin.on("error", () => {});
  createInterface({ input: child.stdout }).on("line", (line) => {
    const first = waiting.shift();
    if (first === undefined) ready.push(line);
    else first.resolve(line);
  });
  child.once("close", () => {
    ended = true;
    for (const one of waiting.splice(0)) one.reject(new Error(`link-delay has ended: ${complaint}`));
  });
  const next = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const line = ready.shift();
      if (line !== undefined) resolve(line);
      else if (ended) reject(new Error(`link-delay has ended: ${complaint}`));
      else waiting.push({ resolve, reject });
    });
  return {
    next,
    ask(line) {
      child.stdin.write(`${line}\n`);
      return next();
    },
  };
}

/** Makes it, with no delay yet. */
export async function createDelayedLink(): Promise<DelayedLink> {
  const network = createNamespaces();
  const dir = mkdtempSync(join(tmpdir(), "tfwd-delay-"));
  const program = join(dir, "link-delay");
  let child: ChildProcessWithoutNullStreams | null = null;
  const dispose = async (): Promise<void> => {
    const running = child;
    child = null;
    if (running !== null && running.exitCode === null && running.signalCode === null) {
      const exited = new Promise<void>((resolve) => running.once("close", () => resolve()));
      running.stdin.end();
      await exited;
    }
    network.dispose();
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    execFileSync("cc", ["-O2", "-Wall", "-o", program, SOURCE], { stdio: ["ignore", "ignore", "pipe"] });
    child = spawn(program, [network.workstation, network.bastion], { stdio: ["pipe", "pipe", "pipe"] });
    const link = createDialogue(child);
    await link.next();
    const ip = (...words: string[]) => execFileSync("ip", words, { stdio: ["ignore", "ignore", "pipe"] });
    for (const [name, near, far] of [
      [network.workstation, "203.0.113.1", "203.0.113.2"],
      [network.bastion, "203.0.113.2", "203.0.113.1"],
    ] as const) {
      ip("-n", name, "address", "add", near, "peer", far, "dev", "delay0");
      ip("-n", name, "link", "set", "delay0", "up");
    }
    return {
      onWorkstation: network.onWorkstation,
      onBastion: network.onBastion,
      workstationAddress: "203.0.113.1",
      bastionAddress: "203.0.113.2",
      async setRttMs(ms) {
        await link.ask(`delay ${Math.round(ms * 500)}`);
      },
      async count() {
        const line = await link.ask("count");
        const [fromWorkstation = 0, fromBastion = 0, flights = 0, dropped = 0, lateUs = 0] = line.split(" ").map(Number);
        return { fromWorkstation, fromBastion, flights, dropped, lateUs };
      },
      dispose,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}
