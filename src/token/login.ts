/*
 * Who may use the logged-in token: the real log-in of each slot, shared by all clients, and what each destination has
 * been granted. The PIN itself stays in the host, `client` mode aside, where this file holds only a salted scrypt of it.
 * It must never report a success for a PIN that was not checked, nor spend a try that nobody asked for.
 */
import { CKF, CKS, CKU } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyResult, CallContext } from "../cryptoki/types.js";
import { type AcceptedPin, acceptPin } from "./accepted-pin.js";
import type { TokenHost, UnlockResult } from "./host/host.js";
import { destinationKey, whoAsks } from "./origins.js";
import { createPinGate } from "./pin-gate.js";
import { createQuestions } from "./questions.js";
import { createRefusalMemory } from "./refusal-memory.js";

/** `ask`: a PIN from a client is never used, the workstation is asked. `client`: the client's PIN is passed through. */
export type PinMode = "ask" | "client";

interface SlotState {
  /** Who is really logged in, and in which epoch of the host; void when the epoch has passed. */
  real: { readonly userType: bigint; readonly epoch: number } | null;
  generation: number;
  removals: number;
  /** `client` mode: who has shown the PIN to this log-in; the last one to leave logs the token out. */
  readonly clients: Set<string>;
  readonly unlocked: Set<string>;
  accepted: AcceptedPin | null;
  /** A session of ours that keeps the token logged in when a client's last one closes (`ask` only). */
  anchor: { readonly handle: bigint; readonly epoch: number } | null;
}

/**
 * Opens a real session of the slot in question: asked for when it is needed, for a handle is void after a restart.
 * `lost`: the module does not know the last one any more.
 */
export type OpenSession = (lost?: boolean) => Promise<{ readonly rv: number; readonly handle: bigint }>;

/** `reset`: a call was answered CKR_USER_NOT_LOGGED_IN. `unsure`: something hints at it, and the module is to be asked. */
export type LostLogin = "reset" | "unsure";

export interface LoginDesk {
  readonly mode: PinMode;
  /** Counts real log-ins and log-outs of a slot (see HandleAge). */
  generation(slot: bigint): number;
  /** Counts how often the token of a slot has gone: what began before may not go on with the next one. */
  removals(slot: bigint): number;
  /** C_Login of a client that is not logged in: answers its CK_RV. */
  login(slot: bigint, open: OpenSession, userType: bigint, pin: Buffer | null, ctx: CallContext): Promise<number>;
  /** C_Login(CKU_CONTEXT_SPECIFIC): the key asks for the PIN of the running operation on this session. */
  loginForOperation(slot: bigint, open: OpenSession, pin: Buffer | null, ctx: CallContext): Promise<number>;
  /** Another call that carries a client's PIN and may spend a try of it: C_SetPIN, C_InitToken (`client` mode). */
  withPin(slot: bigint, userType: bigint, ctx: CallContext, run: () => Promise<AnyResult>): Promise<AnyResult>;
  /** C_Logout, or the end of a client's last session. */
  logout(slot: bigint, open: OpenSession, ctx: CallContext): Promise<void>;
  /** True when the real log-in is there, and this client's: nothing needs to be made good. */
  isIn(slot: bigint, userType: bigint, ctx: CallContext): boolean;
  /**
   * Makes the real log-in good again for a client that counts as logged in, after a restart, a reset card (`lost`) or a
   * pulled token. CKR_USER_NOT_LOGGED_IN where that takes the client's own PIN: it counts as logged out then.
   */
  renew(slot: bigint, userType: bigint, ctx: CallContext, lost: LostLogin | null): Promise<number>;
  /** After C_SetPIN: the PIN that a second client is checked against. */
  pinChanged(slot: bigint, newPin: Buffer | null): Promise<void>;
  /** Really logs out, whoever counts as logged in: before C_InitToken and an SO log-in. `open` null: there is no session. */
  drop(slot: bigint, open: OpenSession | null, ctx: CallContext): Promise<void>;
  /** Forgets a client that has gone. */
  leave(client: string): void;
  /** True when the workstation has unlocked the token for the destination. */
  isUnlockedFor(slot: bigint, ctx: CallContext): boolean;
  /** Unlocks for this destination without a client's C_Login: `--unlock now`. */
  unlock(slot: bigint, ctx: CallContext): Promise<UnlockResult>;
}

/**
 * The desk of one host. `first` is that of the first host of a pool (mode `ask`): it asks the person and knows who is unlocked, and
 * this one makes its host's own log-in after it.
 */
export function createLoginDesk(host: TokenHost, mode: PinMode, first: LoginDesk | null = null): LoginDesk {
  const slots = new Map<bigint, SlotState>();
  const { remembering, forget } = createRefusalMemory();
  const gate = createPinGate(host);
  const questions = createQuestions<UnlockResult>({ rv: CKR.CKR_FUNCTION_CANCELED, asked: false, reason: "cancelled" });

  function stateOf(slot: bigint): SlotState {
    const known = slots.get(slot);
    if (known !== undefined) return known;
    const state: SlotState = {
      real: null,
      generation: 0,
      removals: 0,
      clients: new Set(),
      unlocked: new Set(),
      accepted: null,
      anchor: null,
    };
    slots.set(slot, state);
    return state;
  }

  const isReal = (state: SlotState, userType: bigint) => state.real?.userType === userType && state.real.epoch === host.epoch;

  /** The real log-in alone is not enough: another destination, or a client with a PIN of its own, may have made it since. */
  function isIn(slot: bigint, userType: bigint, ctx: CallContext): boolean {
    const state = stateOf(slot);
    return isReal(state, userType) && (mode === "ask" ? isUnlockedFor(slot, ctx) : state.clients.has(ctx.client));
  }

  function isUnlockedFor(slot: bigint, ctx: CallContext): boolean {
    return first === null ? stateOf(slot).unlocked.has(destinationKey(ctx.origin)) : first.isUnlockedFor(slot, ctx);
  }

  function setReal(state: SlotState, userType: bigint | null): void {
    state.real = userType === null ? null : { userType, epoch: host.epoch };
    state.generation += 1;
  }

  /** The session the log-in hangs on, opened where there is none; its CK_RV when it cannot be. */
  async function anchorOf(slot: bigint, ctx: CallContext): Promise<{ rv: number; handle: bigint }> {
    const state = stateOf(slot);
    const { anchor } = state;
    if (anchor !== null && anchor.epoch === host.epoch) return { rv: CKR.CKR_OK, handle: anchor.handle };
    const opened = await host.cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
    if (opened.rv !== CKR.CKR_OK || opened.session === undefined) return { rv: opened.rv, handle: 0n };
    state.anchor = { handle: opened.session, epoch: host.epoch };
    return { rv: CKR.CKR_OK, handle: opened.session };
  }

  async function unlock(slot: bigint, ctx: CallContext, lost = false): Promise<UnlockResult> {
    const state = stateOf(slot);
    const key = destinationKey(ctx.origin);
    const isOpen = (): boolean => isReal(state, CKU.CKU_USER) && isUnlockedFor(slot, ctx);
    if (isOpen()) {
      await forgetIfLost(slot, ctx);
      if (isOpen()) return { rv: CKR.CKR_OK, asked: false };
    }
    const who = whoAsks(ctx.origin);
    if (first !== null) return unlockAfter(first, slot, who, lost, ctx);
    return questions.ask(`${slot}/${key}`, ctx.signal, async (signal) => {
      const inner = { ...ctx, signal };
      if (isOpen()) return { rv: CKR.CKR_OK, asked: false };
      // Another destination has unlocked the token: this one needs a yes, not the PIN.
      if (isReal(state, CKU.CKU_USER)) return grant(state, key, who, inner);
      const result = await unlockReally(slot, who, lost, inner);
      if (result.rv !== CKR.CKR_OK) return result;
      // While this one waited in line another may have been asked: then nobody has said yes to this one.
      const othersAnswered = !result.asked && !state.unlocked.has(key) && state.unlocked.size > 0;
      if (!isReal(state, CKU.CKU_USER)) setReal(state, CKU.CKU_USER);
      if (othersAnswered) return grant(state, key, who, inner);
      state.unlocked.add(key);
      return result;
    });
  }

  /**
   * A token that was pulled and put back before anybody looked has lost its log-in without a word, and new sessions of it show no
   * private object: so the module is asked before a client is told that it is in.
   */
  async function forgetIfLost(slot: bigint, ctx: CallContext): Promise<void> {
    const state = stateOf(slot);
    const { real, anchor } = state;
    if (anchor !== null && anchor.epoch === host.epoch) {
      const info = await host.cryptoki.call("C_GetSessionInfo", { session: anchor.handle }, ctx);
      if (info.state === CKS.CKS_RO_USER_FUNCTIONS || info.state === CKS.CKS_RW_USER_FUNCTIONS) return;
    }
    if (state.real === real && real !== null) setReal(state, null);
  }

  /** In another host than the first, once the first has the token open for this destination. */
  async function unlockAfter(desk: LoginDesk, slot: bigint, who: string, lost: boolean, ctx: CallContext): Promise<UnlockResult> {
    const granted = await desk.unlock(slot, ctx);
    if (granted.rv !== CKR.CKR_OK) return granted;
    return questions.ask(String(slot), ctx.signal, async (signal) => {
      const state = stateOf(slot);
      if (isReal(state, CKU.CKU_USER)) return granted;
      const result = await unlockReally(slot, who, lost, { ...ctx, signal });
      if (result.rv === CKR.CKR_OK && !isReal(state, CKU.CKU_USER)) setReal(state, CKU.CKU_USER);
      return { ...result, asked: granted.asked || result.asked };
    });
  }

  /** The log-in of the host, for the token that was there before. */
  async function unlockReally(slot: bigint, who: string, lost: boolean, ctx: CallContext): Promise<UnlockResult> {
    const state = stateOf(slot);
    const { removals } = state;
    const anchor = await anchorOf(slot, ctx);
    if (anchor.rv !== CKR.CKR_OK) return { rv: anchor.rv, asked: false };
    // It was opened again for this, and another token may lie there: no PIN of the first one for that.
    if (state.removals !== removals) return { rv: CKR.CKR_DEVICE_REMOVED, asked: false };
    const result = await unlockAnchored(slot, anchor.handle, who, lost, ctx);
    // It was pulled before we heard that it is unlocked.
    return result.rv === CKR.CKR_OK && state.removals !== removals ? { ...result, rv: CKR.CKR_DEVICE_REMOVED } : result;
  }

  /** Through the anchor, which is opened again where the card has lost it. */
  async function unlockAnchored(slot: bigint, session: bigint, who: string, lost: boolean, ctx: CallContext): Promise<UnlockResult> {
    const request = { slot, userType: CKU.CKU_USER, who, lost };
    const result = await host.unlock({ ...request, session }, ctx);
    if (result.rv !== CKR.CKR_SESSION_HANDLE_INVALID && result.rv !== CKR.CKR_SESSION_CLOSED) return result;
    stateOf(slot).anchor = null;
    const anchor = await anchorOf(slot, ctx);
    return anchor.rv === CKR.CKR_OK ? host.unlock({ ...request, session: anchor.handle }, ctx) : { rv: anchor.rv, asked: result.asked };
  }

  /** A yes at the workstation for one more destination. */
  async function grant(state: SlotState, key: string, who: string, ctx: CallContext): Promise<UnlockResult> {
    const yes = await host.confirm(`let ${who} use the token as well?`, ctx);
    if (!yes) return { rv: CKR.CKR_FUNCTION_REJECTED, asked: true, reason: "cancelled" };
    state.unlocked.add(key);
    return { rv: CKR.CKR_OK, asked: true };
  }

  const isHeld = (state: SlotState) => state.real !== null && state.real.epoch === host.epoch && state.clients.size > 0;

  /** C_Login with a client's PIN: checked by the token, or against the PIN it accepted from another client. */
  async function loginPassing(slot: bigint, open: OpenSession, userType: bigint, pin: Buffer, ctx: CallContext): Promise<number> {
    const state = stateOf(slot);
    if (isHeld(state)) {
      if (state.real?.userType !== userType) return CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
      const same = (await state.accepted?.isSame(pin)) === true;
      if (same) state.clients.add(ctx.client);
      return same ? CKR.CKR_OK : CKR.CKR_PIN_INCORRECT;
    }
    const rv = await loginReally(open, userType, pin, ctx);
    if (rv !== CKR.CKR_OK) return rv;
    setReal(state, userType);
    // Whoever was in before has lost that log-in, and this may be another token.
    state.clients.clear();
    state.clients.add(ctx.client);
    state.accepted = await acceptPin(pin);
    return rv;
  }

  async function loginReally(open: OpenSession, userType: bigint, pin: Buffer, ctx: CallContext, lost = false): Promise<number> {
    const { rv: opened, handle: session } = await open(lost);
    if (opened !== CKR.CKR_OK) return opened;
    const { rv } = await host.cryptoki.call("C_Login", { session, userType, pin }, ctx);
    if (rv === CKR.CKR_SESSION_HANDLE_INVALID && !lost) return loginReally(open, userType, pin, ctx, true);
    if (rv !== CKR.CKR_USER_ALREADY_LOGGED_IN && rv !== CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN) return rv;
    // Nobody counts as logged in: a log-out has not reached the module, and this PIN has not been checked yet.
    await host.cryptoki.call("C_Logout", { session }, ctx);
    return (await host.cryptoki.call("C_Login", { session, userType, pin }, ctx)).rv;
  }

  /** Logs the module out through a session of this slot. */
  async function logoutReally(open: OpenSession, ctx: CallContext): Promise<void> {
    const { rv, handle } = await open();
    if (rv === CKR.CKR_OK) await host.cryptoki.call("C_Logout", { session: handle }, ctx);
  }

  async function drop(slot: bigint, open: OpenSession | null, ctx: CallContext): Promise<void> {
    const state = stateOf(slot);
    const { anchor } = state;
    if (state.real?.epoch === host.epoch) {
      if (mode === "ask") await host.lock(slot);
      else if (open !== null) await logoutReally(open, ctx);
    }
    state.anchor = null;
    if (anchor !== null && anchor.epoch === host.epoch) await host.cryptoki.call("C_CloseSession", { session: anchor.handle }, ctx);
    state.accepted = null;
    state.clients.clear();
    state.unlocked.clear();
    if (state.real !== null) setReal(state, null);
  }

  host.events.on("token-gone", ({ slot }) => {
    const state = stateOf(slot);
    state.removals += 1;
    state.accepted = null;
    state.anchor = null;
    state.clients.clear();
    state.unlocked.clear();
    setReal(state, null);
  });

  return {
    mode,
    generation: (slot) => stateOf(slot).generation,
    removals: (slot) => stateOf(slot).removals,
    login(slot, open, userType, pin, ctx) {
      return remembering(ctx, async () => {
        // The SO PIN is not asked for at the workstation, and a client's PIN is never used in this mode.
        if (mode === "ask") return userType === CKU.CKU_SO ? CKR.CKR_FUNCTION_NOT_SUPPORTED : (await unlock(slot, ctx)).rv;
        if (pin === null) return CKR.CKR_ARGUMENTS_BAD;
        const spends = () => !isHeld(stateOf(slot));
        const run = async () => ({ rv: await loginPassing(slot, open, userType, pin, ctx) });
        return (await gate.pass({ slot, userType, spends, run }, ctx)).rv;
      });
    },
    loginForOperation(slot, open, pin, ctx) {
      const userType = CKU.CKU_CONTEXT_SPECIFIC;
      return remembering(ctx, async () => {
        if (mode === "client") {
          const run = async () => {
            const { rv, handle: session } = await open();
            return rv === CKR.CKR_OK ? host.cryptoki.call("C_Login", { session, userType, pin }, ctx) : { rv };
          };
          return (await gate.pass({ slot, userType, spends: () => true, run }, ctx)).rv;
        }
        const { rv, handle: session } = await open();
        return rv === CKR.CKR_OK ? (await host.unlock({ slot, session, userType, who: whoAsks(ctx.origin) }, ctx)).rv : rv;
      });
    },
    withPin: (slot, userType, ctx, run) => gate.pass({ slot, userType, spends: () => true, run }, ctx),
    async logout(slot, open, ctx) {
      if (mode === "ask") return;
      const state = stateOf(slot);
      await gate.inTurn(slot, async () => {
        if (!state.clients.delete(ctx.client) || state.clients.size > 0) return;
        // With the client's own PIN the token is logged in only as long as somebody who knew it is.
        if (state.real?.epoch === host.epoch) await logoutReally(open, ctx);
        state.accepted = null;
        setReal(state, null);
      });
    },
    isIn,
    isUnlockedFor,
    async renew(slot, userType, ctx, lost) {
      const state = stateOf(slot);
      if (lost !== null && state.real !== null) setReal(state, null);
      if (isIn(slot, userType, ctx)) return CKR.CKR_OK;
      if (mode === "ask") return remembering(ctx, async () => (await unlock(slot, ctx, lost === "reset")).rv);
      state.clients.delete(ctx.client);
      return CKR.CKR_USER_NOT_LOGGED_IN;
    },
    async pinChanged(slot, newPin) {
      const state = stateOf(slot);
      if (state.accepted === null || newPin === null) return;
      state.accepted = await acceptPin(newPin);
    },
    leave: forget,
    drop,
    unlock,
  };
}

/** The token flags a client sees: with `ask` the token seems to have a PIN pad, which is the workstation. */
export function presentTokenFlags(flags: bigint, mode: PinMode): bigint {
  return mode === "ask" ? flags | CKF.CKF_PROTECTED_AUTHENTICATION_PATH : flags;
}
