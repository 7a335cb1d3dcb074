/*
 * A client that waits for its broker: what it sends meanwhile is kept, up to a little, and when it hangs up the waiting is over.
 * A stream that nobody reads does not tell of its end.
 */
import type { Duplex } from "node:stream";

/** What a client may send ahead: its PING, subscriptions, and a request or two. */
const MOST_BYTES = 64 * 1024;

/** The outcome of `work`, whose signal is aborted when the client goes or `signal` is. What the client sent is put back. */
export async function whileConnected<T extends Duplex>(
  client: Duplex,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const gone = new AbortController();
  const kept: Buffer[] = [];
  let bytes = 0;
  const take = (): void => {
    while (bytes < MOST_BYTES) {
      const chunk: Buffer | null = client.read();
      if (chunk === null) return;
      kept.push(chunk);
      bytes += chunk.length;
    }
  };
  const left = (): void => gone.abort(new Error("the client has gone"));
  client.on("readable", take);
  client.once("end", left);
  client.once("close", left);
  try {
    const made = await work(AbortSignal.any([signal, gone.signal]));
    if (!gone.signal.aborted) return made;
    made.destroy();
    throw gone.signal.reason;
  } finally {
    client.off("readable", take);
    client.off("end", left);
    client.off("close", left);
    if (gone.signal.aborted) client.destroy();
    else if (kept.length > 0) client.unshift(Buffer.concat(kept));
  }
}
