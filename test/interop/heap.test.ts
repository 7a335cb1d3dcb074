/*
 * How the heap of a long-lived process is kept: small, and faster while signatures come fast. V8's flags are those of a whole
 * process, so each case is one.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const HEAP = fileURLToPath(new URL("../../dist/base/heap.js", import.meta.url));

/**
 * Megabytes of the young generation, both halves, after work that leaves much alive, in 100 turns of 5 ms,
 * each `everyTurns` of which notes `perTurn` signatures. */
function youngMegabytes(perTurn: number, everyTurns = 1): number {
  const program = `
    import { getHeapSpaceStatistics } from "node:v8";
    import { setTimeout as delay } from "node:timers/promises";
    import { keepHeapSmall, noteSignature } from ${JSON.stringify(HEAP)};
    keepHeapSmall();
    let kept = [];
    for (let turn = 0; turn < 100; turn++) {
      for (let n = 0; turn % ${everyTurns} === 0 && n < ${perTurn}; n++) {
        noteSignature();
        for (let i = 0; i < 20; i++) kept.push({ turn, list: [n, i] });
      }
      for (let i = 0; i < 2000; i++) kept.push({ turn, list: [i] });
      kept = kept.slice(-20000);
      await delay(5);
    }
    console.log(getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space").space_size / 1048576);`;
  const text = execFileSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
  return Number(text);
}

it("keeps the young generation as small as it was where few signatures are made", () => {
  expect(youngMegabytes(0)).toBeLessThanOrEqual(2);
  expect(youngMegabytes(1, 5)).toBeLessThanOrEqual(2);
});

it("lets it grow to 4 MB, twice, and no further while there are many", () => {
  expect(youngMegabytes(500)).toBe(8);
});
