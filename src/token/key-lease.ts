/*
 * The token for one client alone: a key that takes a log-in of its own for each use loses that log-in with any other command
 * to the card, so from its Init to the end of the operation everybody else waits in line. Never for ever: a client that
 * leaves its operation lying loses the lease, and the log-in for it counts as lost then (design.md, section 7).
 */
import { createWithdrawals } from "../base/withdrawals.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyResult, CallContext, Cryptoki } from "../cryptoki/types.js";
import type { TokenHost } from "./host/host.js";
import type { Session } from "./session-table.js";

/** From the end of one call of the operation until the next must have come. */
const LEASE_MS = 10_000;
/** For one client in all, whatever it waits for: a PIN (60 s) and a touch (3 min). */
const MOST_MS = 240_000;

export interface KeyLease {
  /** The host as all clients use it: their calls wait while another client has the lease. */
  readonly host: TokenHost;
  /** Runs `action` with the lease of this session; it is kept while `session.keyUse` says that the operation goes on. */
  within(session: Session, ctx: CallContext, action: () => Promise<AnyResult>): Promise<AnyResult>;
  /** The session, or its operation, is gone. */
  end(session: Session): void;
}

interface Held {
  readonly client: string;
  /** The sessions of that client with such an operation. */
  readonly sessions: Set<Session>;
  /** Calls under way; the deadline runs while there is none. */
  running: number;
  timer: NodeJS.Timeout | undefined;
  /** Ends it in any case. */
  readonly limit: NodeJS.Timeout;
}

/** No lease yet. It covers the module: which calls of another slot reach this card nobody can tell. */
export function createKeyLease(inner: TokenHost): KeyLease {
  let held: Held | null = null;
  let line: (() => void)[] = [];
  /** Who has gone waits no longer. */
  const given = createWithdrawals<{ go(): void }>((waiter) => waiter.go());

  const isFree = (ctx: CallContext) => held === null || held.client === ctx.client;

  function drop(): void {
    clearTimeout(held?.timer);
    clearTimeout(held?.limit);
    held = null;
    const waiting = line;
    line = [];
    for (const go of waiting) go();
  }

  /**
   * Waits until the lease that somebody else has is over. False when the caller has gone before. Others wait too: whether it is
   * free is to be asked again, right before it is used or taken.
   */
  async function turn(ctx: CallContext): Promise<boolean> {
    if (!ctx.signal.aborted) {
      await new Promise<void>((resolve) => {
        const waiter = {
          go() {
            leave();
            resolve();
          },
        };
        const leave = given.watch(ctx.signal, waiter);
        line.push(waiter.go);
      });
    }
    return !ctx.signal.aborted;
  }

  /** A handle that has waited may have become another session's: the module has been started again. */
  async function afterTurn<T>(args: object, ctx: CallContext, fail: (rv: number) => T, run: () => Promise<T>): Promise<T> {
    const { epoch } = inner;
    while (!isFree(ctx)) if (!(await turn(ctx))) return fail(CKR.CKR_FUNCTION_CANCELED);
    return "session" in args && inner.epoch !== epoch ? fail(CKR.CKR_SESSION_HANDLE_INVALID) : run();
  }

  const call: Cryptoki["call"] = (name, args, ctx) => {
    const run = () => inner.cryptoki.call(name, args, ctx);
    return isFree(ctx) ? run() : afterTurn(args, ctx, (rv) => ({ rv }) as Awaited<ReturnType<typeof run>>, run);
  };
  const host: TokenHost = {
    ...inner,
    cryptoki: { events: inner.events, close: async () => {}, call },
    pair: (first, then, ctx, again) =>
      isFree(ctx)
        ? inner.pair(first, then, ctx, again)
        : afterTurn(
            then.args,
            ctx,
            (rv) => ({ result: { rv }, begun: false, ahead: false }),
            () => inner.pair(first, then, ctx, again),
          ),
    unlock: (request, ctx) =>
      isFree(ctx)
        ? inner.unlock(request, ctx)
        : afterTurn(
            request,
            ctx,
            (rv) => ({ rv, asked: false }),
            () => inner.unlock(request, ctx),
          ),
    get epoch() {
      return inner.epoch;
    },
    get pid() {
      return inner.pid;
    },
  };

  function expire(): void {
    for (const session of held?.sessions ?? []) if (session.keyUse !== null) session.keyUse.authenticated = false;
    drop();
  }

  function end(session: Session): void {
    if (held?.sessions.delete(session) && held.sessions.size === 0) drop();
  }

  return {
    host,
    async within(session, ctx, action) {
      while (!isFree(ctx)) if (!(await turn(ctx))) return { rv: CKR.CKR_FUNCTION_CANCELED };
      held ??= { client: ctx.client, sessions: new Set(), running: 0, timer: undefined, limit: setTimeout(expire, MOST_MS).unref() };
      const mine = held;
      mine.sessions.add(session);
      mine.running += 1;
      clearTimeout(mine.timer);
      try {
        return await action();
      } finally {
        mine.running -= 1;
        if (held === mine) {
          if (session.keyUse === null) end(session);
          if (held === mine && mine.running === 0) mine.timer = setTimeout(expire, LEASE_MS).unref();
        }
      }
    },
    end,
  };
}
