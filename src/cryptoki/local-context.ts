/*
 * The context of calls that this process makes for itself: no client of ours, no bastion. It must never stand for a
 * stream that came from elsewhere.
 */
import type { CallContext, Origin } from "./types.js";

/** Where a stream of this workstation comes from. */
export const LOCAL_ORIGIN: Omit<Origin, "connectId"> = Object.freeze({
  kind: "local",
  destination: null,
  user: null,
  host: null,
  port: null,
  hostKeySha256: null,
});

/** A context under this name, which is also its connectId. */
export function localContext(client: string, signal: AbortSignal): CallContext {
  return { client, origin: { ...LOCAL_ORIGIN, connectId: client }, signal };
}
