/*
 * `npm run demo` does what it says, ends with 0 and leaves no file, and ends cleanly when it is interrupted.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";

const DEMO = fileURLToPath(new URL("../demo/demo.mjs", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "tfwd-d-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

interface Ended {
  readonly code: number | null;
  readonly output: string;
}

/** Runs the demo with a temporary directory of its own; `interruptAt` sends SIGINT when that was printed. */
async function runDemo(interruptAt?: RegExp): Promise<Ended> {
  const child = spawn(process.execPath, [DEMO], { env: { ...process.env, TMPDIR: temporary }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let interrupted = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
      if (interrupted || interruptAt?.test(output) !== true) return;
      interrupted = true;
      child.kill("SIGINT");
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { code, output };
}

it("signs on a bastion twice and for one command, and leaves nothing", async () => {
  const { code, output } = await runDemo();
  expect(output).toContain("Everything is cleaned up.");
  expect(output.match(/Verified OK/g)).toHaveLength(3);
  expect(output).toContain("nothing is left on the bastion");
  expect(code).toBe(0);
  expect(readdirSync(temporary)).toEqual([]);
});

it("leaves nothing when it is interrupted while connected", async () => {
  const { code } = await runDemo(/the well-known path/);
  expect(code).toBe(130);
  expect(readdirSync(temporary)).toEqual([]);
});
