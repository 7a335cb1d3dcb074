/* A trace that is being taken, when its decoder fails: the streams know nothing of it, and the file and its owner do. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startTracing } from "../../../src/trace/tracing.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-tracing-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A decoder's thread that does what it is given. */
function program(text: string): string {
  const path = join(dir, "thread.mjs");
  writeFileSync(path, `import { parentPort } from "node:worker_threads";\n${text}\n`);
  return path;
}

async function tracingWith(text: string) {
  const path = join(dir, "trace");
  const failures: string[] = [];
  let failed = (): void => {};
  const failure = new Promise<void>((resolve) => {
    failed = resolve;
  });
  const onFailure = (why: string): void => {
    failures.push(why);
    failed();
  };
  const tracing = startTracing({ path, data: false, of: { test: true }, onFailure, program: program(text) });
  return { tracing, failures, failure, lines: () => readFileSync(path, "utf8").trimEnd().split("\n") };
}

test("a decoder that crashes is told of once, in the file too, and the tap goes on taking bytes", async () => {
  const { tracing, failures, failure, lines } = await tracingWith('parentPort.on("message", () => { throw new RangeError("a bug"); });');
  const tap = tracing.tap({ kind: "test" });
  tap.bytes("client", Buffer.alloc(200_000));
  await failure;
  for (let index = 0; index < 100; index++) tap.bytes("client", Buffer.alloc(200_000));
  tap.closed("client");
  tracing.tap({ kind: "test" }).bytes("server", Buffer.alloc(10));
  expect(await tracing.close()).toBeNull();
  expect(failures).toEqual(["the decoder has ended: RangeError"]);
  const [header, note, ...more] = lines().map((line) => JSON.parse(line) as unknown);
  expect(header).toMatchObject({ tokenfwdTrace: 1, of: { test: true }, data: false });
  expect(note).toMatchObject({ kind: "note", c: 0, level: "lost", text: "the decoder has ended: RangeError" });
  expect(more).toEqual([]);
});

test("a decoder that runs out of memory is one that has ended", async () => {
  const { tracing, failures, failure } = await tracingWith(
    'parentPort.on("message", () => { const all = []; for (;;) all.push(new Array(1000).fill(all.length)); });',
  );
  tracing.tap({ kind: "test" }).bytes("client", Buffer.alloc(200_000));
  await failure;
  expect(failures).toEqual(["the decoder has ended: ERR_WORKER_OUT_OF_MEMORY"]);
  expect(await tracing.close()).toBeNull();
});

test("a decoder that never answers does not keep whoever closes the trace", async () => {
  const { tracing } = await tracingWith('parentPort.on("message", () => {});');
  tracing.tap({ kind: "test" }).bytes("client", Buffer.alloc(10));
  const begun = performance.now();
  expect(await tracing.close()).toBeNull();
  expect(performance.now() - begun).toBeLessThan(8000);
});
