/*
 * Where a token host stands in a pool, and what the others know of its first: that it is loaded, and that it takes a pipe. Types only.
 */
import type { Socket } from "node:net";

/** The first host of a pool, as the others know it. */
export interface PinLender {
  /** True when its module is loaded, false when it will not be for now. */
  loaded(): Promise<boolean>;
  /** Hands it the lender's end of the pipe to another host (pin-link.ts). */
  lendTo(lenderEnd: Socket): void;
}

/** `first` null: this is the first, which lends its PIN. Another borrows it, and starts when the first has loaded. */
export interface PoolPlace {
  readonly first: PinLender | null;
}
