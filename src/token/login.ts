/*
 * Who may use the logged-in token: the real log-in of each slot, shared by all clients, and what each destination has
 * been granted. The PIN itself stays in the host, `client` mode aside, where this file holds only a salted scrypt of it.
 * It must never report a success for a PIN that was not checked, nor spend a try that nobody asked for.
 */
import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { CKF, CKU } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
import type { CallContext, Origin } from "../cryptoki/types.js";
import type { TokenHost, UnlockResult } from "./host/host.js";

/** `ask`: a PIN from a client is never used, the workstation is asked. `client`: the client's PIN is passed through. */
export type PinMode = "ask" | "client";

/** A no, a cancel or a time-out answers the same client for this long without asking again. */
const REFUSAL_MEMORY_MS = 10_000;
/** `client` mode: this many wrong PINs from a destination, across its clients, close its log-in. */
const MAX_WRONG_PINS = 3;
const SCRYPT_BYTES = 32;

const derive = promisify(scrypt) as (pin: Buffer, salt: Buffer, bytes: number) => Promise<Buffer>;

interface SlotState {
  /** Who is really logged in, and in which epoch of the host; void when the epoch has passed. */
  real: { readonly userType: bigint; readonly epoch: number } | null;
  generation: number;
  /** Clients that count as logged in; in `client` mode the last one to leave logs the token out. */
  readonly clients: Set<string>;
  readonly unlocked: Set<string>;
  readonly pending: Map<string, { readonly result: Promise<UnlockResult>; readonly waiters: Set<symbol>; readonly abort: AbortController }>;
  readonly wrongPins: Map<string, number>;
  accepted: { readonly salt: Buffer; readonly hash: Buffer } | null;
  /** A session of ours that keeps the token logged in when a client's last one closes (`ask` only). */
  anchor: { readonly handle: bigint; readonly epoch: number } | null;
}

export interface LoginDesk {
  readonly mode: PinMode;
  /** Counts real log-ins and log-outs of a slot (see HandleAge). */
  generation(slot: bigint): number;
  /** C_Login of a client that is not logged in: answers its CK_RV. `session` is real and of this slot. */
  login(slot: bigint, session: bigint, userType: bigint, pin: Buffer | null, ctx: CallContext): Promise<number>;
  /** C_Login(CKU_CONTEXT_SPECIFIC): the key asks for the PIN of the running operation on this real session. */
  loginForOperation(slot: bigint, session: bigint, pin: Buffer | null, ctx: CallContext): Promise<number>;
  /** C_Logout, or the end of a client's last session. `session` is real, or null where none is left. */
  logout(slot: bigint, session: bigint | null, ctx: CallContext): Promise<void>;
  /** Makes the real log-in good again for a client that counts as logged in: after a restart, or a reset card. */
  renew(slot: bigint, ctx: CallContext, lost: boolean): Promise<number>;
  /** After C_SetPIN: the PIN that a second client is checked against. */
  pinChanged(slot: bigint, newPin: Buffer | null): Promise<void>;
  /** Really logs out, whoever counts as logged in: before C_InitToken and an SO log-in. */
  drop(slot: bigint, session: bigint | null, ctx: CallContext): Promise<void>;
  /** Forgets a client that has gone. */
  leave(client: string): void;
  /** Unlocks for this destination without a client's C_Login: `--unlock now`. */
  unlock(slot: bigint, ctx: CallContext): Promise<UnlockResult>;
}

/** What a grant hangs on: everything that was verified about where the stream comes from, but not which connection it is. */
export function destinationKey(origin: Origin): string {
  return JSON.stringify([origin.kind, origin.destination, origin.user, origin.host, origin.port, origin.hostKeySha256]);
}

/** How a question names who asks. */
export function whoAsks(origin: Origin): string {
  if (origin.kind === "local") return "a program on this workstation";
  const at = origin.host ?? origin.destination ?? "an unknown host";
  return origin.user === null ? at : `${origin.user}@${at}`;
}

export function createLoginDesk(host: TokenHost, mode: PinMode): LoginDesk {
  const slots = new Map<bigint, SlotState>();
  const refusals = new Map<string, { readonly rv: number; readonly untilMs: number }>();

  function stateOf(slot: bigint): SlotState {
    const known = slots.get(slot);
    if (known !== undefined) return known;
    const state: SlotState = {
      real: null,
      generation: 0,
      clients: new Set(),
      unlocked: new Set(),
      pending: new Map(),
      wrongPins: new Map(),
      accepted: null,
      anchor: null,
    };
    slots.set(slot, state);
    return state;
  }

  const isReal = (state: SlotState, userType: bigint) => state.real?.userType === userType && state.real.epoch === host.epoch;

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

  /** One question per destination and slot, whoever waits for it; it ends when nobody waits any more. */
  async function ask(slot: bigint, ctx: CallContext, run: (inner: CallContext) => Promise<UnlockResult>): Promise<UnlockResult> {
    const state = stateOf(slot);
    const key = destinationKey(ctx.origin);
    let pending = state.pending.get(key);
    if (pending === undefined) {
      const abort = new AbortController();
      const result = run({ ...ctx, signal: abort.signal }).finally(() => state.pending.delete(key));
      pending = { result, waiters: new Set(), abort };
      state.pending.set(key, pending);
    }
    const waiter = Symbol(ctx.client);
    const { waiters, abort, result } = pending;
    waiters.add(waiter);
    const leave = () => {
      waiters.delete(waiter);
      if (waiters.size === 0) abort.abort();
    };
    ctx.signal.addEventListener("abort", leave, { once: true });
    if (ctx.signal.aborted) leave();
    try {
      return await result;
    } finally {
      ctx.signal.removeEventListener("abort", leave);
      waiters.delete(waiter);
    }
  }

  async function unlock(slot: bigint, ctx: CallContext): Promise<UnlockResult> {
    const state = stateOf(slot);
    const key = destinationKey(ctx.origin);
    if (isReal(state, CKU.CKU_USER) && state.unlocked.has(key)) return { rv: CKR.CKR_OK, asked: false };
    const who = whoAsks(ctx.origin);
    return ask(slot, ctx, async (inner) => {
      // Another destination has unlocked the token: this one needs a yes, not the PIN.
      if (isReal(state, CKU.CKU_USER)) return grant(state, key, who, inner);
      const anchor = await anchorOf(slot, inner);
      if (anchor.rv !== CKR.CKR_OK) return { rv: anchor.rv, asked: false };
      const result = await host.unlock({ slot, session: anchor.handle, userType: CKU.CKU_USER, who }, inner);
      if (result.rv !== CKR.CKR_OK) return result;
      // While this one waited in line another may have been asked: then nobody has said yes to this one.
      const othersAnswered = !result.asked && !state.unlocked.has(key) && state.unlocked.size > 0;
      if (!isReal(state, CKU.CKU_USER)) setReal(state, CKU.CKU_USER);
      if (othersAnswered) return grant(state, key, who, inner);
      state.unlocked.add(key);
      return result;
    });
  }

  /** A yes at the workstation for one more destination. */
  async function grant(state: SlotState, key: string, who: string, ctx: CallContext): Promise<UnlockResult> {
    const yes = await host.confirm(`let ${who} use the token as well?`, ctx);
    if (!yes) return { rv: CKR.CKR_FUNCTION_REJECTED, asked: true, reason: "cancelled" };
    state.unlocked.add(key);
    return { rv: CKR.CKR_OK, asked: true };
  }

  async function loginAsking(slot: bigint, userType: bigint, ctx: CallContext): Promise<number> {
    // The SO PIN is not asked for at the workstation, and a client's PIN is never used in this mode.
    if (userType === CKU.CKU_SO) return CKR.CKR_FUNCTION_NOT_SUPPORTED;
    const memory = refusals.get(ctx.client);
    if (memory !== undefined && memory.untilMs > Date.now()) return memory.rv;
    refusals.delete(ctx.client);
    const { rv } = await unlock(slot, ctx);
    if (rv !== CKR.CKR_OK) refusals.set(ctx.client, { rv, untilMs: Date.now() + REFUSAL_MEMORY_MS });
    return rv;
  }

  async function loginPassing(slot: bigint, session: bigint, userType: bigint, pin: Buffer | null, ctx: CallContext): Promise<number> {
    const state = stateOf(slot);
    const key = destinationKey(ctx.origin);
    if (pin === null) return CKR.CKR_ARGUMENTS_BAD;
    if ((state.wrongPins.get(key) ?? 0) >= MAX_WRONG_PINS) {
      const again = await host.confirm(`${whoAsks(ctx.origin)} has sent ${MAX_WRONG_PINS} wrong PINs; let it try again?`, ctx);
      if (!again) return CKR.CKR_FUNCTION_REJECTED;
      state.wrongPins.delete(key);
    }
    if (state.real !== null && state.real.epoch === host.epoch && state.clients.size > 0) {
      if (state.real.userType !== userType) return CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
      const { accepted } = state;
      const same = accepted !== null && timingSafeEqual(await derive(pin, accepted.salt, SCRYPT_BYTES), accepted.hash);
      if (same) return CKR.CKR_OK;
      state.wrongPins.set(key, (state.wrongPins.get(key) ?? 0) + 1);
      return CKR.CKR_PIN_INCORRECT;
    }
    const { rv } = await host.cryptoki.call("C_Login", { session, userType, pin }, ctx);
    if (rv === CKR.CKR_PIN_INCORRECT) state.wrongPins.set(key, (state.wrongPins.get(key) ?? 0) + 1);
    if (rv !== CKR.CKR_OK) return rv;
    setReal(state, userType);
    state.wrongPins.delete(key);
    const salt = randomBytes(16);
    state.accepted = { salt, hash: await derive(pin, salt, SCRYPT_BYTES) };
    return rv;
  }

  async function drop(slot: bigint, session: bigint | null, ctx: CallContext): Promise<void> {
    const state = stateOf(slot);
    const { anchor } = state;
    if (state.real?.epoch === host.epoch) {
      if (mode === "ask") await host.lock(slot);
      else if (session !== null) await host.cryptoki.call("C_Logout", { session }, ctx);
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
    state.accepted = null;
    state.anchor = null;
    state.unlocked.clear();
    setReal(state, null);
  });

  return {
    mode,
    generation: (slot) => stateOf(slot).generation,
    async login(slot, session, userType, pin, ctx) {
      const rv = mode === "ask" ? await loginAsking(slot, userType, ctx) : await loginPassing(slot, session, userType, pin, ctx);
      if (rv === CKR.CKR_OK) stateOf(slot).clients.add(ctx.client);
      return rv;
    },
    async loginForOperation(slot, session, pin, ctx) {
      const userType = CKU.CKU_CONTEXT_SPECIFIC;
      if (mode === "client") return (await host.cryptoki.call("C_Login", { session, userType, pin }, ctx)).rv;
      return (await host.unlock({ slot, session, userType, who: whoAsks(ctx.origin) }, ctx)).rv;
    },
    async logout(slot, session, ctx) {
      const state = stateOf(slot);
      refusals.delete(ctx.client);
      if (!state.clients.delete(ctx.client) || mode === "ask" || state.clients.size > 0) return;
      // With the client's own PIN the token is logged in only as long as somebody who knew it is.
      if (session !== null && state.real?.epoch === host.epoch) await host.cryptoki.call("C_Logout", { session }, ctx);
      state.accepted = null;
      setReal(state, null);
    },
    async renew(slot, ctx, lost) {
      const state = stateOf(slot);
      if (lost && state.real !== null) setReal(state, null);
      if (isReal(state, CKU.CKU_USER)) return CKR.CKR_OK;
      if (mode === "client") return CKR.CKR_USER_NOT_LOGGED_IN;
      return (await unlock(slot, ctx)).rv;
    },
    async pinChanged(slot, newPin) {
      const state = stateOf(slot);
      if (state.accepted === null || newPin === null) return;
      const salt = randomBytes(16);
      state.accepted = { salt, hash: await derive(newPin, salt, SCRYPT_BYTES) };
    },
    leave: (client) => void refusals.delete(client),
    drop,
    unlock,
  };
}

/** The token flags a client sees: with `ask` the token seems to have a PIN pad, which is the workstation. */
export function presentTokenFlags(flags: bigint, mode: PinMode): bigint {
  return mode === "ask" ? flags | CKF.CKF_PROTECTED_AUTHENTICATION_PATH : flags;
}
