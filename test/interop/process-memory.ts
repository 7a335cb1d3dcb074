/*
 * Looks for bytes in the whole memory of a running process, as in a core dump of it, without writing one. It stops nothing,
 * so a test must do it when the process is idle.
 */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const CHUNK = 1 << 20;

/** How often `needle` occurs in the readable memory of the process. Needs the right to trace it: a child of ours, or root. */
export function countInMemory(pid: number, needle: Buffer): number {
  const maps = readFileSync(`/proc/${pid}/maps`, "utf8").trim().split("\n");
  const memory = openSync(`/proc/${pid}/mem`, "r");
  const buffer = Buffer.alloc(CHUNK + needle.length);
  let found = 0;
  try {
    for (const line of maps) {
      const match = /^([0-9a-f]+)-([0-9a-f]+) r\S+ (?:\S+\s+){3}(.*)$/.exec(line);
      // What is mapped from the kernel cannot be read, and holds nothing of the process.
      if (match === null || /^\[v(var|syscall|dso)/.test(match[3] ?? "")) continue;
      const end = BigInt(`0x${match[2]}`);
      for (let at = BigInt(`0x${match[1]}`); at < end; at += BigInt(CHUNK)) {
        // A little more than a chunk, so that what lies across its end is seen; once, by where it begins.
        const want = Number(end - at < BigInt(buffer.length) ? end - at : BigInt(buffer.length));
        let got = 0;
        try {
          got = readSync(memory, buffer, 0, want, at);
        } catch {
          continue; // a guard page, or one that went away
        }
        for (let index = buffer.indexOf(needle); index >= 0 && index < Math.min(CHUNK, got); index = buffer.indexOf(needle, index + 1))
          found++;
        buffer.fill(0);
      }
    }
  } finally {
    closeSync(memory);
  }
  return found;
}

/** The direct children of a process. */
export function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
}
