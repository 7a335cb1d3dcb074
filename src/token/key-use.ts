/*
 * Operations with a key that takes a log-in of its own for each use (CKA_ALWAYS_AUTHENTICATE). Where the workstation is asked,
 * the log-in is made here before the operation goes on, whether or not the client makes it too, and once: what was given for
 * one operation never serves another. It must never let a second client between that log-in and the end of the operation.
 */
import type { AnyCall, CallClass } from "../cryptoki/calls.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallContext } from "../cryptoki/types.js";
import { asksLength } from "./held-sign.js";
import type { KeyLease } from "./key-lease.js";
import type { LoginDesk, OpenSession } from "./login.js";
import type { Session } from "./session-table.js";

/** The operation of such a key in a session. */
export interface KeyUse {
  readonly class: CallClass;
  /** Its log-in has been made. */
  authenticated: boolean;
}

export interface KeyUses {
  /** True when this call goes on with an operation of such a key. */
  goesOn(session: Session, call: AnyCall): boolean;
  /** The Init of one. */
  begin(session: Session, call: AnyCall, ctx: CallContext, init: () => Promise<AnyResult>): Promise<AnyResult>;
  /** A call of one that has begun. */
  goOn(
    session: Session,
    call: AnyCall,
    args: AnyArgs,
    open: OpenSession,
    ctx: CallContext,
    run: () => Promise<AnyResult>,
  ): Promise<AnyResult>;
  /** C_Login(CKU_CONTEXT_SPECIFIC) of a client; answers its CK_RV. */
  login(session: Session, open: OpenSession, pin: Buffer | null, ctx: CallContext): Promise<number>;
}

function isOver(call: AnyCall, args: AnyArgs, answer: AnyResult): boolean {
  if (asksLength(args, answer)) return false;
  return answer.rv !== CKR.CKR_OK || call.phase !== "update";
}

export function createKeyUses(desk: LoginDesk, lease: KeyLease): KeyUses {
  async function logIn(session: Session, use: KeyUse, open: OpenSession, pin: Buffer | null, ctx: CallContext): Promise<number> {
    // Asked for before: a client that logs in and an agent that did it already are one log-in.
    if (use.authenticated && desk.mode === "ask") return CKR.CKR_OK;
    const rv = await desk.loginForOperation(session.slot, open, pin, ctx);
    if (rv === CKR.CKR_OK) use.authenticated = true;
    return rv;
  }

  return {
    goesOn: ({ keyUse }, call) => keyUse !== null && keyUse.class === call.class && call.phase !== "none" && call.phase !== "init",
    begin: (session, call, ctx, init) =>
      lease.within(session, ctx, async () => {
        const answer = await init();
        if (answer.rv === CKR.CKR_OK) session.keyUse = { class: call.class, authenticated: false };
        return answer;
      }),
    goOn: (session, call, args, open, ctx, run) =>
      lease.within(session, ctx, async () => {
        const use = session.keyUse;
        const wants = use !== null && !use.authenticated && desk.mode === "ask";
        const login = wants ? await logIn(session, use, open, null, ctx) : CKR.CKR_OK;
        // Also after a no: the module must end the operation, or the next one would find it running.
        const answer = await run();
        if (isOver(call, args, answer)) session.keyUse = null;
        return login !== CKR.CKR_OK && answer.rv === CKR.CKR_USER_NOT_LOGGED_IN ? { rv: login } : answer;
      }),
    async login(session, open, pin, ctx) {
      const use = session.keyUse;
      // Not one that says so of itself: the module knows.
      if (use === null) return desk.loginForOperation(session.slot, open, pin, ctx);
      const { rv } = await lease.within(session, ctx, async () => ({ rv: await logIn(session, use, open, pin, ctx) }));
      return rv;
    },
  };
}
