/*
 * What clients may be told of tokens coming, going and locking: of the slots they may see, and of a token that comes back
 * only when it is the same one. It must never tell of another slot.
 */
import { createEmitter, type Emitter } from "../base/events.js";
import type { CryptokiEvents } from "../cryptoki/types.js";
import type { TokenHost } from "../token/host/host.js";
import type { TokenWatch } from "./token-watch.js";

export type SlotEvents = Pick<CryptokiEvents, "token-in" | "token-gone" | "locked">;

export interface SlotEventsOptions {
  readonly host: TokenHost;
  /** Decides when a slot counts as having its token. */
  readonly watch: TokenWatch;
  /** The slots in play; null for all that the module has. */
  readonly slots: ReadonlySet<bigint> | null;
}

/** The events of the slots in play. `close` ends them. */
export function createSlotEvents({ host, watch, slots }: SlotEventsOptions): { readonly events: Emitter<SlotEvents>; close(): void } {
  const events = createEmitter<SlotEvents>();
  const inPlay = (slot: bigint): boolean => slots === null || slots.has(slot);
  const pass = (name: keyof SlotEvents) => (event: { readonly slot: bigint }) => {
    if (inPlay(event.slot)) events.emit(name, { slot: event.slot });
  };
  const stops = [
    host.events.on("token-gone", pass("token-gone")),
    host.events.on("locked", pass("locked")),
    slots === null ? host.events.on("token-in", pass("token-in")) : watch.onSame((slot) => pass("token-in")({ slot })),
  ];
  return {
    events,
    close() {
      for (const stop of stops) stop();
    },
  };
}
