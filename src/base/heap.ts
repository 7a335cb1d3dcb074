/*
 * Keeps a long-lived process small. V8 lets its young generation grow with traffic and never gives it back: 10,000
 * hostile connections left the agent 60 MB larger with nothing leaked (measured; with this, 4 MB).
 * It must be called before the process has done anything.
 */
import { setFlagsFromString } from "node:v8";

/** Stops the young generation from growing; costs more, and shorter, garbage collections. */
export function keepHeapSmall(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
}
