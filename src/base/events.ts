/*
 * A typed event emitter with as little as we need: listeners are called in order, at once, and a listener that throws
 * is a bug of ours that surfaces as an unhandled error. It must never hold a process alive.
 */

export type Listener<T> = (event: T) => void;

export interface Emitter<Events> {
  /** Adds a listener; call the answer to remove it. */
  on<K extends keyof Events>(name: K, listener: Listener<Events[K]>): () => void;
  emit<K extends keyof Events>(name: K, event: Events[K]): void;
}

/** A new emitter with no listeners. */
export function createEmitter<Events>(): Emitter<Events> {
  const listeners = new Map<keyof Events, Set<Listener<never>>>();
  return {
    on(name, listener) {
      const set = listeners.get(name) ?? new Set();
      listeners.set(name, set);
      set.add(listener as Listener<never>);
      return () => set.delete(listener as Listener<never>);
    },
    emit(name, event) {
      for (const listener of [...(listeners.get(name) ?? [])]) (listener as Listener<typeof event>)(event);
    },
  };
}
