/*
 * Which tokens are there, told from what the module's answers say anyway. It calls nothing itself but `look`, where a module has
 * lost what was open on a token: between two calls one card can be pulled and another put in.
 */
import type { CallName } from "../../cryptoki/calls.js";
import { CKF } from "../../cryptoki/constants.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallResult } from "../../cryptoki/types.js";

export interface PresenceOptions {
  /** Called once for each change, with the slot. */
  tell(name: "token-in" | "token-gone", slot: bigint): void;
  /** C_GetTokenInfo. */
  look(slot: bigint): CallResult;
}

export interface Presence {
  /** Looks at an answer of the module. */
  observe(name: CallName, args: object, result: CallResult): void;
  /** The module was finalised: its sessions are gone. */
  released(): void;
  /** Looks at each token: is it the one of before? */
  recheck(): void;
  /** A token that was here is out: somebody should look for it. */
  readonly isMissing: boolean;
  /** Another token lies where one was first seen: that one may come back. */
  readonly isSwapped: boolean;
  /** Something is open on a token, which would be void without it. */
  readonly isInUse: boolean;
}

/** What tells one token from another in the same slot. */
function identityOf(result: CallResult): string | null {
  const info = result as { rv: number; serial?: Buffer; label?: Buffer; model?: Buffer };
  if (info.rv !== CKR.CKR_OK || info.serial === undefined || info.label === undefined) return null;
  return [info.serial, info.label, info.model ?? Buffer.alloc(0)].map((field) => field.toString("hex")).join("/");
}

const isOut = (rv: number) => rv === CKR.CKR_TOKEN_NOT_PRESENT || rv === CKR.CKR_DEVICE_REMOVED;

export function createPresence({ tell, look }: PresenceOptions): Presence {
  const sessions = new Map<bigint, bigint>();
  const present = new Set<bigint>();
  const missing = new Set<bigint>();
  const identities = new Map<bigint, string>();
  /** The first token seen in each slot. */
  const firsts = new Map<bigint, string>();
  let listed = false;

  function forgetSessions(slot: bigint): void {
    for (const [session, where] of sessions) if (where === slot) sessions.delete(session);
  }

  function gone(slot: bigint): void {
    forgetSessions(slot);
    identities.delete(slot);
    if (!present.delete(slot)) return;
    missing.add(slot);
    tell("token-gone", slot);
  }

  function came(slot: bigint): void {
    if (present.has(slot)) return;
    present.add(slot);
    const wasMissing = missing.delete(slot);
    // What is there when it is first looked at has not come in.
    if (listed || wasMissing) tell("token-in", slot);
  }

  /** What C_GetTokenInfo has answered for a slot. */
  function seen(slot: bigint, result: CallResult): void {
    const identity = identityOf(result);
    if (identity === null) {
      if (isOut(result.rv)) gone(slot);
      return;
    }
    const before = identities.get(slot);
    if (before !== undefined && before !== identity) {
      gone(slot);
      came(slot);
    }
    identities.set(slot, identity);
    if (!firsts.has(slot)) firsts.set(slot, identity);
  }

  return {
    observe(name, args, result) {
      const { slot, session, tokenPresent } = args as { slot?: bigint; session?: bigint; tokenPresent?: number };
      const outs = result as { rv: number; slots?: readonly bigint[] | number; session?: bigint; flags?: bigint };
      const where = slot ?? (session === undefined ? undefined : sessions.get(session));
      if (isOut(outs.rv)) {
        if (where !== undefined) gone(where);
        return;
      }
      if (where !== undefined && (outs.rv === CKR.CKR_SESSION_HANDLE_INVALID || outs.rv === CKR.CKR_SESSION_CLOSED)) {
        if (session !== undefined) sessions.delete(session);
        // The module has lost it, and does not say why.
        seen(where, look(where));
        return;
      }
      if (outs.rv !== CKR.CKR_OK) return;
      if (name === "C_GetSlotList" && tokenPresent === 1 && Array.isArray(outs.slots)) {
        const now = new Set(outs.slots as readonly bigint[]);
        for (const one of [...present]) if (!now.has(one)) gone(one);
        for (const one of now) came(one);
        listed = true;
      } else if (name === "C_GetSlotList" && tokenPresent === 1 && typeof outs.slots === "number" && outs.slots < present.size) {
        // Who asks only how many there are may be the only one that asks while one is out.
        for (const one of [...present]) seen(one, look(one));
      } else if (name === "C_GetSlotInfo" && slot !== undefined && outs.flags !== undefined) {
        if ((outs.flags & CKF.CKF_TOKEN_PRESENT) === 0n) gone(slot);
      } else if (name === "C_GetTokenInfo" && slot !== undefined) seen(slot, result);
      else if (name === "C_OpenSession" && slot !== undefined && outs.session !== undefined) {
        sessions.set(outs.session, slot);
        came(slot);
      } else if (name === "C_CloseSession" && session !== undefined) sessions.delete(session);
      else if (name === "C_CloseAllSessions" && slot !== undefined) forgetSessions(slot);
    },
    released: () => sessions.clear(),
    recheck() {
      for (const slot of [...identities.keys()]) seen(slot, look(slot));
    },
    get isMissing() {
      return missing.size > 0;
    },
    get isSwapped() {
      return [...identities].some(([slot, identity]) => firsts.get(slot) !== identity);
    },
    get isInUse() {
      return sessions.size > 0;
    },
  };
}
