/*
 * Whether what lies at a path can only have been put there by us or by root: asked before a library that nobody named is
 * loaded, which runs its code, and before a socket is spoken to, which may get a PIN. It looks and changes nothing.
 */
import { readlinkSync, type Stats } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { lstatOrNull } from "./paths.js";

/** Something on the way along a path. */
export interface PathStep {
  readonly path: string;
  /** Of lstat. */
  readonly stats: Stats;
}

export interface PathWay {
  /** Every directory, symbolic link and file that is passed, in the kernel's order; the last is what the path leads to. */
  readonly steps: readonly PathStep[];
  /** What is not there, or cannot be looked at; null when the way has an end. */
  readonly missing: string | null;
}

const MAX_LINKS = 40;

/** The way along a path, by symbolic links in any place. Never throws. */
export function pathWay(path: string): PathWay {
  const steps: PathStep[] = [];
  const rest = ["", ...names(resolve(path))];
  let current = "/";
  for (let links = 0; rest.length > 0; ) {
    const name = rest.shift() ?? "";
    if (name === "..") {
      current = dirname(current);
      continue;
    }
    const at = join(current, name);
    try {
      const stats = lstatOrNull(at);
      if (stats === null) return { steps, missing: at };
      steps.push({ path: at, stats });
      if (!stats.isSymbolicLink()) {
        current = at;
        continue;
      }
      links += 1;
      if (links > MAX_LINKS) return { steps, missing: at };
      const target = readlinkSync(at);
      if (isAbsolute(target)) current = "/";
      rest.unshift(...names(target));
    } catch {
      return { steps, missing: at };
    }
  }
  return { steps, missing: null };
}

function names(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}

/**
 * Why somebody else could have put this here or can change it; null when nobody can. Owners of all on the way may be root
 * and `uid`; no directory and no file may be writable by group or others, save that a directory may be like /tmp, where one
 * cannot replace what others made. With `strict` not the one that holds the file or a link: there others can put a second
 * name of a file of ours. The text is not printable yet.
 */
export function pathFault(path: string, uid: number, strict: boolean): string | null {
  const { steps, missing } = pathWay(path);
  if (missing !== null) return `${missing} does not exist`;
  return stepsFault(steps, uid, strict);
}

/** The same of a way that was walked. */
export function stepsFault(steps: readonly PathStep[], uid: number, strict: boolean): string | null {
  const holders = new Set(strict ? steps.filter(({ stats }) => !stats.isDirectory()).map(({ path }) => dirname(path)) : []);
  for (const { path, stats } of steps) {
    const what = stats.isDirectory() ? `the directory ${path}` : path;
    if (stats.uid !== 0 && stats.uid !== uid) return `${what} belongs to another user (uid ${stats.uid})`;
    const sticky = stats.isDirectory() && (stats.mode & 0o1000) !== 0 && !holders.has(path);
    if ((stats.isDirectory() || stats.isFile()) && (stats.mode & 0o022) !== 0 && !sticky) return `${what} can be written by others`;
  }
  return null;
}
