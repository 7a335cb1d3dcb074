import { beforeEach, expect, it } from "vitest";
import { createSpinWait } from "../../../src/base/spin-wait.js";

const LIMIT_MS = 1;

/** A spin wait on a clock and an event loop of the test's own. */
function start(processors = 2) {
  let nowMs = 0;
  let turns: (() => void)[] = [];
  const wait = createSpinWait(LIMIT_MS, { now: () => nowMs, nextTurn: (look) => void turns.push(look), processors });
  const turn = () => {
    const looks = turns;
    turns = [];
    for (const look of looks) look();
  };
  return {
    wait,
    turn,
    pass: (ms: number) => {
      nowMs += ms;
    },
    /** How many turns it will look again in: none when it sleeps, and never more than one. */
    looks: () => turns.length,
    /** A wait that takes so long, with a turn of the event loop at the end. */
    after(ms: number) {
      wait.begin();
      nowMs += ms;
      wait.end();
      turn();
    },
    staysAwake() {
      wait.begin();
      const looks = turns.length;
      wait.cancel();
      turn();
      return looks === 1;
    },
  };
}

let one: ReturnType<typeof start>;
beforeEach(() => {
  one = start();
});

const short = (times: number, on = one) => {
  for (let done = 0; done < times; done++) on.after(0.2);
};

it("sleeps until eight waits were short", () => {
  short(7);
  expect(one.staysAwake()).toBe(false);
  short(1);
  expect(one.staysAwake()).toBe(true);
});

it("stays awake until what it waits for has come, and no longer", () => {
  short(8);
  one.wait.begin();
  for (let turns = 0; turns < 20; turns++) {
    one.pass(0.04);
    one.turn();
    expect(one.looks()).toBe(1);
  }
  one.wait.end();
  one.turn();
  expect(one.looks()).toBe(0);
});

it("goes to sleep when the limit is over, and what comes later is a wait that was not short", () => {
  short(8);
  one.wait.begin();
  one.pass(LIMIT_MS + 0.01);
  one.turn();
  expect(one.looks()).toBe(0);
  one.pass(5);
  one.wait.end();
  expect(one.staysAwake()).toBe(false);
  short(8);
  expect(one.staysAwake()).toBe(true);
});

it("is not put off by one long wait after many short ones, and is by a row of them however many there were", () => {
  short(10_000);
  one.after(3);
  expect(one.staysAwake()).toBe(true);
  for (let done = 0; done < 7; done++) one.after(3);
  expect(one.staysAwake()).toBe(false);
});

it("never looks twice in one turn, however often a wait begins anew", () => {
  short(8);
  for (let done = 0; done < 5; done++) {
    one.wait.begin();
    one.wait.end();
    one.wait.begin();
    expect(one.looks()).toBe(1);
    one.turn();
  }
});

it("learns nothing from a wait that was taken back, nor from what came without one", () => {
  short(7);
  one.wait.begin();
  one.wait.cancel();
  one.wait.end();
  one.wait.end();
  expect(one.staysAwake()).toBe(false);
});

it("always sleeps where there is one processor: who is waited for needs it", () => {
  const alone = start(1);
  short(100, alone);
  expect(alone.staysAwake()).toBe(false);
});
