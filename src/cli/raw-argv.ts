/*
 * The command after `--` as the bytes it was given. Node decodes argv as UTF-8 and loses every byte that is not; Linux still
 * has them in /proc/self/cmdline. It must never guess: where the bytes cannot be had, a word that lost some is an error.
 */
import { readFileSync } from "node:fs";
import { TokenfwdError } from "../base/errors.js";

/** Our own words, and the command that stood after the first `--`, null when there was no `--`. */
export interface SplitArgv {
  readonly own: readonly string[];
  readonly command: readonly (string | Buffer)[] | null;
}

/** What the kernel holds of our command line, null where it cannot be read. */
function kernelArgv(): readonly Buffer[] | null {
  let text: Buffer;
  try {
    text = readFileSync("/proc/self/cmdline");
  } catch {
    return null;
  }
  const words: Buffer[] = [];
  for (let from = 0; from < text.length; ) {
    const nul = text.indexOf(0, from);
    const to = nul < 0 ? text.length : nul;
    words.push(text.subarray(from, to));
    from = to + 1;
  }
  return words;
}

/** Splits argv (without node and script) at its first `--`. Throws E_USAGE when a word of the command lost bytes for good. */
export function splitArgv(argv: readonly string[], kernel: () => readonly Buffer[] | null = kernelArgv): SplitArgv {
  const at = argv.indexOf("--");
  if (at < 0) return { own: argv, command: null };
  const words = argv.slice(at + 1);
  if (!words.some((word) => word.includes("\u{fffd}"))) return { own: argv.slice(0, at), command: words };
  const raw = kernel()?.slice(-words.length);
  const command = words.map((word, index) => {
    if (!word.includes("\u{fffd}")) return word;
    const bytes = raw?.[index];
    if (bytes === undefined || bytes.toString("utf8") !== word) {
      throw new TokenfwdError("E_USAGE", "a word of the command is not UTF-8 and cannot be passed on byte for byte here", {
        hint: "put the command into a script on the bastion",
      });
    }
    return Buffer.from(bytes);
  });
  return { own: argv.slice(0, at), command };
}
