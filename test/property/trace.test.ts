/* The decoder of a trace, fuzzed for a moment with a seed that stays; test/long/fuzz.test.ts does it for minutes with new ones. */
import { expect, it } from "vitest";
import { traceTarget } from "./fuzz-trace.js";
import { fuzz } from "./fuzz-wires.js";

it("a trace reads on through damaged streams, and throws nothing", async () => {
  const { streams } = await fuzz(traceTarget(), 20_261_127, 2_000);
  expect(streams).toBeGreaterThan(300);
});

it("undamaged streams are read without a fault, so that damage is what is tested", async () => {
  const target = traceTarget();
  for (const [index, stream] of target.streams.entries()) await target.feed([Buffer.from(stream)], index);
});
