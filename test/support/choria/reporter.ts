/*
 * A vitest reporter: builds the real choria before the first test when a file of the run wants it, because a build beside tests
 * with deadlines would make them fail, and says so when the real choria cannot be tried. It must never fail a run.
 */
import { readFileSync } from "node:fs";
import type { Reporter, TestSpecification } from "vitest/node";
import { choriaProgram, tellMissing } from "./program.js";

const WANTS = /support\/choria\//;

/** See the head comment. */
export default class ChoriaReporter implements Reporter {
  async onTestRunStart(specifications: readonly TestSpecification[]): Promise<void> {
    if (!specifications.some(({ moduleId }) => WANTS.test(readFileSync(moduleId, "utf8")))) return;
    const found = await choriaProgram(() => process.stdout.write("building the real choria, once: a minute or two\n"));
    if ("path" in found) return;
    tellMissing(found.missing);
    process.stdout.write(`the real choria is not tried: ${found.missing}\n`);
  }
}
