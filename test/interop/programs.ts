/*
 * Runs one program in three ways (on the module itself, through stock `p11-kit server`, through ours) and compares what it
 * did, line by line. What differs must stand in a differences file with its reason, and what stands there must differ:
 * a list that only grows hides the next fault.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { P11KIT_CLIENT, type ServedToken, type ServerProcess } from "./agent-process.js";

export type WayName = "direct" | "stock" | "ours";

/** How a program reaches the token. */
export interface Way {
  readonly name: WayName;
  readonly modulePath: string;
  readonly env: NodeJS.ProcessEnv;
  /** A directory for what the program writes, this way's own. */
  readonly dir: string;
}

export interface Invocation {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: Buffer;
}

export interface ProgramCase {
  readonly name: string;
  /** Against which ways ours is compared. Default both. */
  readonly against?: readonly ("direct" | "stock")[];
  /** The exit status through ours. Default 0. */
  readonly exit?: number;
  run(way: Way): Invocation;
  /** Reads what the program left in `way.dir`; its answer is one more line of the transcript. */
  check?(way: Way): string;
}

/** What a program did: its exit status, its normalised output, and what `check` said; unordered. */
export type Transcript = readonly string[];

/** The module itself, or p11-kit's client on a server's socket. The directory is removed by the caller with `dir`. */
export function wayTo(name: WayName, token: ServedToken, dir: string, server?: ServerProcess): Way {
  const own = join(dir, name);
  mkdirSync(own);
  const { P11_KIT_SERVER_ADDRESS: _, ...env } = token.env;
  if (server === undefined) return { name, modulePath: token.modulePath, env, dir: own };
  // A token directory that the client side could find would let a fault pass unseen.
  delete env["SOFTHSM2_CONF"];
  return { name, modulePath: P11KIT_CLIENT, env: { ...env, P11_KIT_SERVER_ADDRESS: server.address, XDG_RUNTIME_DIR: own }, dir: own };
}

/** What cannot be the same: slot ids, paths, the module's name, and the point of a key that was just made. */
export function normalise(output: string, way: Pick<Way, "dir" | "modulePath">): string[] {
  return output
    .split(/\r?\n/)
    .map((line) =>
      line
        .replaceAll(way.dir, "DIR")
        .replace(/(EC_POINT: +)[0-9a-f]+/, "$1POINT")
        .replaceAll(way.modulePath, "MODULE")
        .replace(/\b(Slot \d+|present token|slot with index \d+) \(0x[0-9a-f]+\)/g, "$1 (ID)")
        .replace(/^(Object) \d+:/, "$1 N:")
        .replace(/\b[0-9A-F]{10,}:(error:[0-9A-F]+:)/g, "$1")
        // SoftHSM ors into flags that stock's server never set to zero: what shows is a stack byte.
        .replace(/^( {2}(AES|DES3)-ECB,.*), other flags=0x[0-9a-f]+$/, "$1")
        .replace(/^(\s*Module:).*/, "$1")
        .trimEnd(),
    )
    .filter((line) => line !== "");
}

export interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs a program without a terminal, in a session of its own, so that it can ask nobody. Ends it after `timeoutMs`. */
export async function runProgram(invocation: Invocation, env: NodeJS.ProcessEnv, timeoutMs = 30_000): Promise<Outcome> {
  const [program = "", ...args] = invocation.argv;
  const child = spawn(program, args, { env: { ...env, LC_ALL: "C", ...invocation.env }, stdio: ["pipe", "pipe", "pipe"], detached: true });
  const stdout: Buffer[] = [];
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    stderr += chunk;
  });
  child.stdin.on("error", () => undefined); // a program that does not read its input
  child.stdin.end(invocation.input ?? Buffer.alloc(0));
  const timer = setTimeout(() => {
    stderr += `\nstill running after ${timeoutMs} ms`;
    child.kill("SIGKILL");
  }, timeoutMs);
  const { code, signal } = await new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  clearTimeout(timer);
  return { code, signal, stdout: Buffer.concat(stdout), stderr };
}

/** Runs a case one way. */
export async function transcriptOf(one: ProgramCase, way: Way): Promise<Transcript> {
  // What an earlier case wrote must not be taken for this one's.
  for (const name of readdirSync(way.dir)) rmSync(join(way.dir, name), { recursive: true });
  const outcome = await runProgram(one.run(way), way.env);
  const lines = normalise(`${outcome.stdout.toString("utf8")}\n${outcome.stderr}`, way);
  return [`exit ${outcome.code ?? outcome.signal}`, ...lines, ...(one.check === undefined ? [] : [one.check(way)])];
}

/** Lines that only theirs has (`- `) and lines that only ours has (`+ `). */
export function differences(theirs: Transcript, ours: Transcript): string[] {
  const count = new Map<string, number>();
  for (const line of ours) count.set(line, (count.get(line) ?? 0) + 1);
  for (const line of theirs) count.set(line, (count.get(line) ?? 0) - 1);
  return [...count].flatMap(([line, times]) => Array.from({ length: Math.abs(times) }, () => `${times < 0 ? "-" : "+"} ${line}`));
}

/** One block of a differences file: a case, the ways it is compared with, the lines, and why. */
export interface KnownDifference {
  readonly case: string;
  readonly against: readonly string[];
  readonly lines: readonly string[];
  readonly because: string;
}

/**
 * Reads a differences file. A block is `case NAME`, `against direct stock`, lines `- ...` and `+ ...`, `because REASON`, in this
 * order, and an empty line. `-~ REGEX` and `+~ REGEX` stand for one line or more. Throws for a block without a reason.
 */
export function parseDifferences(text: string): KnownDifference[] {
  const blocks = text
    .split("\n")
    .filter((line) => !line.startsWith("#"))
    .join("\n")
    .split(/\n\s*\n/)
    .filter((block) => block.trim() !== "");
  return blocks.map((block) => {
    const lines = block.trim().split("\n");
    const field = (name: string) => lines.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1) ?? "";
    const known = {
      case: field("case"),
      against: field("against").split(" ").filter(Boolean),
      lines: lines.filter((line) => /^[-+]~? /.test(line)),
      because: field("because"),
    };
    if (known.case === "" || known.against.length === 0 || known.lines.length === 0 || known.because === "") {
      throw new Error(`a difference must name its case, its way, its lines and its reason:\n${block}`);
    }
    return known;
  });
}

/** What is seen and not listed, and what is listed and not seen. Both must be empty. */
export function judge(
  caseName: string,
  against: string,
  seen: readonly string[],
  known: readonly KnownDifference[],
): { unlisted: string[]; unseen: string[] } {
  const listed = known.filter((one) => one.case === caseName && one.against.includes(against)).flatMap((one) => one.lines);
  const left = [...seen];
  const unseen: string[] = [];
  const remove = (index: number): void => void left.splice(index, 1);
  for (const line of listed.filter((one) => one[1] !== "~")) {
    const index = left.indexOf(line);
    if (index < 0) unseen.push(line);
    else remove(index);
  }
  for (const line of listed.filter((one) => one[1] === "~")) {
    const pattern = new RegExp(line.slice(3));
    const matches = (one: string) => one[0] === line[0] && pattern.test(one.slice(2));
    if (!left.some(matches)) unseen.push(line);
    for (let index = left.findIndex(matches); index >= 0; index = left.findIndex(matches)) remove(index);
  }
  return { unlisted: left, unseen };
}

/** A copy of a token's files in a directory of its own, to be changed without touching the first. */
export function copyToken(token: ServedToken & { readonly dir: string }): ServedToken & { readonly dir: string; dispose(): void } {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-copy-"));
  cpSync(join(token.dir, "tokens"), join(dir, "tokens"), { recursive: true });
  const configFile = join(dir, "softhsm2.conf");
  writeFileSync(configFile, `directories.tokendir = ${join(dir, "tokens")}\nobjectstore.backend = file\nlog.level = ERROR\n`);
  return {
    dir,
    env: { ...token.env, SOFTHSM2_CONF: configFile },
    modulePath: token.modulePath,
    pin: token.pin,
    dispose: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/** One hash over the names and bytes of all files of a token: the same as before means that nothing was changed. */
export function tokenHash(token: { readonly dir: string }): string {
  const hash = createHash("sha256");
  const visit = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const inner = join(path, entry.name);
      hash.update(`${entry.name}\0`);
      if (entry.isDirectory()) visit(inner);
      else hash.update(readFileSync(inner));
    }
  };
  visit(join(token.dir, "tokens"));
  return hash.digest("hex");
}
