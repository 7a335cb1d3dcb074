/*
 * Lets go of a token that nobody uses, so that another program can have the card: counts quiet time and says when. It must
 * never call it idle while anything is under way.
 */

/** How often it is looked, within a hold. */
const LOOKS = 4;
const LEAST_LOOK_MS = 250;

export interface HoldOptions {
  /** Quiet time after which the token is released; null: never. */
  readonly ms: number | null;
  /** False while something is under way; `quietMs`: nobody has called for so long. */
  isIdle(quietMs: number): boolean;
  release(): void;
}

export interface Hold {
  /** The module has been called, or is about to be. */
  used(): void;
  close(): void;
}

/** Begins to count now. A hold of 0 is the shortest there is: two looks, half a second. */
export function createHold({ ms, isIdle, release }: HoldOptions): Hold {
  let wasUsed = false;
  let isReleased = false;
  let quietMs = 0;
  if (ms === null) return { used() {}, close() {} };
  const stepMs = Math.max(LEAST_LOOK_MS, ms / LOOKS);

  function look(limitMs: number): void {
    // A flag and a look now and then, for a timer that is set again at each call would cost each call.
    if (wasUsed) {
      wasUsed = false;
      isReleased = false;
      quietMs = 0;
      return;
    }
    quietMs += stepMs;
    if (isReleased || quietMs < limitMs) return;
    if (!isIdle(quietMs)) return;
    isReleased = true;
    release();
  }
  const timer = setInterval(() => look(ms), stepMs).unref();
  return {
    used() {
      wasUsed = true;
    },
    close: () => clearInterval(timer),
  };
}
