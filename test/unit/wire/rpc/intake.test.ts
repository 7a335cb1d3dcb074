/*
 * Frames on their way in: the order, the share of a turn, and that what was taken up is not kept, however long the queue lives.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import type { Frame } from "../../../../src/wire/rpc/frame.js";
import { createIntake } from "../../../../src/wire/rpc/intake.js";

const turn = () => new Promise((resolve) => setImmediate(resolve));
const frameOf = (size: number, wiped: number[] = []): Frame => ({ body: Buffer.alloc(size), size, wipe: () => wiped.push(size) });

it("takes frames up in order, some in each turn, and overwrites what it was left with", async () => {
  const taken: number[] = [];
  const wiped: number[] = [];
  const intake = createIntake({ full: () => null, take: ({ size }) => taken.push(size) });
  const sizes = Array.from({ length: 1_000 }, (_, index) => index + 1);
  for (const size of sizes) intake.add(frameOf(size, wiped));
  const first = taken.length;
  expect(first).toBeLessThan(500);
  await turn();
  await turn();
  expect(taken.length).toBeGreaterThan(first);
  expect(taken.length).toBeLessThan(1_000);
  intake.end();
  expect([...taken, ...wiped]).toEqual(sizes);
  await turn();
  await turn();
  expect(taken.length + wiped.length).toBe(1_000);
});

it("keeps nothing of what was taken up while more comes than is taken", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const early: WeakRef<Frame>[] = [];
  const intake = createIntake({ full: () => null, take: (frame) => intake.settle(frame) });
  for (let round = 0; round < 20; round++) {
    for (let index = 0; index < 400; index++) {
      const frame = frameOf(1);
      if (round === 1) early.push(new WeakRef(frame));
      intake.add(frame);
    }
    await turn();
  }
  expect(intake.pendingBytes).toBeGreaterThan(0);
  // A WeakRef holds what it was made with until the turn is over.
  await turn();
  collect();
  expect(early.filter((ref) => ref.deref() !== undefined)).toEqual([]);
  intake.end();
  expect(intake.pendingBytes).toBe(0);
});
