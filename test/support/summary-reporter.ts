/*
 * A vitest reporter: prints `N passed, N failed, N skipped` as the very last line, so that a machine can count, and in CI
 * fails the run for a skipped test that test/skips.txt does not list with a reason. It must never hide a failure: a file
 * that cannot be collected and an unhandled error each count as one failed.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Reporter, SerializedError, TestModule } from "vitest/node";

const SKIPS = fileURLToPath(new URL("../skips.txt", import.meta.url));

/** The full names that may be skipped. Throws for a line without a reason. */
export function parseSkips(text: string): ReadonlySet<string> {
  const names = new Set<string>();
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const [name, reason] = line.split(/ {2,}# /);
    if (name === undefined || reason === undefined || reason.trim() === "") throw new Error(`test/skips.txt: no reason: ${line}`);
    names.add(name.trim());
  }
  return names;
}

/** See the head comment. */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    let passed = 0;
    let failed = unhandled.length;
    let skipped = 0;
    const allowed = parseSkips(readFileSync(SKIPS, "utf8"));
    const notAllowed: string[] = [];
    for (const module of modules) {
      failed += module.errors().length;
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const state = test.result().state;
        if (state === "passed") passed++;
        else if (state === "failed") failed++;
        else {
          skipped++;
          if (!allowed.has(test.fullName)) notAllowed.push(test.fullName);
        }
      }
    }
    // In the exit handler, because the other reporters print their own summary at the same time as this hook runs.
    process.once("exit", () => {
      if (notAllowed.length > 0 && process.env["CI"] === "true") {
        for (const name of notAllowed) process.stdout.write(`skipped without a line in test/skips.txt: ${name}\n`);
        process.exitCode = 1;
      }
      process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
    });
  }
}
