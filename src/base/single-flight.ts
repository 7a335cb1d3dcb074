/*
 * Several askers, one piece of work at a time. Who comes while it runs waits for its outcome, also for its failure; only
 * when its owner took it back does the next asker do it anew. It must never let one asker's cancel fail another.
 */

export interface SingleFlight<T> {
  /**
   * The outcome of `work`, or of the work of an earlier asker that still runs. Rejects with `cancelled()` when the
   * signal is aborted while it waits for another's; its own work has to watch the signal itself.
   */
  run(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** `cancelled` makes the error of an asker that stops waiting. */
export function createSingleFlight<T>(cancelled: () => Error): SingleFlight<T> {
  let running: { readonly outcome: Promise<T>; readonly owner: AbortSignal } | null = null;

  return {
    async run(signal, work) {
      while (running !== null) {
        const { outcome, owner } = running;
        try {
          return await orAborted(outcome, signal, cancelled);
        } catch (thrown) {
          if (signal.aborted || !owner.aborted) throw thrown;
        }
      }
      const outcome = work();
      const mine = { outcome, owner: signal };
      running = mine;
      try {
        return await outcome;
      } finally {
        if (running === mine) running = null;
      }
    },
  };
}

/** The outcome of a promise, or `cancelled()` as soon as the signal is aborted. */
export async function orAborted<T>(outcome: Promise<T>, signal: AbortSignal, cancelled: () => Error): Promise<T> {
  if (signal.aborted) throw cancelled();
  let stop = (): void => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(cancelled());
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([outcome, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
