import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { createAlarm } from "../../../src/base/alarm.js";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
afterEach(() => void vi.useRealTimers());

/** An alarm, and when it rang. */
function start() {
  const rang: string[] = [];
  const alarm = createAlarm();
  return { rang, alarm, set: (ms: number, name: string) => alarm.set(ms, () => rang.push(`${name} at ${performance.now()}`)) };
}

it("rings once, when its time is over and not before", () => {
  const { rang, set } = start();
  const begun = performance.now();
  set(100, "one");
  vi.advanceTimersByTime(99);
  expect(rang).toEqual([]);
  vi.advanceTimersByTime(1_000);
  expect(rang).toEqual([`one at ${begun + 100}`]);
});

it("does not ring when it was cleared, and rings in time when it is set again after that", () => {
  const { rang, alarm, set } = start();
  const begun = performance.now();
  set(100, "one");
  vi.advanceTimersByTime(50);
  alarm.clear();
  vi.advanceTimersByTime(20);
  set(100, "two");
  vi.advanceTimersByTime(1_000);
  expect(rang).toEqual([`two at ${begun + 170}`]);
});

it("rings for the last deadline that was set, be it sooner or later than the one before", () => {
  const { rang, set } = start();
  const begun = performance.now();
  set(1_000, "late");
  set(10, "soon");
  vi.advanceTimersByTime(10);
  set(10, "one");
  set(1_000, "two");
  vi.advanceTimersByTime(2_000);
  expect(rang).toEqual([`soon at ${begun + 10}`, `two at ${begun + 1_010}`]);
});

it("keeps one timer, however often it is set and cleared", () => {
  const { alarm, set } = start();
  for (let i = 0; i < 1_000; i++) {
    set(100, "never");
    alarm.clear();
  }
  expect(vi.getTimerCount()).toBe(1);
  vi.advanceTimersByTime(100);
  expect(vi.getTimerCount()).toBe(0);
});
