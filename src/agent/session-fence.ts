/*
 * Two faces of one client's Cryptoki: one for the agent's own work on the client's behalf, one for the calls that the client
 * makes itself. A client must never reach a session of the first: whoever swapped the operation in it between C_SignInit and
 * C_Sign would get a signature other than the one that the workstation is told of.
 */
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, Cryptoki } from "../cryptoki/types.js";

export interface SessionFence {
  /** For the agent: the sessions opened here are out of the client's reach. */
  readonly own: Cryptoki;
  /** For the client's calls: such a session is none. Calls over a whole slot, as C_CloseAllSessions, mean them all the same. */
  readonly client: Cryptoki;
}

/** Closing either face closes `inner`. */
export function createSessionFence(inner: Cryptoki): SessionFence {
  const fenced = new Set<bigint>();
  return {
    own: {
      events: inner.events,
      close: () => inner.close(),
      call(name, args, ctx) {
        const answering = inner.call(name, args, ctx);
        if (name !== "C_OpenSession" && name !== "C_CloseSession") return answering;
        return answering.then((answer) => {
          if (name === "C_CloseSession") fenced.delete((args as AnyArgs)["session"] as bigint);
          else if (answer.rv === CKR.CKR_OK) fenced.add((answer as AnyResult)["session"] as bigint);
          return answer;
        });
      },
    },
    client: {
      events: inner.events,
      close: () => inner.close(),
      async call(name, args, ctx) {
        const session = (args as AnyArgs)["session"];
        if (typeof session === "bigint" && fenced.has(session)) return { rv: CKR.CKR_SESSION_HANDLE_INVALID } as never;
        const answer = await inner.call(name, args, ctx);
        // One of ours that was closed with its slot may be given out again.
        if (name === "C_OpenSession" && answer.rv === CKR.CKR_OK) fenced.delete((answer as AnyResult)["session"] as bigint);
        return answer;
      },
    },
  };
}
