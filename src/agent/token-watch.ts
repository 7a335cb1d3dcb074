/*
 * Closes a slot when its token is pulled, until the same token is seen in it: a key is exposed by slot and id, and another
 * token may have a key with that id. Fail closed: between the two, and when nobody can tell, the slot stays closed.
 */
import { localContext } from "../cryptoki/local-context.js";
import type { TokenHost } from "../token/host/host.js";
import { listTokens, type TokenSummary } from "./inspect.js";

export interface TokenWatch {
  /** False while the slot of one of these tokens may hold another one. */
  isSame(slot: bigint): boolean;
  close(): void;
}

/** Watches these tokens, told apart by model, manufacturer, serial and label (their URI). */
export function watchTokens(host: TokenHost, tokens: readonly TokenSummary[], signal: AbortSignal): TokenWatch {
  const uris = new Map(tokens.map((token) => [token.slot, token.uri]));
  const closed = new Set<bigint>();

  async function look(slot: bigint): Promise<void> {
    const seen = await listTokens(host, localContext("agent", signal)).catch(() => []);
    if (seen.find((token) => token.slot === slot)?.uri === uris.get(slot)) closed.delete(slot);
  }

  const stops = [
    host.events.on("token-gone", ({ slot }) => {
      if (uris.has(slot)) closed.add(slot);
    }),
    host.events.on("token-in", ({ slot }) => {
      if (closed.has(slot)) void look(slot);
    }),
  ];
  return {
    isSame: (slot) => !closed.has(slot),
    close() {
      for (const stop of stops) stop();
    },
  };
}
