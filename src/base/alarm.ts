/*
 * One deadline at a time, set and cleared for each call of thousands in a second: a timer runs on over what was cleared and
 * looks again when it is over, for making and stopping one for each call costs more than sending the call. It must never ring
 * early, and never hold a process alive.
 */

export interface Alarm {
  /** Calls `ring` once after so many milliseconds, unless it is set again or cleared before. */
  set(ms: number, ring: () => void): void;
  clear(): void;
}

/** An alarm that is not set. */
export function createAlarm(): Alarm {
  let ring: (() => void) | null = null;
  let dueMs = 0;
  let timer: NodeJS.Timeout | null = null;
  let timerDueMs = 0;

  function arm(ms: number, nowMs: number): void {
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(look, Math.ceil(ms)).unref();
    timerDueMs = nowMs + ms;
  }

  function look(): void {
    timer = null;
    if (ring === null) return;
    const nowMs = performance.now();
    if (nowMs < dueMs) {
      arm(dueMs - nowMs, nowMs);
      return;
    }
    const due = ring;
    ring = null;
    due();
  }

  return {
    set(ms, then) {
      const nowMs = performance.now();
      ring = then;
      dueMs = nowMs + ms;
      if (timer === null || dueMs < timerDueMs) arm(ms, nowMs);
    },
    clear() {
      ring = null;
    },
  };
}
