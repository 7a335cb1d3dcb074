/*
 * Calls whose answers may be large go one at a time, each when the client has read what it has coming: many requests may be
 * in flight on tokenfwd RPC, and one that asks for much and reads nothing must not fill our memory.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { callByName } from "../cryptoki/calls.js";
import type { AnyArgs, AttributeQuery } from "../cryptoki/types.js";
import type { CallMessage } from "../wire/rpc/messages.js";

/** An answer above this counts as large: 64 of them at once would be 4 MiB. */
const LARGE_BYTES = 64 * 1024;
/** Of a handle or a number of a list, in any encoding. */
const NUMBER_BYTES = 9;

function roomOfQuery(query: readonly AttributeQuery[]): number {
  return query.reduce((sum, { room, nested }) => sum + (room ?? 0) + (nested === undefined ? 0 : roomOfQuery(nested)), 0);
}

/** Bytes that the answer to this call may have, by the room that was asked for. */
function roomOf({ name, args }: CallMessage): number {
  const { room, query } = args as AnyArgs & { readonly room?: number | null; readonly query?: readonly AttributeQuery[] };
  const each = callByName(name).request.includes("fu") ? NUMBER_BYTES : 1;
  return (room ?? 0) * each + roomOfQuery(query ?? []);
}

/** A gate of one client. `full` answers a promise while the client does not read, which resolves also when it has gone. */
export function createLargeAnswers(full: () => Promise<void> | null) {
  let last: Promise<unknown> = Promise.resolve();

  /** Runs the call: at once, or where its answer may be large in its turn. */
  return function pass<T>(call: CallMessage, run: () => Promise<T>): Promise<T> {
    if (roomOf(call) <= LARGE_BYTES) return run();
    const turn = last.then(async () => {
      // The last answer is written at the end of the turn of the event loop in which it was made.
      await nextTurn();
      for (let waiting = full(); waiting !== null; waiting = full()) await waiting;
      return await run();
    });
    last = turn.catch(() => undefined);
    return turn;
  };
}
