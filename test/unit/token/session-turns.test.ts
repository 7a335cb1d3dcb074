import { expect, it } from "vitest";
import { inTurn, type Session } from "../../../src/token/session-table.js";

function session(): Session {
  return {
    handle: 1n,
    slot: 0n,
    flags: 4n,
    real: null,
    held: null,
    wasInVain: false,
    keyUse: null,
    found: null,
    usesPrivate: false,
    busy: false,
    waiting: [],
  };
}

it("begins a call at once where none is running, and lets those that come meanwhile follow in order, one at a time", async () => {
  const one = session();
  const seen: string[] = [];
  const ends: (() => void)[] = [];
  const call = (name: string) =>
    inTurn(one, async () => {
      seen.push(`${name} begins`);
      await new Promise<void>((resolve) => ends.push(resolve));
      seen.push(`${name} ends`);
    });
  const calls = [call("a"), call("b"), call("c")];
  expect(seen).toEqual(["a begins"]);
  for (const running of calls) {
    ends.shift()?.();
    await running;
    await new Promise(setImmediate);
  }
  expect(seen).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
});

it("goes on after a call that failed, at once or later, and is free when the last has ended", async () => {
  const one = session();
  const failing = [
    inTurn(one, () => {
      throw new Error("at once");
    }),
    inTurn(one, () => Promise.reject(new Error("later"))),
    inTurn(one, () => "fine"),
  ];
  expect(
    (await Promise.allSettled(failing)).map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason.message)),
  ).toEqual(["at once", "later", "fine"]);
  expect([one.busy, one.waiting.length]).toEqual([false, 0]);
});

it("lets nobody in between two that wait, not even one that comes in the turn in which the first ends", async () => {
  const one = session();
  const seen: string[] = [];
  let late: unknown;
  const note = (name: string) => () => void seen.push(name);
  const first = inTurn(one, async () => {
    await new Promise(setImmediate);
    seen.push("first");
    queueMicrotask(() => {
      late = inTurn(one, note("late"));
    });
  });
  const second = inTurn(one, note("second"));
  const third = inTurn(one, note("third"));
  await Promise.all([first, second, third]);
  await late;
  expect(seen).toEqual(["first", "second", "third", "late"]);
});
