/*
 * What an origin is for a log-in: which grants it shares, and how a question names it.
 */
import type { Origin } from "../cryptoki/types.js";

/** Asked for at every call of a client that is logged in. */
const keys = new WeakMap<Origin, string>();

/** What a grant hangs on: everything that was verified about where the stream comes from, but not which connection it is. */
export function destinationKey(origin: Origin): string {
  const known = keys.get(origin);
  if (known !== undefined) return known;
  const key = JSON.stringify([origin.kind, origin.destination, origin.user, origin.host, origin.port, origin.hostKeySha256]);
  // What can still change is not remembered.
  if (Object.isFrozen(origin)) keys.set(origin, key);
  return key;
}

/** How a question names who asks. */
export function whoAsks(origin: Origin): string {
  if (origin.kind === "local") return "a program on this workstation";
  const at = origin.host ?? origin.destination ?? "an unknown host";
  return origin.user === null ? at : `${origin.user}@${at}`;
}
