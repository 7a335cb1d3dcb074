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

/** By how many milliseconds the second letter comes later than it was printed, the median; null where that cannot be measured. */
export async function measureHeldMs(transport: Transport): Promise<number | null> {
  const outcome = await transport.exec(remoteCommand(["/bin/sh", "-c", SCRIPT]));
  if (!outcome.ok) return null;
  const { stream, stderr, close } = outcome.value;
  stderr.resume();
  stderr.on("error", () => {});
  const gaps: number[] = [];
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
      if (text === "a") first = performance.now();
      if (!text.endsWith("b")) return;
      if (first !== null) gaps.push(performance.now() - first);
      first = null;
      if (gaps.length === WARM_UP + SAMPLES) over();
      else stream.write("\n");
    });
    stream.on("error", over);
    stream.on("close", over);
  });
  stream.write("\n");
  await finished;
  close();
  const samples = gaps.slice(WARM_UP).sort((a, b) => a - b);
  if (samples.length < SAMPLES) return null;
  return Math.max(0, (samples[(SAMPLES - 1) / 2] ?? 0) - GAP_MS);
}
