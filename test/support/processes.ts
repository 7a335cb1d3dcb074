/*
 * Looks at the processes of this machine by their arguments, to see what was left behind. It must never end one.
 */
import { readdirSync, readFileSync } from "node:fs";

export interface SeenProcess {
  readonly pid: number;
  /** The words of its command line with a space after each. */
  readonly words: string;
}

/**
 * The processes that have `text` in their arguments, and `inEnvironment` in the environment that they were started with: other tests,
 * which run at the same time, start the same programs.
 */
export function processesNaming(text: string, inEnvironment = ""): SeenProcess[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const words = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ");
        const isMeant = words.includes(text) && readFileSync(`/proc/${name}/environ`, "utf8").includes(inEnvironment);
        return isMeant ? [{ pid: Number(name), words }] : [];
      } catch {
        return []; // ended meanwhile
      }
    });
}

/** The children of a process that are there now. */
export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
