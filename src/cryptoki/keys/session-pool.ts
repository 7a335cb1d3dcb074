/*
 * The sessions of a key ring: a few per slot, handed out one user at a time, so that signatures overlap and none pays for
 * opening one. It must never hand one session to two users, and never keep one whose state is not known.
 */
import { createWithdrawals } from "../../base/withdrawals.js";
import { CKF } from "../constants.js";
import { CKR } from "../rv.js";
import type { CallContext, Cryptoki } from "../types.js";
import { cryptokiError, type KeyError } from "./key-error.js";

/** `reuse`: nothing runs in it. `close`: something may. `void`: the module does not know it any more. */
export type SessionFate = "reuse" | "close" | "void";

export interface SessionPool {
  /** The same at once, or null where it would have to wait, to open one, or to reject. */
  takeIdle(slot: bigint, ctx: CallContext): bigint | null;
  /**
   * A session of the slot, for this caller alone until `release`. Waits, first come first served, while all are in use.
   * Rejects with KeyError `cryptoki`: what C_OpenSession said, or CKR_FUNCTION_CANCELED when the signal was aborted.
   */
  acquire(slot: bigint, ctx: CallContext): Promise<bigint>;
  /** Gives it back. `void` also drops the idle ones of the slot, which went the same way. */
  release(slot: bigint, session: bigint, fate: SessionFate, ctx: CallContext): void;
  /** Closes the idle sessions, those in use when they come back, and turns waiters away. */
  close(ctx: CallContext): Promise<void>;
}

interface Waiter {
  readonly sessions: SlotSessions;
  /** null: there is room for one more; try again. */
  readonly resolve: (session: bigint | null) => void;
  readonly reject: (reason: KeyError) => void;
}

interface SlotSessions {
  readonly idle: bigint[];
  readonly waiters: Set<Waiter>;
  /** Open or being opened. */
  count: number;
  /** Learned from CKR_SESSION_COUNT. */
  max: number;
  /** Handed out and not given back. */
  readonly inUse: Set<bigint>;
}

const cancelled = () => cryptokiError("C_OpenSession", CKR.CKR_FUNCTION_CANCELED);

export function createSessionPool(cryptoki: Cryptoki, maxSessions: number): SessionPool {
  const slots = new Map<bigint, SlotSessions>();
  let closed = false;

  function of(slot: bigint): SlotSessions {
    const known = slots.get(slot);
    if (known !== undefined) return known;
    const made: SlotSessions = { idle: [], waiters: new Set(), count: 0, max: maxSessions, inUse: new Set() };
    slots.set(slot, made);
    return made;
  }

  function wake(sessions: SlotSessions, session: bigint | null): boolean {
    for (const waiter of sessions.waiters) {
      sessions.waiters.delete(waiter);
      if (session !== null) sessions.inUse.add(session);
      waiter.resolve(session);
      return true;
    }
    return false;
  }

  const withdrawals = createWithdrawals<Waiter>((waiter) => {
    waiter.sessions.waiters.delete(waiter);
    waiter.reject(cancelled());
  });

  function wait(sessions: SlotSessions, signal: AbortSignal): Promise<bigint | null> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        sessions,
        resolve: (session) => {
          settled();
          resolve(session);
        },
        reject: (reason) => {
          settled();
          reject(reason);
        },
      };
      const settled = withdrawals.watch(signal, waiter);
      sessions.waiters.add(waiter);
    });
  }

  async function open(slot: bigint, sessions: SlotSessions, ctx: CallContext): Promise<bigint | null> {
    sessions.count += 1;
    const { rv, session } = await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
    if (rv === CKR.CKR_OK && session !== undefined) {
      sessions.inUse.add(session);
      return session;
    }
    sessions.count -= 1;
    // The token has no room for another: the ones there are have to do.
    if (rv === CKR.CKR_SESSION_COUNT && sessions.count > 0) {
      sessions.max = sessions.count;
      return null;
    }
    wake(sessions, null);
    throw cryptokiError("C_OpenSession", rv);
  }

  /** The session goes on living for nobody: it is closed without anybody waiting for it. */
  function shut(session: bigint, ctx: CallContext): Promise<unknown> {
    const detached = { ...ctx, signal: new AbortController().signal };
    return cryptoki.call("C_CloseSession", { session }, detached).catch(() => undefined);
  }

  function takeIdle(slot: bigint, ctx: CallContext): bigint | null {
    if (closed || ctx.signal.aborted) return null;
    const sessions = of(slot);
    const idle = sessions.idle.pop();
    if (idle === undefined) return null;
    sessions.inUse.add(idle);
    return idle;
  }

  return {
    takeIdle,
    async acquire(slot, ctx) {
      const sessions = of(slot);
      for (;;) {
        if (closed) throw cryptokiError("C_OpenSession", CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
        if (ctx.signal.aborted) throw cancelled();
        const idle = takeIdle(slot, ctx);
        if (idle !== null) return idle;
        const got = sessions.count < sessions.max ? await open(slot, sessions, ctx) : await wait(sessions, ctx.signal);
        if (got !== null) return got;
      }
    },
    release(slot, session, fate, ctx) {
      const sessions = of(slot);
      // Given back before: counted once.
      if (!sessions.inUse.delete(session)) return;
      if (fate === "reuse" && !closed) {
        if (!wake(sessions, session)) sessions.idle.push(session);
        return;
      }
      sessions.count -= 1;
      if (fate === "void") {
        sessions.count -= sessions.idle.splice(0).length;
        sessions.max = maxSessions;
      } else {
        void shut(session, ctx);
      }
      wake(sessions, null);
    },
    async close(ctx) {
      if (closed) return;
      closed = true;
      const ending: Promise<unknown>[] = [];
      for (const sessions of slots.values()) {
        for (const waiter of sessions.waiters) waiter.reject(cancelled());
        sessions.waiters.clear();
        for (const session of sessions.idle.splice(0)) ending.push(shut(session, ctx));
      }
      await Promise.all(ending);
    },
  };
}
