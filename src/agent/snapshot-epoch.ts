/*
 * A number that changes whenever what a client may see has changed or might have: a snapshot is good as long as its epoch
 * stays. It must never repeat within one agent, and hardly across two.
 */
import { randomBytes } from "node:crypto";

/** The epoch of one client. */
export interface ClientEpoch {
  readonly value: number;
  /** What this client alone sees has changed. */
  changed(): void;
  /** Calls at each change, of this client's own sight or of everybody's; the answer stops it. */
  onChange(listener: (value: number, whose: "own" | "shared") => void): () => void;
}

export interface EpochClock {
  /** A new client: it sees what all see. */
  createClient(): ClientEpoch;
  /** What all clients see has changed. */
  changed(): void;
}

/** A clock that starts at a random number below 2^31, so that a snapshot of an agent that has ended is not taken for one of the next. */
export function createEpochClock(): EpochClock {
  let last = randomBytes(4).readUInt32BE() >>> 1;
  let shared = last;
  const listeners = new Set<() => void>();
  return {
    changed() {
      last += 1;
      shared = last;
      for (const listener of [...listeners]) listener();
    },
    createClient() {
      let own = 0;
      const value = (): number => Math.max(own, shared);
      const mine = new Set<(value: number, whose: "own" | "shared") => void>();
      return {
        get value() {
          return value();
        },
        changed() {
          last += 1;
          own = last;
          for (const listener of [...mine]) listener(own, "own");
        },
        onChange(listener) {
          const onShared = (): void => listener(value(), "shared");
          mine.add(listener);
          listeners.add(onShared);
          return () => {
            mine.delete(listener);
            listeners.delete(onShared);
          };
        },
      };
    },
  };
}
