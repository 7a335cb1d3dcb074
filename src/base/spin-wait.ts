/*
 * Waits for what is due in a moment without going to sleep (spin-then-block): where processes answer one another as fast as a sleeping
 * processor is woken, the waking is what takes the time, two fifths of a P-256 signature of a software token on a virtual machine
 * (docs/adr/0011). The event loop goes on, so that whatever else comes is done meanwhile. It must never stay awake where that does not
 * pay: not before a number of waits were short, not beyond the limit, and not where there is but one processor.
 */
import { availableParallelism } from "node:os";

export interface SpinWait {
  /** Something has been asked for; stays awake for it if the last waits were short. A wait that is on begins anew. */
  begin(): void;
  /** It has come. Without a `begin` nothing happens. */
  end(): void;
  /** It does not matter any more how long it takes, or there is other work to wait with. */
  cancel(): void;
}

/** What it needs to know of its surroundings. */
export interface SpinClock {
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** Calls back after the event loop has looked for input, without waiting for it. */
  nextTurn(look: () => void): void;
  readonly processors: number;
}

/** A short wait makes it surer that the next is short, up to a most, and one that is not makes it much less sure. */
const SURE = 8;
const MOST_SURE = 64;
const LESS_SURE = 8;

const REAL: SpinClock = { now: () => performance.now(), nextTurn: setImmediate, processors: availableParallelism() };

/** A wait of at most `limitMs` counts as short, and it never stays awake for longer. */
export function createSpinWait(limitMs: number, { now, nextTurn, processors }: SpinClock = REAL): SpinWait {
  if (processors < 2) return { begin() {}, end() {}, cancel() {} };
  /** Not a number while nobody waits. */
  let beganMs = Number.NaN;
  let sure = 0;
  let isAwake = false;

  function look(): void {
    isAwake = now() - beganMs < limitMs;
    if (isAwake) nextTurn(look);
  }

  return {
    begin() {
      beganMs = now();
      if (isAwake || sure < SURE) return;
      isAwake = true;
      nextTurn(look);
    },
    end() {
      if (Number.isNaN(beganMs)) return;
      const isShort = now() - beganMs <= limitMs;
      sure = isShort ? Math.min(sure + 1, MOST_SURE) : Math.max(sure - LESS_SURE, 0);
      beganMs = Number.NaN;
    },
    cancel() {
      beganMs = Number.NaN;
    },
  };
}
