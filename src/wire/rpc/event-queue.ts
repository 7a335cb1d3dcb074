/*
 * Events for one client: only what it has subscribed to, and while its stream is full only the last of each event and
 * slot, so that a client which does not read costs no memory. It must never tell a client what it did not ask for.
 */
import type { Fields } from "./codec.js";
import type { RpcEvent, RpcEventName } from "./messages.js";
import { encodeEvent } from "./results.js";

export interface EventQueueOptions {
  /** Sends one event. */
  send(fields: Fields): void;
  /** A promise while the stream is full, which resolves when it drains and when it closes. */
  full(): Promise<void> | null;
}

export interface EventQueue {
  /** Replaces what the client is told of. */
  subscribe(events: readonly RpcEventName[]): void;
  /** Sends an event at once, or when the stream has drained; drops it without a subscription. */
  add(event: RpcEvent): void;
  /** Drops everything. */
  end(): void;
}

/** A queue without a subscription. */
export function createEventQueue({ send, full }: EventQueueOptions): EventQueue {
  const held = new Map<string, RpcEvent>();
  let wanted: readonly RpcEventName[] = [];
  let draining = false;
  let ended = false;

  async function drain(first: Promise<void>): Promise<void> {
    draining = true;
    let waiting: Promise<void> | null = first;
    while (waiting !== null) {
      await waiting;
      waiting = ended ? null : full();
    }
    draining = false;
    if (!ended) for (const event of held.values()) send(encodeEvent(event));
    held.clear();
  }

  return {
    subscribe(events) {
      wanted = events;
    },
    add(event) {
      if (ended || !wanted.includes(event.event)) return;
      const waiting = draining ? null : full();
      if (!draining && waiting === null) {
        send(encodeEvent(event));
        return;
      }
      const key = `${event.event} ${event.slot}`;
      // Deleted first, so that what is kept stays in the order in which it happened.
      held.delete(key);
      held.set(key, event);
      if (waiting !== null) void drain(waiting);
    },
    end() {
      ended = true;
      held.clear();
    },
  };
}
