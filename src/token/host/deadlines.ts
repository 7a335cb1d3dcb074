/*
 * How long a module may take before it counts as hung. Pure data.
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
