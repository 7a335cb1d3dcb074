/*
 * The local terminal in raw mode while a CMD with a terminal runs, by stty(1). Node's own setRawMode leaves output processing
 * on, which puts a carriage return before every line feed and breaks what full-screen programs draw. It must never leave the
 * terminal raw.
 */
import { spawnSync } from "node:child_process";

const RAW = ["raw", "-echo", "-iexten"];
/** What `stty -g` prints: POSIX promises no white space in it, and it begins no option. */
const SAVED = /^[0-9A-Za-z:=]{1,500}$/;

function stty(words: readonly string[]): string | null {
  const done = spawnSync("stty", words, { stdio: ["inherit", "pipe", "ignore"], encoding: "utf8" });
  return done.status === 0 ? done.stdout.trim() : null;
}

/** Makes the terminal on stdin raw; the answer puts it back as it was, and null means that stty could not do it. */
export function enterRawMode(): (() => void) | null {
  const saved = stty(["-g"]);
  if (saved === null || !SAVED.test(saved) || stty(RAW) === null) return null;
  return () => void stty([saved]);
}
