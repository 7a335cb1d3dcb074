/*
 * C_SignInit held back, to go to the module together with C_Sign in one crossing: when the same key, mechanism and parameter have
 * made a signature before, the log-in and the objects are those of then, and no operation can be under way in the session. So
 * the module would say yes, and a client sees no other error than without it; what changed outside our sight is told by C_Sign.
 * It must never be used for a key that takes a log-in of its own for each signature: with one, no C_Sign follows its C_SignInit
 * at once, so nothing is proven. See design.md, section 5.
 */
import { type AnyCall, type CallClass, callByName } from "../cryptoki/calls.js";
import { CKR } from "../cryptoki/rv.js";
import { keptMechanism, sameMechanism } from "../cryptoki/same-mechanism.js";
import type { AnyArgs, AnyResult, CallContext, Mechanism } from "../cryptoki/types.js";
import type { Shared } from "./broker.js";
import type { HandleAge, ObjectRecord } from "./objects.js";
import type { RealSession, Session, SessionTable } from "./session-table.js";

/** What a C_SignInit was for. */
export interface SignStart {
  readonly record: ObjectRecord;
  readonly mechanism: Mechanism;
}

/** What is known of the operations in a real session. */
export interface SignState {
  /** A C_SignInit of a proven kind would succeed: nothing has begun yet, or the last that did was a signature, and it is done. */
  signable: boolean;
  /** What is under way, by the class of its calls. */
  readonly operations: Set<CallClass>;
  /** The signature that is under way, if nothing but its C_SignInit has been called. */
  begun: SignStart | null;
  /** The last signature that was made in it. */
  made: SignStart | null;
  /** Begun in the module for nobody yet: the next C_SignInit is likely to be for this. No other call may find it there. */
  ahead: AgedStart | null;
}

/** What a C_SignInit is for, and what its handles depend on. */
export interface AgedStart extends SignStart {
  readonly age: HandleAge;
}

/** A C_SignInit that the client was told has succeeded, and that the module has not seen. It is lost with the real session. */
export interface HeldSign extends AgedStart {
  readonly real: RealSession;
}

export interface SignProofs {
  /** Notes that this very kind of signature has succeeded. */
  add(start: SignStart, age: HandleAge): void;
  has(start: SignStart, age: HandleAge): boolean;
  /** A C_SignInit with this key has failed. */
  forget(record: ObjectRecord): void;
  /** Objects have changed. */
  clear(): void;
}

/** Kinds of signatures kept for each key. */
const MAX_MECHANISMS = 8;

const sameAge = (a: HandleAge, b: HandleAge) => a.epoch === b.epoch && a.loginGeneration === b.loginGeneration;
const sameStart = (a: SignStart, b: SignStart) => a.record === b.record && sameMechanism(a.mechanism, b.mechanism);

export function createSignProofs(): SignProofs {
  let proofs = new WeakMap<ObjectRecord, { readonly age: HandleAge; readonly mechanisms: Mechanism[] }>();

  function mechanismsOf(record: ObjectRecord, age: HandleAge): Mechanism[] | null {
    const known = proofs.get(record);
    return known !== undefined && sameAge(known.age, age) ? known.mechanisms : null;
  }

  return {
    add({ record, mechanism }, age) {
      const known = mechanismsOf(record, age);
      if (known === null) proofs.set(record, { age, mechanisms: [keptMechanism(mechanism)] });
      else if (!known.some((one) => sameMechanism(one, mechanism))) {
        known.push(keptMechanism(mechanism));
        if (known.length > MAX_MECHANISMS) known.shift();
      }
    },
    has: ({ record, mechanism }, age) => mechanismsOf(record, age)?.some((one) => sameMechanism(one, mechanism)) === true,
    forget: (record) => void proofs.delete(record),
    clear() {
      proofs = new WeakMap();
    },
  };
}

/** The calls that a held C_SignInit can be sent with. */
export const GOES_ON: ReadonlySet<string> = new Set(["C_Sign", "C_SignUpdate", "C_SignFinal"]);

/** Calls that neither need nor change an operation: a C_SignInit stays held over them. */
export function leavesOperations(call: AnyCall): boolean {
  return call.phase === "none" && (call.class === "object" || call.class === "information" || call.class === "random");
}

/** The call has given nothing yet, and its operation goes on: a length was asked for, or the room was too small. */
export function asksLength(args: AnyArgs, answer: AnyResult): boolean {
  return answer.rv === CKR.CKR_BUFFER_TOO_SMALL || (answer.rv === CKR.CKR_OK && args["room"] === null);
}

function track(operations: Set<CallClass>, call: AnyCall, args: AnyArgs, answer: AnyResult): void {
  if (call.phase === "none") return;
  if (call.phase === "init") {
    if (answer.rv === CKR.CKR_OK) operations.add(call.class);
  } else if (!asksLength(args, answer) && (answer.rv !== CKR.CKR_OK || call.phase !== "update")) operations.delete(call.class);
}

/** Keeps the state after a call; `start` is what a C_SignInit is for. Answers the signature that is done with it. */
function nextState(state: SignState, call: AnyCall, args: AnyArgs, answer: AnyResult, start: SignStart | null): SignStart | null {
  if (leavesOperations(call)) return null;
  track(state.operations, call, args, answer);
  const { begun } = state;
  if (call.name === "C_Sign" && asksLength(args, answer)) return null;
  const done = call.name === "C_Sign" && answer.rv === CKR.CKR_OK ? begun : null;
  if (done !== null) state.made = done;
  state.signable = done !== null;
  state.begun = call.name === "C_SignInit" && answer.rv === CKR.CKR_OK ? start : null;
  return done;
}

/** The held signatures of one client's sessions. */
export interface HeldSigns {
  /** True when this C_SignInit is held back, to be answered with CKR_OK. */
  hold(session: Session, start: SignStart): boolean;
  /** Takes what is held over, if it is not lost. */
  take(session: Session): HeldSign | null;
  /** One of GOES_ON, with the C_SignInit that was held for it. */
  goOn(session: Session, held: HeldSign, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult>;
  /** The same signature once more, after the token has lost the log-in that it was begun in. */
  again(session: Session, real: RealSession, start: SignStart): HeldSign;
  /** Begins it after all. Where that fails the operation is over, and the client's next call of it is told so. */
  begin(session: Session, held: HeldSign, ctx: CallContext): Promise<void>;
  /** True when a signature that was begun ahead lies in the real session, and this call must not find it there. */
  isInTheWay(session: Session, call: AnyCall): boolean;
  /** Takes it away, with the real session: PKCS#11 v2.40 has no other way to give an operation up. It is not tried in this session again. */
  clear(session: Session, ctx: CallContext): Promise<void>;
  /** Before something that `follow` is not told of touches the session: begins what is held, and clears what is ahead. */
  settle(session: Session, ctx: CallContext): Promise<void>;
  /** A call has been made in the real session `state`; `start` is what a C_SignInit is for. */
  follow(session: Session, state: RealSession | null, call: AnyCall, args: AnyArgs, answer: AnyResult, start: SignStart | null): void;
}

const signInit = callByName("C_SignInit");

/** `sees`: whether this client may see the object now. */
export function createHeldSigns(shared: Shared, table: SessionTable, sees: (record: ObjectRecord) => boolean): HeldSigns {
  const { host, objects, proofs, age } = shared;

  /** Whether the operation would still be there, had it begun when the client was told so. */
  function isFresh(session: Session, held: HeldSign): boolean {
    return sameAge(held.age, age(session.slot)) && session.real === held.real && sees(held.record);
  }

  /** Runs `action` with what C_SignInit takes; once more where it has not begun, because the card lost the session or the log-in. */
  function withInit(
    session: Session,
    held: HeldSign,
    ctx: CallContext,
    action: (init: { session: bigint; mechanism: Mechanism; key: bigint }) => Promise<{ answer: AnyResult; begun: boolean }>,
  ): Promise<AnyResult> {
    let tries = 0;
    let over = false;
    return table.run(
      session,
      ctx,
      () => !over,
      async (real) => {
        over = true;
        tries += 1;
        // Lost while the log-in was made good.
        if (tries === 1 && !isFresh(session, held)) return { rv: CKR.CKR_OPERATION_NOT_INITIALIZED };
        const now = age(session.slot);
        const key = objects.known(held.record, now) ?? (await objects.resolve(held.record, real, now, ctx));
        if (key === null) return { rv: CKR.CKR_KEY_HANDLE_INVALID };
        const { answer, begun } = await action({ session: real, mechanism: held.mechanism, key });
        over = begun;
        return answer;
      },
    );
  }

  function take(session: Session): HeldSign | null {
    const { held } = session;
    session.held = null;
    return held !== null && isFresh(session, held) ? held : null;
  }

  function follow(...[session, state, call, args, answer, start]: Parameters<HeldSigns["follow"]>): void {
    const done = state === null ? null : nextState(state, call, args, answer, start);
    if (done !== null) proofs.add(done, age(session.slot));
    if (start !== null && answer.rv !== CKR.CKR_OK) proofs.forget(start.record);
    if (call.class === "mutation") proofs.clear();
  }

  /** C_SignInit has been made, or taken back, in the session `state`; after it this lies there. */
  function wentOn(state: SignState | null, answer: AnyResult, ahead: AgedStart | null): void {
    if (state !== null && answer.rv !== CKR.CKR_FUNCTION_CANCELED) state.ahead = ahead;
  }

  /** Whether it is worth having the module begin this signature once more at once. */
  function isLikelyAgain({ wasInVain }: Session, state: RealSession | null, held: HeldSign, call: AnyCall): boolean {
    if (wasInVain || state === null || state.hasObjects || state.operations.size > 0 || call.name !== "C_Sign") return false;
    return state.made !== null && sameStart(state.made, held);
  }

  async function clear(session: Session, ctx: CallContext): Promise<void> {
    session.wasInVain = true;
    await table.renewReal(session, ctx);
  }

  async function begin(session: Session, held: HeldSign, ctx: CallContext): Promise<void> {
    await withInit(session, held, ctx, async (init) => {
      const state = session.real;
      const answer = (await host.cryptoki.call("C_SignInit", init, ctx)) as AnyResult;
      wentOn(state, answer, null);
      follow(session, state, signInit, init, answer, held);
      return { answer, begun: answer.rv === CKR.CKR_OK };
    });
  }

  return {
    hold(session, start) {
      const { real } = session;
      const now = age(session.slot);
      // An object that needs no log-in outlives one, and its operation might.
      if (real === null || !real.signable || !start.record.private || start.record.alwaysAuthenticate || !proofs.has(start, now))
        return false;
      if (real.ahead !== null && !(sameStart(real.ahead, start) && sameAge(real.ahead.age, now))) return false;
      session.held = { record: start.record, mechanism: keptMechanism(start.mechanism), real, age: now };
      session.usesPrivate = true;
      return true;
    },
    take,
    again: (session, real, start) => ({ ...start, real, age: age(session.slot) }),
    goOn: (session, held, call, args, ctx) =>
      withInit(session, held, ctx, async (init) => {
        const state = session.real;
        const given: Record<string, unknown> = { ...args };
        given["session"] = init.session;
        const then = { name: call.name, args: given };
        const again = isLikelyAgain(session, state, held, call);
        const now = age(session.slot);
        const { result, begun, ahead } = await host.pair({ name: "C_SignInit", args: init }, then, ctx, again);
        const answer = result as AnyResult;
        wentOn(state, answer, ahead ? { record: held.record, mechanism: held.mechanism, age: now } : null);
        follow(session, state, signInit, init, begun ? { rv: CKR.CKR_OK } : answer, held);
        if (begun) follow(session, state, call, args, answer, null);
        // C_Sign has told of a reset card: it made no signature, and has ended the operation.
        const reset = call.name === "C_Sign" && answer.rv === CKR.CKR_USER_NOT_LOGGED_IN;
        return { answer, begun: begun && !reset };
      }),
    begin,
    isInTheWay({ real, slot }, call) {
      // With another process all sessions of the module have gone.
      if (real === null || real.ahead === null || real.epoch !== host.epoch) return false;
      return !(leavesOperations(call) && sameAge(real.ahead.age, age(slot)));
    },
    clear,
    async settle(session, ctx) {
      const held = take(session);
      if (held !== null) await begin(session, held, ctx);
      if (session.real !== null && session.real.ahead !== null) await clear(session, ctx);
      if (session.real !== null) session.real.begun = null;
    },
    follow,
  };
}
