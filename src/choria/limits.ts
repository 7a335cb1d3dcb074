/*
 * The times of a request that is signed, in seconds (protocol/choria-request.md). Numbers alone, for options and help too.
 */

/** Servers drop a request with less. */
export const MIN_TTL_SECONDS = 30;
/** The longest ttl that is signed unless told otherwise. Whoever sees a request can send it again until then. */
export const DEFAULT_MAX_TTL_SECONDS = 300;
/** Five hours: stock clients ask for no more, whatever the number of batches. */
export const MOST_TTL_SECONDS = 18_000;
/** How far the time of a request may be from ours, either way. */
export const MAX_SKEW_SECONDS = 60;
