/*
 * A whole search for objects over any Cryptoki. It must never leave a session with a search that still runs, and never
 * list without a bound.
 */
import { CKR } from "../rv.js";
import type { Attribute, CallContext, Cryptoki } from "../types.js";

/** At most this many objects are listed for one search; a token with more answers CKR_DEVICE_MEMORY. */
const MAX_FOUND = 16_384;
const FIND_CHUNK = 512;

/**
 * Runs a whole search on a session and answers the handles, or the CK_RV that stopped it.
 * The search is always ended, so that the session is free for the next one.
 */
export async function findAll(
  cryptoki: Cryptoki,
  session: bigint,
  template: readonly Attribute[],
  ctx: CallContext,
): Promise<{ rv: number; objects: readonly bigint[] }> {
  const init = await cryptoki.call("C_FindObjectsInit", { session, template }, ctx);
  if (init.rv !== CKR.CKR_OK) return { rv: init.rv, objects: [] };
  const objects: bigint[] = [];
  let rv: number = CKR.CKR_OK;
  for (;;) {
    const found = await cryptoki.call("C_FindObjects", { session, room: FIND_CHUNK }, ctx);
    const chunk = Array.isArray(found.objects) ? (found.objects as readonly bigint[]) : [];
    rv = found.rv;
    if (rv !== CKR.CKR_OK || chunk.length === 0) break;
    objects.push(...chunk);
    if (objects.length > MAX_FOUND) {
      rv = CKR.CKR_DEVICE_MEMORY;
      break;
    }
  }
  await cryptoki.call("C_FindObjectsFinal", { session }, ctx);
  return { rv, objects: rv === CKR.CKR_OK ? objects : [] };
}
