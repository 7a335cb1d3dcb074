/*
 * What readClientConfig wants to know of this machine: its files, its working directory as a shell sees it, the user's home. For
 * whoever runs choria here. It must never follow what choria would not.
 */
import { statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { hostname } from "node:os";
import type { ReadClientConfigOptions, ReadFile } from "./client-config.js";
import type { Look } from "./finding.js";

/** Far more than any configuration; choria has no limit. */
const MAX_BYTES = 1024 * 1024;

/** Reads this machine's files. */
export const readHere: ReadFile = async (path) => {
  try {
    const text = await readFile(path);
    if (text.length > MAX_BYTES) throw new Error(`it has more than ${MAX_BYTES} bytes`);
    return text.toString("utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw new Error(code === undefined ? message : (READABLE[code] ?? code));
  }
};

const READABLE: Readonly<Record<string, string>> = { EACCES: "permission denied", EISDIR: "it is a directory" };

/** The working directory as Go finds it: `$PWD` when it names the same directory, else as the kernel has it. */
function workingDirectory(env: Readonly<Record<string, string | undefined>>): string {
  const cwd = process.cwd();
  const claimed = env["PWD"];
  if (claimed === undefined || !claimed.startsWith("/")) return cwd;
  try {
    const [one, other] = [statSync(claimed), statSync(".")];
    return one.dev === other.dev && one.ino === other.ino ? claimed : cwd;
  } catch {
    return cwd;
  }
}

/** The surroundings of a choria that is started by this process. */
export function clientHere(env: Readonly<Record<string, string | undefined>>): Omit<ReadClientConfigOptions, "choriaConfig"> {
  return { home: env["HOME"] || null, cwd: workingDirectory(env), env, read: readHere, root: process.geteuid?.() === 0 };
}

/** The domain of this machine's name, for SRV records where the configuration names none; null when its name has none. */
export function domainHere(): string | null {
  const [, ...rest] = hostname().split(".");
  return rest.length > 0 ? rest.join(".") : null;
}

/** Looks at a file of this machine, for checkConfig. */
export const lookHere: Look = async (path, want) => {
  try {
    const found = await stat(path);
    if (!found.isFile()) return { state: "unreadable", why: "it is not a file" };
    if (found.size > MAX_BYTES && want === "text") return { state: "unreadable", why: `it has more than ${MAX_BYTES} bytes` };
    return { state: "file", bytes: want === "text" ? await readFile(path) : Buffer.alloc(0), mode: found.mode & 0o777 };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return { state: "missing" };
    return { state: "unreadable", why: READABLE[code ?? ""] ?? code ?? message };
  }
};
