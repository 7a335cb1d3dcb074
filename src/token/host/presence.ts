/*
 * Which tokens are there, told from what the module's answers say anyway. It calls nothing itself.
 */
import type { CallName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallResult } from "../../cryptoki/types.js";

export interface Presence {
  /** Looks at an answer of the module. */
  observe(name: CallName, args: object, result: CallResult): void;
}

/** `tell` is called once for each change, with the slot. */
export function createPresence(tell: (name: "token-in" | "token-gone", slot: bigint) => void): Presence {
  const sessions = new Map<bigint, bigint>();
  const present = new Set<bigint>();
  let listed = false;

  function gone(slot: bigint): void {
    for (const [session, where] of sessions) if (where === slot) sessions.delete(session);
    if (present.delete(slot)) tell("token-gone", slot);
  }

  function came(slot: bigint): void {
    if (present.has(slot)) return;
    present.add(slot);
    // What is there when it is first looked at has not come in.
    if (listed) tell("token-in", slot);
  }

  return {
    observe(name, args, result) {
      const { slot, session, tokenPresent } = args as { slot?: bigint; session?: bigint; tokenPresent?: number };
      const outs = result as { rv: number; slots?: readonly bigint[] | number; session?: bigint };
      if (outs.rv === CKR.CKR_TOKEN_NOT_PRESENT || outs.rv === CKR.CKR_DEVICE_REMOVED) {
        const where = slot ?? (session === undefined ? undefined : sessions.get(session));
        if (where !== undefined) gone(where);
        return;
      }
      if (outs.rv !== CKR.CKR_OK) return;
      if (name === "C_GetSlotList" && tokenPresent === 1 && Array.isArray(outs.slots)) {
        const now = new Set(outs.slots as readonly bigint[]);
        for (const one of [...present]) if (!now.has(one)) gone(one);
        for (const one of now) came(one);
        listed = true;
      } else if (name === "C_OpenSession" && slot !== undefined && outs.session !== undefined) {
        sessions.set(outs.session, slot);
        came(slot);
      } else if (name === "C_CloseSession" && session !== undefined) sessions.delete(session);
      else if (name === "C_CloseAllSessions") for (const [one, where] of sessions) if (where === slot) sessions.delete(one);
    },
  };
}
