/*
 * The real choria, built once from ./program and kept in a cache folder: $TOKENFWD_CHORIA_CACHE, else `tokenfwd-choria` in the
 * user's cache directory. What is kept is named by the sources and the compiler, so a change of either builds anew. It must never
 * fetch a compiler, and never leave half a program under a name that is looked for.
 */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const SOURCES = fileURLToPath(new URL("program", import.meta.url));
/** Why there is none, told by the reporter to the processes that run the tests, so that each does not find out again. */
const TOLD = "TOKENFWD_TEST_CHORIA_MISSING";
const GO_AT_LEAST = [1, 25] as const;
const BUILD_LIMIT_MS = 900_000;
const KEEP_DAYS = 30;
const FLAGS = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"];

export type ChoriaProgram = { readonly path: string } | { readonly missing: string };

/** The compiler and what it calls itself, or why there is none. */
function findGo(): { readonly go: string; readonly version: string } | { readonly missing: string } {
  const places = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin"].filter((dir) => dir !== "");
  const go = places.map((dir) => join(dir, "go")).find((file) => existsSync(file));
  const wanted = `Go ${GO_AT_LEAST.join(".")} or newer`;
  if (go === undefined) return { missing: `${wanted} is not installed` };
  const version = execFileSync(go, ["version"], { encoding: "utf8", env: { ...process.env, GOTOOLCHAIN: "local" } }).trim();
  const [, major = "0", minor = "0"] = /go(\d+)\.(\d+)/.exec(version) ?? [];
  const newEnough = Number(major) > GO_AT_LEAST[0] || (Number(major) === GO_AT_LEAST[0] && Number(minor) >= GO_AT_LEAST[1]);
  return newEnough ? { go, version } : { missing: `${wanted} is needed, this is ${version}` };
}

function sourcesHash(version: string): string {
  const hash = createHash("sha256").update(`${version}\0${FLAGS.join(" ")}\0`);
  const files = readdirSync(SOURCES, { recursive: true, encoding: "utf8" }).filter((name) => statSync(join(SOURCES, name)).isFile());
  for (const name of files.sort()) hash.update(`${name}\0`).update(readFileSync(join(SOURCES, name)));
  return hash.digest("hex").slice(0, 16);
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** Takes the lock, or waits until whoever has it is done or dead. True when we have it. */
async function lock(file: string): Promise<boolean> {
  try {
    writeFileSync(file, `${process.pid}\n`, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const until = Date.now() + BUILD_LIMIT_MS;
  while (existsSync(file) && Date.now() < until) {
    const pid = Number(readFileSync(file, "utf8").trim());
    if (pid > 0 && !isAlive(pid)) rmSync(file, { force: true });
    else await delay(250);
  }
  return false;
}

/** Builds into `target`, which is there only when it is whole. Rejects with what the compiler said last. */
async function build(go: string, target: string): Promise<void> {
  const half = `${target}.${process.pid}`;
  const env = { ...process.env, GOFLAGS: "", GOTOOLCHAIN: "local", CGO_ENABLED: "1" };
  try {
    await new Promise<void>((resolve, reject) => {
      execFile(go, ["build", ...FLAGS, "-o", half, "."], { cwd: SOURCES, env, timeout: BUILD_LIMIT_MS }, (error, _, stderr) => {
        if (error === null) resolve();
        else reject(new Error(`choria cannot be built: ${stderr.trim().split("\n").at(-1) || error.message}`));
      });
    });
    chmodSync(half, 0o755);
    renameSync(half, target);
  } finally {
    rmSync(half, { force: true });
  }
}

/** Removes what nobody has used for a month. */
function tidy(cache: string): void {
  const limit = Date.now() - KEEP_DAYS * 86_400_000;
  for (const name of readdirSync(cache).filter((one) => one.startsWith("choria-"))) {
    if (statSync(join(cache, name)).mtimeMs < limit) rmSync(join(cache, name), { force: true });
  }
}

async function findProgram(building: () => void): Promise<ChoriaProgram> {
  const told = process.env[TOLD];
  if (told !== undefined) return { missing: told };
  const cache = process.env["TOKENFWD_CHORIA_CACHE"] ?? join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "tokenfwd-choria");
  try {
    const found = findGo();
    if ("missing" in found) return found;
    const path = join(cache, `choria-${sourcesHash(found.version)}`);
    mkdirSync(cache, { recursive: true });
    while (!existsSync(path)) {
      if (!(await lock(`${path}.lock`))) continue;
      try {
        if (existsSync(path)) break;
        building();
        await build(found.go, path);
        tidy(cache);
      } finally {
        rmSync(`${path}.lock`, { force: true });
      }
    }
    utimesSync(path, new Date(), new Date());
    return { path };
  } catch (error) {
    return { missing: error instanceof Error ? error.message : String(error) };
  }
}

let program: Promise<ChoriaProgram> | undefined;

/** Where the real choria is, or why it cannot be tried here. Builds it when it must, once for all processes; `building` is told. */
export function choriaProgram(building: () => void = () => {}): Promise<ChoriaProgram> {
  program ??= findProgram(building);
  return program;
}

/** For `describe.skipIf(!(await choriaAvailable()))`; each test that may be skipped so has its line in test/skips.txt. */
export async function choriaAvailable(): Promise<boolean> {
  return "path" in (await choriaProgram());
}

/** Lets the processes that this one starts know that there is none. */
export function tellMissing(why: string): void {
  process.env[TOLD] = why;
}
