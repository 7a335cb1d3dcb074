/*
 * Follows what one client does that changes what is seen: where it is logged in, and what it has changed on the token. A
 * layer that changes nothing itself and makes no call of its own.
 */
import { callByName } from "../cryptoki/calls.js";
import { CKU } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, Cryptoki } from "../cryptoki/types.js";

export interface ClientWatchOptions {
  /** This client's log-in on a slot began or ended. */
  onLogin(): void;
  /** This client has changed the token. */
  onMutation(): void;
}

export interface WatchedCryptoki extends Cryptoki {
  /** Slots that this client counts as logged in to, in order. */
  loggedIn(): readonly bigint[];
}

/** A Cryptoki for one client that tells of its log-ins and changes. */
export function watchClient(inner: Cryptoki, options: ClientWatchOptions): WatchedCryptoki {
  const slotOf = new Map<bigint, bigint>();
  const users = new Set<bigint>();

  function set(slot: bigint | undefined, inside: boolean): void {
    if (slot === undefined || users.has(slot) === inside) return;
    if (inside) users.add(slot);
    else users.delete(slot);
    options.onLogin();
  }

  /** With the last session of a slot the log-in there ends (PKCS#11 v2.40, 5.6). */
  function closed(sessions: readonly bigint[]): void {
    const slots = new Set(sessions.map((session) => slotOf.get(session)));
    for (const session of sessions) slotOf.delete(session);
    const open = new Set(slotOf.values());
    for (const slot of slots) if (slot !== undefined && !open.has(slot)) set(slot, false);
  }

  function follow(name: string, args: AnyArgs, answer: AnyResult): void {
    const session = args["session"] as bigint;
    switch (name) {
      case "C_OpenSession":
        slotOf.set(answer["session"] as bigint, args["slot"] as bigint);
        return;
      case "C_CloseSession":
        closed([session]);
        return;
      case "C_CloseAllSessions":
        closed([...slotOf].filter(([, slot]) => slot === args["slot"]).map(([open]) => open));
        return;
      case "C_Finalize":
        closed([...slotOf.keys()]);
        return;
      case "C_Login":
        if (args["userType"] !== CKU.CKU_CONTEXT_SPECIFIC) set(slotOf.get(session), true);
        return;
      case "C_Logout":
        set(slotOf.get(session), false);
        return;
    }
  }

  return {
    events: inner.events,
    close: () => inner.close(),
    loggedIn: () => [...users].sort((a, b) => (a < b ? -1 : 1)),
    call(name, args, ctx) {
      // No async function: what every call of a client passes is kept light.
      return inner.call(name, args, ctx).then((answer) => {
        if (answer.rv === CKR.CKR_OK) follow(name, args as AnyArgs, answer as AnyResult);
        // A log-in that the token has lost ends where it is found out.
        else if (answer.rv === CKR.CKR_USER_NOT_LOGGED_IN) set(slotOf.get((args as AnyArgs)["session"] as bigint), false);
        // Also one that failed may have left something behind.
        if (callByName(name).class === "mutation") options.onMutation();
        return answer;
      });
    },
  };
}
