/*
 * Work of which a few pieces run at a time, and work that several wait for.
 */
import { expect, it } from "vitest";
import { mapSome } from "../../../src/base/map-some.js";
import { createSingleFlight } from "../../../src/base/single-flight.js";

it("as many pieces run at once as are allowed, and results keep the order of the items", async () => {
  let running = 0;
  let most = 0;
  const results = await mapSome([5, 1, 4, 2, 3], 2, async (item) => {
    running += 1;
    most = Math.max(most, running);
    for (let turn = 0; turn < item; turn += 1) await new Promise(setImmediate);
    running -= 1;
    return item * 10;
  });
  expect(results).toEqual([50, 10, 40, 20, 30]);
  expect(most).toBe(2);
});

it("no piece is begun after one has failed", async () => {
  const begun: number[] = [];
  const work = mapSome([1, 2, 3, 4], 1, async (item) => {
    begun.push(item);
    if (item === 2) throw new Error("two");
  });
  await expect(work).rejects.toThrow("two");
  expect(begun).toEqual([1, 2]);
});

it("who comes while the work runs gets its outcome, and a waiter that gives up takes nothing from the others", async () => {
  const flight = createSingleFlight<number>(() => new Error("gave up"));
  let finish: (value: number) => void = () => {};
  let runs = 0;
  const work = () => {
    runs += 1;
    return new Promise<number>((resolve) => {
      finish = resolve;
    });
  };
  const impatient = new AbortController();
  const never = new AbortController().signal;
  const first = flight.run(never, work);
  const second = flight.run(never, work);
  const third = flight.run(impatient.signal, work);
  impatient.abort();
  await expect(third).rejects.toThrow("gave up");
  finish(7);
  expect([await first, await second, runs]).toEqual([7, 7, 1]);
});
