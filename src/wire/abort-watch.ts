/*
 * Many requests under one signal with one listener on it: Node warns of a leak beyond ten, a client has 64 in flight, and
 * adding a listener costs more than writing a request. The last signal stays listened to when nothing is under it any
 * more, because the next request is likely to come under it again; no other does, and none after `end`.
 */

export interface AbortWatch<T> {
  /** Calls `onAbort` with the item when the signal is aborted, unless it was removed before. */
  add(signal: AbortSignal, item: T): void;
  /** Safe for an item that was never added. */
  remove(signal: AbortSignal, item: T): void;
  /** Listens to nothing any more. */
  end(): void;
}

interface Watched<T> {
  readonly signal: AbortSignal;
  readonly items: Set<T>;
  readonly listener: () => void;
}

/** A watch over no signal. */
export function createAbortWatch<T>(onAbort: (item: T) => void): AbortWatch<T> {
  const watched = new Map<AbortSignal, Watched<T>>();
  /** The one that nothing is under. */
  let idle: Watched<T> | null = null;

  function forget(one: Watched<T>): void {
    watched.delete(one.signal);
    one.signal.removeEventListener("abort", one.listener);
  }

  function watch(signal: AbortSignal): Watched<T> {
    if (idle !== null) forget(idle);
    idle = null;
    const items = new Set<T>();
    const listener = () => {
      watched.delete(signal);
      if (idle?.signal === signal) idle = null;
      for (const item of items) onAbort(item);
    };
    const one = { signal, items, listener };
    watched.set(signal, one);
    signal.addEventListener("abort", listener, { once: true });
    return one;
  }

  return {
    add(signal, item) {
      const one = watched.get(signal) ?? watch(signal);
      if (one === idle) idle = null;
      one.items.add(item);
    },
    remove(signal, item) {
      const one = watched.get(signal);
      if (one === undefined || !one.items.delete(item) || one.items.size > 0) return;
      if (idle !== null) forget(idle);
      idle = one;
    },
    end() {
      for (const one of [...watched.values()]) forget(one);
      idle = null;
    },
  };
}
