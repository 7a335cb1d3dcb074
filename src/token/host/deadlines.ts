/*
 * How long a module may take before it counts as hung, and how soon it is started again after it did. No timers here.
 */
import type { CallClass } from "../../cryptoki/calls.js";

/** Milliseconds by class. A touch is not a hang: signing and decrypting wait for a person. */
export const DEADLINES_MS: Readonly<Record<CallClass, number>> = {
  information: 10_000,
  session: 10_000,
  verify: 10_000,
  digest: 10_000,
  random: 10_000,
  state: 10_000,
  object: 30_000,
  encrypt: 30_000,
  login: 60_000,
  sign: 180_000,
  decrypt: 180_000,
  mutation: 300_000,
};

/** From the start of the process to a module that has answered C_Initialize. */
export const LOAD_DEADLINE_MS = 10_000;
/** A private-key call that takes longer waits for a touch, as far as anybody can tell. */
export const TOUCH_NOTICE_MS = 3000;

/** This many faults within the window stop the restarts for a while. */
const MAX_FAULTS = 3;
const FAULT_WINDOW_MS = 30_000;
const REST_MS = 5000;
const FIRST_BACKOFF_MS = 100;

export interface FaultCounter {
  /** Notes a fault now; answers how long to wait, and whether calls are answered with an error meanwhile. */
  note(nowMs?: number): { readonly resting: boolean; readonly waitMs: number };
}

/** 100 ms after the first fault of a window, 200 after the second, then a rest of 5 s after each. */
export function createFaultCounter(): FaultCounter {
  let faults: number[] = [];
  return {
    note(nowMs = Date.now()) {
      faults = [...faults.filter((when) => when > nowMs - FAULT_WINDOW_MS), nowMs];
      const resting = faults.length >= MAX_FAULTS;
      return { resting, waitMs: resting ? REST_MS : FIRST_BACKOFF_MS * 2 ** (faults.length - 1) };
    },
  };
}
