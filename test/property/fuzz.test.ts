/*
 * Both wires' decoders, fuzzed for a moment with seeds that stay: a run in CI says the same twice. test/long does it for
 * minutes with new ones.
 */
import { expect, it } from "vitest";
import { type FuzzTarget, fuzz, p11kitClientTarget, p11kitServerTarget, rpcClientTarget, rpcServerTarget } from "./fuzz-wires.js";

const TARGETS = [rpcServerTarget, rpcClientTarget, p11kitServerTarget, p11kitClientTarget].map((make) => make());

it.each(TARGETS.map((target) => [target.name, target] as const))("%s lives through damaged streams", async (_name, target) => {
  const { streams } = await fuzz(target, 20_261_123, 700);
  expect(streams).toBeGreaterThan(300);
});

it("understands its own streams before they are damaged, so that damage is what is tested", async () => {
  for (const target of TARGETS) for (const [index, stream] of target.streams.entries()) await target.feed([Buffer.from(stream)], index);
});

it("finds a decoder that throws what it should not, and says how to have it again", async () => {
  const broken: FuzzTarget = {
    name: "a broken decoder",
    streams: [Buffer.from("0011223344", "hex")],
    async feed([piece]) {
      if (piece?.includes(0xff) === true) throw new RangeError("out of range");
    },
  };
  await expect(fuzz(broken, 1, 0)).rejects.toThrow(/^a broken decoder: seed 1, stream \d+, [0-9a-f]+$/);
});
