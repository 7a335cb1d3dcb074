/*
 * Both wires' decoders, fuzzed for a minute each with a new seed, which is printed.
 */
import { describe, expect, it } from "vitest";
import { traceTarget } from "../property/fuzz-trace.js";
import { fuzz, p11kitClientTarget, p11kitServerTarget, rpcClientTarget, rpcServerTarget } from "../property/fuzz-wires.js";

const MS = 30_000;
const WIRES = [
  ["tokenfwd RPC", rpcServerTarget, rpcClientTarget],
  ["p11-kit RPC", p11kitServerTarget, p11kitClientTarget],
] as const;

describe.each(WIRES)("%s", (_wire, server, client) => {
  it.each([
    ["server", server],
    ["client", client],
  ])("the %s lives through damaged streams", async (_side, make) => {
    const seed = Date.now() >>> 0;
    const target = make();
    const { streams, grownBytes } = await fuzz(target, seed, MS);
    console.log(`${target.name}: ${streams} streams, ${(grownBytes / 1e6).toFixed(1)} MB more, seed ${seed}`);
    expect(streams).toBeGreaterThan(1000);
  });
});

it("a trace reads on through damaged streams", async () => {
  const seed = Date.now() >>> 0;
  const { streams, grownBytes } = await fuzz(traceTarget(), seed, MS);
  console.log(`a trace: ${streams} streams, ${(grownBytes / 1e6).toFixed(1)} MB more, seed ${seed}`);
  expect(streams).toBeGreaterThan(1000);
});
