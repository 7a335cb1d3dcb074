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
  /** Calls when the same token is back in its slot; the answer stops it. */
  onSame(listener: (slot: bigint) => void): () => void;
  close(): void;
}

/** Watches these tokens, told apart by model, manufacturer, serial and label (their URI), in every process of the module. */
export function watchTokens(hosts: readonly TokenHost[], tokens: readonly TokenSummary[], signal: AbortSignal): TokenWatch {
  const watches = hosts.map((host) => watchHost(host, tokens, signal));
  const isSame = (slot: bigint) => watches.every((watch) => watch.isSame(slot));
  return {
    isSame,
    onSame(listener) {
      // The last of them opens the slot.
      const stops = watches.map((watch) => watch.onSame((slot) => isSame(slot) && listener(slot)));
      return () => {
        for (const stop of stops) stop();
      };
    },
    close() {
      for (const watch of watches) watch.close();
    },
  };
}

function watchHost(host: TokenHost, tokens: readonly TokenSummary[], signal: AbortSignal): TokenWatch {
  const uris = new Map(tokens.map((token) => [token.slot, token.uri]));
  const closed = new Set<bigint>();
  const listeners = new Set<(slot: bigint) => void>();

  /** How often a slot's token has gone: what was seen before the last time says nothing of now. */
  const gone = new Map<bigint, number>();

  async function look(slot: bigint): Promise<void> {
    const before = gone.get(slot);
    const seen = await listTokens(host, localContext("agent", signal)).catch(() => []);
    if (gone.get(slot) !== before || seen.find((token) => token.slot === slot)?.uri !== uris.get(slot)) return;
    if (!closed.delete(slot)) return;
    for (const listener of [...listeners]) listener(slot);
  }

  const stops = [
    host.events.on("token-gone", ({ slot }) => {
      if (!uris.has(slot)) return;
      closed.add(slot);
      gone.set(slot, (gone.get(slot) ?? 0) + 1);
    }),
    host.events.on("token-in", ({ slot }) => {
      if (closed.has(slot)) void look(slot);
    }),
  ];
  return {
    isSame: (slot) => !closed.has(slot),
    onSame(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close() {
      for (const stop of stops) stop();
    },
  };
}
