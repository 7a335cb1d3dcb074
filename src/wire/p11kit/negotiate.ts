/*
 * Finds the version that a server and we both speak, over streams that the caller opens. It must never take silence for a
 * refusal: a server that is only slow would then be asked twice. See protocol/p11kit-rpc.md, "Client".
 */
import type { P11KitClient } from "./client.js";

/** A client on a stream of its own. */
export interface OpenedClient {
  readonly client: P11KitClient;
  /** Ends the stream at once, whatever was written. Safe to call twice. */
  abandon(): void;
}

export interface NegotiateOptions {
  /** How long a server may take for its version byte; it may start a module before. */
  readonly firstByteMs: number;
  readonly signal: AbortSignal;
}

/** `closed`: it closed at both offers. `silent`: no byte came in time. `foreign`: it answered what is no version. */
export type Negotiation<T> =
  | { readonly ok: true; readonly opened: T; readonly version: 0 | 1 | 2 }
  | { readonly ok: false; readonly why: "closed" | "silent" | "foreign" };

/**
 * Offers version 2 on a first stream. Releases before 0.24.1 close at any byte but 0: such a server is asked once more, with
 * 0, on a second stream. What is not handed over in the answer has been abandoned. Rejects as `open` does, and with the
 * signal's reason.
 */
export async function negotiateP11Kit<T extends OpenedClient>(
  open: (offerVersion: 0 | 2) => Promise<T>,
  options: NegotiateOptions,
): Promise<Negotiation<T>> {
  for (const offer of [2, 0] as const) {
    const opened = await open(offer);
    const answer = await answerOf(opened, options);
    if (answer === 0 || answer === 1 || answer === 2) return { ok: true, opened, version: answer };
    opened.abandon();
    options.signal.throwIfAborted();
    if (answer !== "closed") return { ok: false, why: answer === "silent" ? "silent" : "foreign" };
  }
  return { ok: false, why: "closed" };
}

async function answerOf(opened: OpenedClient, { firstByteMs, signal }: NegotiateOptions): Promise<number | "closed" | "silent"> {
  let stop = (): void => {};
  let timer: NodeJS.Timeout | undefined;
  const givenUp = new Promise<"silent">((resolve) => {
    stop = () => resolve("silent");
    timer = setTimeout(stop, firstByteMs);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([opened.client.negotiated.catch(() => "closed" as const), givenUp]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}
