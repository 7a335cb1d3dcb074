/*
 * The sessions of one client: virtual handles, the real session behind each, and who the client is logged in as.
 * A real session that was lost (a restarted host, a released card) is opened again when it is next needed.
 */
import { randomBytes } from "node:crypto";
import type { CallClass } from "../cryptoki/calls.js";
import { CKF, CKS, CKU } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyResult, CallContext } from "../cryptoki/types.js";
import type { Shared } from "./broker.js";
import type { HeldSign, SignState } from "./held-sign.js";
import type { KeyUse } from "./key-use.js";
import type { LostLogin } from "./login.js";

/** Sessions one client may hold; one more is CKR_SESSION_COUNT. */
const MAX_SESSIONS_PER_CLIENT = 256;
/** CK_INVALID_HANDLE. */
export const NO_HANDLE = 0n;

/** A session of the module. */
export interface RealSession extends SignState {
  readonly handle: bigint;
  readonly epoch: number;
  /** Holds session objects, which die with it. */
  hasObjects: boolean;
}

export interface Session {
  readonly handle: bigint;
  readonly slot: bigint;
  readonly flags: bigint;
  real: RealSession | null;
  /** A C_SignInit that waits for C_Sign. */
  held: HeldSign | null;
  /** A signature was begun ahead in it (held-sign.ts), and another one came. */
  wasInVain: boolean;
  /** An operation with a key that takes a log-in of its own. */
  keyUse: KeyUse | null;
  /** What is left of the running search, or null when there is none. */
  found: bigint[] | null;
  /** A private object is in use by a running operation, which a log-out must end. */
  usesPrivate: boolean;
  /** A call is running. Calls on one session run one after another, whatever the wire allows; see `inTurn`. */
  busy: boolean;
  /** Those that wait for their turn, in order. */
  readonly waiting: (() => void)[];
}

export interface SessionTable {
  get(handle: bigint): Session | undefined;
  all(): readonly Session[];
  ofSlot(slot: bigint): readonly Session[];
  /** The user type this client is logged in as, by slot. */
  readonly users: Map<bigint, bigint>;
  open(slot: bigint, flags: bigint, ctx: CallContext): Promise<{ rv: number; session: Session | null }>;
  /** Closes a session; with its last one on a slot the client is logged out there (PKCS#11 v2.40, 5.6). */
  close(session: Session, ctx: CallContext): Promise<void>;
  closeAll(ctx: CallContext): Promise<void>;
  /**
   * The real handle of a session, opened again where it was lost. It must go into a call before anything else is
   * awaited: after a restart of the host the same number may be another client's session. `lost`: the module has said
   * that it does not know the last one.
   */
  real(session: Session, ctx: CallContext, lost?: boolean): Promise<{ rv: number; handle: bigint }>;
  /**
   * Sees to it that a client which counts as logged in really is. `lost`: a call has answered CKR_USER_NOT_LOGGED_IN, made in
   * this log-in generation; when that has passed, somebody has mended it already.
   */
  renew(slot: bigint, ctx: CallContext, lost: number | null, how?: LostLogin): Promise<number>;
  /** True when the real session and the log-in are there: `run` would begin at once. */
  isPresent(session: Session, ctx: CallContext): boolean;
  /** Gives the real session back; the virtual one stays. */
  release(session: Session, ctx: CallContext): Promise<void>;
  /** Gives it back for a new one, which comes first: with its last session a module logs out. */
  renewReal(session: Session, ctx: CallContext): Promise<void>;
  /**
   * Runs on the real session. Where the card lost the session or the log-in, that is made good and `run` tried once
   * more, if it is `repeatable` then: an operation that is under way cannot be begun again on another session. `lostHandle`: the
   * module does not know a private object's handle any more, as after a log-out.
   */
  run(
    session: Session,
    ctx: CallContext,
    repeatable: () => boolean,
    run: (handle: bigint) => Promise<AnyResult>,
    lostHandle?: (answer: AnyResult) => boolean,
  ): Promise<AnyResult>;
}

/** A random handle that is not taken: 31 bits, so that 32-bit clients can hold it. */
export function newHandle(taken: { has(handle: bigint): boolean }): bigint {
  for (;;) {
    const handle = BigInt(randomBytes(4).readUInt32BE() >>> 1);
    if (handle !== NO_HANDLE && !taken.has(handle)) return handle;
  }
}

/** Runs when every call that came before on this session has ended; at once, and without a promise of its own, where none has to. */
export function inTurn<T>(session: Session, run: () => T | Promise<T>): T | Promise<T> {
  if (session.busy) return new Promise<void>((resolve) => session.waiting.push(resolve)).then(() => takeTurn(session, run));
  session.busy = true;
  return takeTurn(session, run);
}

function takeTurn<T>(session: Session, run: () => T | Promise<T>): T | Promise<T> {
  let running: T | Promise<T>;
  try {
    running = run();
  } catch (thrown) {
    endTurn(session);
    return Promise.reject(thrown);
  }
  if (!(running instanceof Promise)) {
    endTurn(session);
    return running;
  }
  return running.then(
    (answer) => {
      endTurn(session);
      return answer;
    },
    (thrown: unknown) => {
      endTurn(session);
      throw thrown;
    },
  );
}

/** Handed over, not freed, where somebody waits: nobody who comes now gets in between. */
function endTurn(session: Session): void {
  const next = session.waiting.shift();
  if (next === undefined) session.busy = false;
  else next();
}

/** What C_GetSessionInfo says: the state is that of this client's log-in, not the module's. */
export function sessionInfo(session: Session, user: bigint | undefined): AnyResult {
  const writes = (session.flags & CKF.CKF_RW_SESSION) !== 0n;
  const open = writes ? CKS.CKS_RW_PUBLIC_SESSION : CKS.CKS_RO_PUBLIC_SESSION;
  const inUser = writes ? CKS.CKS_RW_USER_FUNCTIONS : CKS.CKS_RO_USER_FUNCTIONS;
  const state = user === undefined ? open : user === CKU.CKU_SO ? CKS.CKS_RW_SO_FUNCTIONS : inUser;
  return { rv: CKR.CKR_OK, slot: session.slot, state, flags: session.flags, deviceError: 0n };
}

const never = () => false;

/** One `run`. */
interface Attempt {
  readonly session: Session;
  readonly ctx: CallContext;
  readonly repeatable: () => boolean;
  readonly action: (handle: bigint) => Promise<AnyResult>;
  readonly lostHandle: (answer: AnyResult) => boolean;
  /** Another token may lie in the slot before it is over: nothing goes on with that one. */
  readonly removals: number;
}

export function createSessionTable({ host, desk, lease }: Shared): SessionTable {
  const sessions = new Map<bigint, Session>();
  const users = new Map<bigint, bigint>();

  async function real(session: Session, ctx: CallContext, lost = false): Promise<{ rv: number; handle: bigint }> {
    if (lost) session.real = null;
    if (session.real !== null && session.real.epoch === host.epoch) return { rv: CKR.CKR_OK, handle: session.real.handle };
    const opened = await host.cryptoki.call("C_OpenSession", { slot: session.slot, flags: session.flags }, ctx);
    if (opened.rv !== CKR.CKR_OK || opened.session === undefined) return { rv: opened.rv, handle: NO_HANDLE };
    const fresh = { signable: true, begun: null, made: null, ahead: null, operations: new Set<CallClass>(), hasObjects: false };
    session.real = { handle: opened.session, epoch: host.epoch, ...fresh };
    session.usesPrivate = false;
    return { rv: CKR.CKR_OK, handle: opened.session };
  }

  /** See SessionTable.renew. */
  async function renew(slot: bigint, ctx: CallContext, lost: number | null, how: LostLogin = "reset"): Promise<number> {
    const user = users.get(slot);
    if (user === undefined) return CKR.CKR_OK;
    const rv = await desk.renew(slot, user, ctx, lost !== null && lost === desk.generation(slot) ? how : null);
    if (rv === CKR.CKR_USER_NOT_LOGGED_IN) users.delete(slot);
    return rv;
  }

  async function release(session: Session, ctx: CallContext): Promise<void> {
    const held = session.real;
    session.real = null;
    session.usesPrivate = false;
    session.keyUse = null;
    lease.end(session);
    await closeReal(held, ctx);
  }

  async function renewReal(session: Session, ctx: CallContext): Promise<void> {
    const old = session.real;
    await real(session, ctx, true);
    await closeReal(old, ctx);
  }

  async function closeReal(old: RealSession | null, ctx: CallContext): Promise<void> {
    if (old !== null && old.epoch === host.epoch) await host.cryptoki.call("C_CloseSession", { session: old.handle }, ctx);
  }

  const ofSlot = (slot: bigint) => [...sessions.values()].filter((session) => session.slot === slot);

  async function close(session: Session, ctx: CallContext): Promise<void> {
    sessions.delete(session.handle);
    if (ofSlot(session.slot).length === 0 && users.delete(session.slot)) await desk.logout(session.slot, () => real(session, ctx), ctx);
    await release(session, ctx);
  }

  /** The real session where it and the log-in are there, and nothing has to be awaited. */
  function present(session: Session, ctx: CallContext): bigint | null {
    const user = users.get(session.slot);
    if (user !== undefined && !desk.isIn(session.slot, user, ctx)) return null;
    return session.real?.epoch === host.epoch ? session.real.handle : null;
  }

  const isAnother = ({ session, removals }: Attempt) => desk.removals(session.slot) !== removals;

  function run(...[session, ctx, repeatable, action, lostHandle = never]: Parameters<SessionTable["run"]>): Promise<AnyResult> {
    const attempt = { session, ctx, repeatable, action, lostHandle, removals: desk.removals(session.slot) };
    const handle = present(session, ctx);
    return handle === null ? runAnew(attempt) : runOn(handle, attempt);
  }

  /** First the log-in, which may take a person's time, then the session. */
  async function runAnew(attempt: Attempt): Promise<AnyResult> {
    const { session, ctx } = attempt;
    const user = users.get(session.slot);
    if (user !== undefined && !desk.isIn(session.slot, user, ctx)) {
      const renewed = await renew(session.slot, ctx, null);
      if (renewed !== CKR.CKR_OK) return { rv: renewed };
    }
    const { rv, handle } = await real(session, ctx);
    if (rv !== CKR.CKR_OK || isAnother(attempt)) return { rv: rv === CKR.CKR_OK ? CKR.CKR_DEVICE_REMOVED : rv };
    return runOn(handle, attempt);
  }

  function runOn(handle: bigint, attempt: Attempt): Promise<AnyResult> {
    const generation = desk.generation(attempt.session.slot);
    return attempt.action(handle).then((answer) => {
      const { rv } = answer;
      const isLost = rv === CKR.CKR_SESSION_HANDLE_INVALID || rv === CKR.CKR_SESSION_CLOSED || rv === CKR.CKR_USER_NOT_LOGGED_IN;
      return isLost || attempt.lostHandle(answer) ? mended(answer, generation, attempt) : answer;
    });
  }

  /** The answer after the card has lost the session or the log-in. */
  async function mended(answer: AnyResult, generation: number, attempt: Attempt): Promise<AnyResult> {
    const { session, ctx, repeatable, action, lostHandle } = attempt;
    if (answer.rv === CKR.CKR_SESSION_HANDLE_INVALID || answer.rv === CKR.CKR_SESSION_CLOSED) {
      session.real = null;
      if (!repeatable() || isAnother(attempt)) return { rv: CKR.CKR_DEVICE_REMOVED };
      // A module that has lost the session has lost the log-in as well, if the card was away for a moment.
      const rv = await renew(session.slot, ctx, generation, "unsure");
      if (rv !== CKR.CKR_OK || isAnother(attempt)) return { rv: rv === CKR.CKR_OK ? CKR.CKR_DEVICE_REMOVED : rv };
      return run(session, ctx, never, action);
    }
    const isReset = answer.rv === CKR.CKR_USER_NOT_LOGGED_IN;
    if ((isReset || lostHandle(answer)) && repeatable() && users.get(session.slot) === CKU.CKU_USER) {
      const rv = await renew(session.slot, ctx, generation, isReset ? "reset" : "unsure");
      if (isAnother(attempt)) return { rv: CKR.CKR_DEVICE_REMOVED };
      return rv === CKR.CKR_OK ? run(session, ctx, never, action) : { rv };
    }
    return answer;
  }

  return {
    users,
    get: (handle) => sessions.get(handle),
    all: () => [...sessions.values()],
    ofSlot,
    async open(slot, flags, ctx) {
      if (sessions.size >= MAX_SESSIONS_PER_CLIENT) return { rv: CKR.CKR_SESSION_COUNT, session: null };
      const handle = newHandle(sessions);
      const session: Session = {
        handle,
        slot,
        flags,
        real: null,
        held: null,
        wasInVain: false,
        keyUse: null,
        found: null,
        usesPrivate: false,
        busy: false,
        waiting: [],
      };
      // Opened at once, so that a client sees the module's own reason for a no.
      const { rv } = await real(session, ctx);
      if (rv !== CKR.CKR_OK) return { rv, session: null };
      sessions.set(handle, session);
      return { rv, session };
    },
    close,
    async closeAll(ctx) {
      for (const session of [...sessions.values()]) await close(session, ctx);
      users.clear();
    },
    real,
    renew,
    isPresent: (session, ctx) => present(session, ctx) !== null,
    release,
    renewReal,
    run,
  };
}
