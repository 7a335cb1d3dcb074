/*
 * Whether the bastion's side holds small packets back (Nagle): a command there prints two letters shortly one after the other, and the
 * second comes late when it waits for the first one's acknowledgement. Nothing may be sent from here in between: it would acknowledge.
 */
import type { Transport } from "../transport.js";
import { remoteCommand } from "./command.js";

/** Between the two letters, as far as the bastion's sleep knows parts of a second. */
const GAP_MS = 10;
const SCRIPT = `while read x; do printf a; sleep ${GAP_MS / 1000} 2>/dev/null; printf b; done`;
/** The kernel acknowledges the first packets at once. */
const WARM_UP = 3;
const SAMPLES = 9;
const TIMEOUT_MS = 10_000;

/** Medians, in milliseconds. */
export interface Pulse {
  /** From a line that is sent to the letter that answers it: the way there and back, with a shell in between. */
  readonly rttMs: number;
  /** By how much the second letter comes later than it was printed. */
  readonly heldMs: number;
}

/** Measures with one short command; null where it does not run. */
export async function measurePulse(transport: Transport): Promise<Pulse | null> {
  const outcome = await transport.exec(remoteCommand(["/bin/sh", "-c", SCRIPT]));
  if (!outcome.ok) return null;
  const { stream, stderr, close } = outcome.value;
  stderr.resume();
  stderr.on("error", () => {});
  const gaps: number[] = [];
  const trips: number[] = [];
  let sent = 0;
  const next = (): void => {
    sent = performance.now();
    stream.write("\n");
  };
  const finished = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, TIMEOUT_MS);
    const over = (): void => {
      clearTimeout(timer);
      resolve();
    };
    let first: number | null = null;
    stream.on("data", (bytes: Buffer) => {
      const text = bytes.toString("latin1");
      // What a login shell prints has other letters too; together in one packet they were not held.
      if (text === "a") {
        first = performance.now();
        trips.push(first - sent);
      }
      if (!text.endsWith("b")) return;
      if (first !== null) gaps.push(performance.now() - first);
      first = null;
      if (gaps.length === WARM_UP + SAMPLES) over();
      else next();
    });
    stream.on("error", over);
    stream.on("close", over);
  });
  next();
  await finished;
  close();
  // Two letters in one packet give no gap: there may be fewer of these than asked for.
  const median = (times: readonly number[]): number | null => {
    const sorted = times.slice(WARM_UP).sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) / 2)] ?? null;
  };
  const [rttMs, gapMs] = [median(trips), median(gaps)];
  return rttMs === null || gapMs === null ? null : { rttMs, heldMs: Math.max(0, gapMs - GAP_MS) };
}
