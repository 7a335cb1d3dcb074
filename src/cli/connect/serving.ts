/*
 * What a connect puts behind the socket on the bastion: our agent, or with --stock a p11-kit server. Types only.
 */
import type { Duplex } from "node:stream";
import type { TokenSummary } from "../../agent/inspect.js";
import type { TokenfwdError } from "../../base/errors.js";
import type { Origin } from "../../cryptoki/types.js";

export interface Serving {
  /** URI, `all`, or null for none. */
  readonly key: string | null;
  readonly tokens: readonly Pick<TokenSummary, "uri" | "label" | "serial">[];
  /** Takes a stream over. `origin` is frozen in this moment. */
  attach(
    stream: Duplex,
    origin: Omit<Origin, "connectId">,
    connectId: string,
  ): { onFirstFrameOptions(listener: (options: Buffer) => void): void };
  /** The slots that a client sees. */
  expectedSlots(): Promise<readonly bigint[]>;
  /** The version byte it takes. */
  readonly offerVersion: 0 | 2;
  /** Logs in before ready; null where that was not asked for. Rejects with E_PIN*, E_MODULE_FAULT. */
  readonly unlock: ((origin: Omit<Origin, "connectId">, signal: AbortSignal) => Promise<void>) | null;
  /** Resolves, never rejects, when it has ended by itself; null for what mends itself. */
  readonly gone: Promise<TokenfwdError> | null;
}
