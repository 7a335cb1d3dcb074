/*
 * Who waits for what, by the signal that ends the waiting: one listener for each signal, however many calls are under it, for a
 * listener for each costs more than the call itself, and Node warns of more than ten. It must never keep a call that is over.
 */

export interface Withdrawals<T extends object> {
  /** Sees to it that `withdraw` is called for the item when the signal aborts. Call the answer when the item is over. */
  watch(signal: AbortSignal, item: T): () => void;
}

export function createWithdrawals<T extends object>(withdraw: (item: T) => void): Withdrawals<T> {
  const bySignal = new WeakMap<AbortSignal, Set<T>>();
  return {
    watch(signal, item) {
      let items = bySignal.get(signal);
      if (items === undefined) {
        const fresh = new Set<T>();
        items = fresh;
        bySignal.set(signal, fresh);
        signal.addEventListener(
          "abort",
          () => {
            for (const one of [...fresh]) withdraw(one);
          },
          { once: true },
        );
      }
      const held = items;
      held.add(item);
      return () => held.delete(item);
    },
  };
}
