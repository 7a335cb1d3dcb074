/*
 * What can be done with the keys behind any Cryptoki: list them, and sign with one of them in as few calls as possible.
 * For a key that was used before a signature is C_SignInit and C_Sign and nothing else. What is kept (session, handle,
 * log-in) may prove void at any time: then everything is looked up anew, once, and never after a C_Sign whose signature
 * may exist or a C_Login that was made for this very request. It must never log in for a request that cannot succeed, nor
 * twice for one, and never answer a signature that was not asked for.
 */

import { createSingleFlight, type SingleFlight } from "../../base/single-flight.js";
import { CKF, CKU } from "../constants.js";
import { CKR } from "../rv.js";
import type { CallContext } from "../types.js";
import { cryptokiError, KeyError } from "./key-error.js";
import { findNamed, type KeyName, nameText, notFound, parseKeyName } from "./key-names.js";
import { planSignature, type SigningPlan } from "./mechanism-choice.js";
import { findPrivateKey, type PrivateKey } from "./private-key.js";
import { createSessionPool, type SessionFate } from "./session-pool.js";
import { listSlots, readKeys, readTokenFacts, type TokenRecord } from "./token-reader.js";
import type { KeyEntry, KeyRing, KeyRingOptions, KeySignature, KeySignRequest } from "./types.js";

export type { KeyEntry, KeyRing, KeyRingOptions, KeySignature, KeySignRequest, KeyType, TokenEntry } from "./types.js";

const DEFAULT_MAX_SESSIONS = 16;
/** Names of keys that are kept; a caller that uses more is not slowed down much by looking them up again. */
const MAX_NAMES = 256;
/** Room for a signature in bytes: RSA keys up to 16,384 bits. More is asked for when a token says so. */
const SIGNATURE_ROOM = 2_048;
const MAX_SIGNATURE_BYTES = 65_536;

/** What is held came to nothing: the module does not know the session, the handle or the token any more. */
const VOID: ReadonlySet<number> = new Set([
  CKR.CKR_SESSION_HANDLE_INVALID,
  CKR.CKR_SESSION_CLOSED,
  CKR.CKR_KEY_HANDLE_INVALID,
  CKR.CKR_OBJECT_HANDLE_INVALID,
  CKR.CKR_OPERATION_ACTIVE,
]);
/** The same, but a signature may have been made when C_Sign says so. */
const VOID_BEFORE_SIGN: ReadonlySet<number> = new Set([CKR.CKR_DEVICE_REMOVED, CKR.CKR_TOKEN_NOT_PRESENT]);
/** A key in use: what was read of it, and the private key once it was needed. */
interface Used {
  readonly token: TokenRecord;
  readonly entry: KeyEntry;
  privateKey: PrivateKey | null;
}

/** What one request has done so far. */
interface Trail {
  /** A C_Login was made for it, or waited for. */
  loggedIn: boolean;
}

interface SlotState {
  isLoggedIn: boolean;
  /** The token says that it needs no log-in, and then asked for one. */
  insists: boolean;
  readonly login: SingleFlight<void>;
}

const loginCancelled = () => cryptokiError("C_Login", CKR.CKR_FUNCTION_CANCELED);

/** A key ring of one client. It owns its sessions; log-ins are the client's and stay. */
export function createKeyRing(options: KeyRingOptions): KeyRing {
  const { cryptoki } = options;
  const pool = createSessionPool(cryptoki, options.maxSessions ?? DEFAULT_MAX_SESSIONS);
  const slots = new Map<bigint, SlotState>();
  const reading = createSingleFlight<readonly TokenRecord[]>(() => cryptokiError("C_GetSlotList", CKR.CKR_FUNCTION_CANCELED));
  const used = new Map<string, Used>();
  let known: readonly TokenRecord[] | null = null;
  /** Counts `forget`: what was read before it is not kept. */
  let age = 0;
  /** Counts `tokenChanged`. */
  let tokenAge = 0;

  function stateOf(slot: bigint): SlotState {
    const state = slots.get(slot) ?? { isLoggedIn: false, insists: false, login: createSingleFlight<void>(loginCancelled) };
    slots.set(slot, state);
    return state;
  }

  function forget(): void {
    age += 1;
    known = null;
    used.clear();
    for (const state of slots.values()) state.isLoggedIn = false;
  }

  /** Runs with a session of the slot and gives it back in the state that the outcome tells of. */
  async function withSession<T>(slot: bigint, ctx: CallContext, run: (session: bigint) => Promise<T>): Promise<T> {
    const session = pool.takeIdle(slot, ctx) ?? (await pool.acquire(slot, ctx));
    let fate: SessionFate = "close";
    try {
      const result = await run(session);
      fate = "reuse";
      return result;
    } catch (thrown) {
      fate = thrown instanceof KeyError ? fateAfter(thrown) : "close";
      throw thrown;
    } finally {
      pool.release(slot, session, fate, ctx);
    }
  }

  async function readToken(slot: bigint, ctx: CallContext): Promise<TokenRecord | null> {
    const facts = await readTokenFacts(cryptoki, slot, ctx);
    if (facts === null) return null;
    const keys = await withSession(slot, ctx, (session) => readKeys(cryptoki, session, facts, stateOf(slot).isLoggedIn, ctx));
    return { entry: { ...facts, keys: keys.map((key) => key.entry) }, keys };
  }

  async function readTokens(ctx: CallContext): Promise<readonly TokenRecord[]> {
    const before = age;
    const all = await Promise.allSettled((await listSlots(cryptoki, ctx)).map((slot) => readToken(slot, ctx)));
    const tokens = all.flatMap((each) => (each.status === "fulfilled" && each.value !== null ? [each.value] : []));
    const failed = all.flatMap((each) => (each.status === "rejected" ? [each.reason as unknown] : []));
    // One token that cannot be read does not take the others away; what is void, or wanted by nobody, is no such token.
    const grave = failed.find((reason) => isVoid(reason) || !(reason instanceof KeyError));
    if (failed.length > 0 && (grave !== undefined || tokens.length === 0 || ctx.signal.aborted)) throw grave ?? failed[0];
    if (before === age && failed.length === 0) known = tokens;
    return tokens;
  }

  async function records(ctx: CallContext): Promise<readonly TokenRecord[]> {
    return known ?? (await reading.run(ctx.signal, () => readTokens(ctx)));
  }

  async function login(token: TokenRecord, session: bigint, trail: Trail, ctx: CallContext): Promise<void> {
    const { slot, flags } = token.entry;
    const state = stateOf(slot);
    if (state.isLoggedIn || ((flags & CKF.CKF_LOGIN_REQUIRED) === 0n && !state.insists)) return;
    trail.loggedIn = true;
    await state.login.run(ctx.signal, async () => {
      const rv = await options.login(slot, session, ctx);
      if (rv !== CKR.CKR_OK && rv !== CKR.CKR_USER_ALREADY_LOGGED_IN) throw cryptokiError("C_Login", rv);
      state.isLoggedIn = true;
    });
  }

  /** Logs in to one token and reads it again; answers all tokens with what is known now. */
  async function reveal(one: TokenRecord, tokens: readonly TokenRecord[], trail: Trail, ctx: CallContext): Promise<readonly TokenRecord[]> {
    const before = age;
    const { slot } = one.entry;
    await withSession(slot, ctx, (session) => login(one, session, trail, ctx));
    const again = await readToken(slot, ctx);
    const all = tokens.flatMap((token) => (token !== one ? [token] : again === null ? [] : [again]));
    if (before === age) known = all;
    return all;
  }

  /** The key of that name among what tokens show; else among what the one token it can be on shows after a log-in. */
  async function locate(name: KeyName, trail: Trail, ctx: CallContext): Promise<Used> {
    let tokens = await records(ctx);
    let found = findNamed(name, tokens);
    const candidates = tokens.filter((token) => name.onToken(token));
    const only = candidates[0];
    if (found === null && only !== undefined && candidates.length === 1 && !stateOf(only.entry.slot).isLoggedIn) {
      tokens = await reveal(only, tokens, trail, ctx);
      found = findNamed(name, tokens);
    }
    if (found === null) throw notFound(name, tokens);
    return { token: found.token, entry: found.key.entry, privateKey: null };
  }

  /** A key that is not in `used`, which it is from then on. */
  async function usedKey(request: KeySignRequest, trail: Trail, ctx: CallContext): Promise<Used> {
    const name = parseKeyName(request.key);
    const before = age;
    const located = await locate(name, trail, ctx);
    if (used.size >= MAX_NAMES) used.clear();
    if (before === age) used.set(name.text, located);
    return located;
  }

  /** Logs in and finds the private key; then everything about the key is known that the token tells. */
  async function open(key: Used, session: bigint, trail: Trail, ctx: CallContext): Promise<PrivateKey> {
    await login(key.token, session, trail, ctx);
    const found = await findPrivateKey(cryptoki, session, key.entry, key.token.entry.mechanisms, ctx);
    if (found === null) {
      throw new KeyError("not-found", "the token shows no private key that belongs to this public key or certificate", {
        hint: `the key that was looked for: ${key.entry.uri}`,
      });
    }
    key.privateKey = found;
    return found;
  }

  async function attempt(request: KeySignRequest, trail: Trail, ctx: CallContext): Promise<KeySignature> {
    const key = used.get(nameText(request.key)) ?? (await usedKey(request, trail, ctx));
    const before = key.privateKey?.entry ?? key.entry;
    // What only the private key can tell is checked after the log-in; everything else needs none.
    const isTold = before.spki !== null || key.privateKey !== null;
    let plan = isTold ? checked(request, before, key.token) : null;
    return await withSession(key.token.entry.slot, ctx, async (session) => {
      const privateKey = key.privateKey ?? (await open(key, session, trail, ctx));
      plan ??= checked(request, privateKey.entry, key.token);
      const { slot } = key.token.entry;
      const compared = tokenAge;
      try {
        const signature = await signWith(privateKey, plan, slot, session, trail, ctx);
        // Another card of one kind has keys of the same names: what was compared was the first one's.
        if (compared !== tokenAge && request.expect !== null)
          throw new KeyError("mismatch", "the token was changed while it signed; the signature was thrown away", {
            hint: "sign again with the right token in place",
          });
        return { signature, mechanism: plan.reported, key: privateKey.entry };
      } catch (thrown) {
        if (thrown instanceof KeyError && thrown.rv === CKR.CKR_USER_NOT_LOGGED_IN) stateOf(slot).insists = true;
        throw thrown;
      }
    });
  }

  async function signWith(
    key: PrivateKey,
    plan: SigningPlan,
    slot: bigint,
    session: bigint,
    trail: Trail,
    ctx: CallContext,
  ): Promise<Buffer> {
    const init = await cryptoki.call("C_SignInit", { session, mechanism: plan.mechanism, key: key.handle }, ctx);
    if (init.rv !== CKR.CKR_OK) throw cryptokiError("C_SignInit", init.rv);
    if (key.alwaysAuthenticate) {
      trail.loggedIn = true;
      const rv = await loginForOperation(slot, session, ctx);
      if (rv !== CKR.CKR_OK) throw cryptokiError("C_Login", rv);
    }
    let made = await cryptoki.call("C_Sign", { session, data: plan.data, room: SIGNATURE_ROOM }, ctx);
    if (made.rv === CKR.CKR_BUFFER_TOO_SMALL && typeof made.output === "number" && made.output <= MAX_SIGNATURE_BYTES)
      made = await cryptoki.call("C_Sign", { session, data: plan.data, room: made.output }, ctx);
    if (made.rv !== CKR.CKR_OK) throw cryptokiError("C_Sign", made.rv);
    if (!Buffer.isBuffer(made.output)) throw cryptokiError("C_Sign", CKR.CKR_DEVICE_ERROR);
    // The wire's buffers may be views of a frame; the caller keeps this one.
    return Buffer.from(made.output);
  }

  async function loginForOperation(slot: bigint, session: bigint, ctx: CallContext): Promise<number> {
    if (options.loginForOperation !== undefined) return await options.loginForOperation(slot, session, ctx);
    return (await cryptoki.call("C_Login", { session, userType: CKU.CKU_CONTEXT_SPECIFIC, pin: null }, ctx)).rv;
  }

  return {
    async tokens(ctx, { loginWhereEmpty = () => false } = {}) {
      let tokens = await records(ctx);
      const closed = tokens.filter(({ entry, keys }) => keys.length === 0 && !stateOf(entry.slot).isLoggedIn && loginWhereEmpty(entry));
      for (const token of closed) tokens = await reveal(token, tokens, { loggedIn: false }, ctx);
      return tokens.map(({ entry }) => entry);
    },
    async sign(request, given) {
      const ctx = given.purpose === undefined && request.purpose !== undefined ? { ...given, purpose: request.purpose } : given;
      const trail: Trail = { loggedIn: false };
      try {
        return await attempt(request, trail, ctx);
      } catch (thrown) {
        // Who has just logged in held nothing old, and a second attempt could spend a second try of the PIN.
        if (!isVoid(thrown) || trail.loggedIn || ctx.signal.aborted) throw thrown;
      }
      forget();
      return await attempt(request, trail, ctx);
    },
    forget,
    tokenChanged() {
      tokenAge += 1;
      forget();
    },
    close: (ctx) => pool.close(ctx),
  };
}

/** The plan of a request for a key about which all is known, and whose public key is the expected one. */
function checked(request: KeySignRequest, entry: KeyEntry, token: TokenRecord): SigningPlan {
  if (request.expect !== null && entry.spki?.equals(request.expect) !== true) {
    const why = entry.spki === null ? "the token does not show the key's public key" : "the token's public key is not the expected one";
    throw new KeyError("mismatch", `${why}; nothing was signed`, { hint: `the key on the token: ${entry.uri}` });
  }
  request.accept?.(entry);
  return planSignature(request, entry, token.entry.mechanisms);
}

function isVoid(thrown: unknown): boolean {
  if (!(thrown instanceof KeyError) || thrown.rv === null) return false;
  // "Closed during the execution": the signature may exist.
  if (thrown.call === "C_Sign" && thrown.rv === CKR.CKR_SESSION_CLOSED) return false;
  if (VOID.has(thrown.rv) || thrown.rv === CKR.CKR_USER_NOT_LOGGED_IN) return true;
  return thrown.call === "C_Sign" ? thrown.rv === CKR.CKR_OPERATION_NOT_INITIALIZED : VOID_BEFORE_SIGN.has(thrown.rv);
}

/** Calls that leave nothing running in their session when they fail: the session can be used again. */
const LEAVES_NOTHING: ReadonlySet<string> = new Set(["C_SignInit", "C_Sign", "C_FindObjects", "C_GetAttributeValue"]);

/** What has become of the session in which this was thrown. */
function fateAfter(error: KeyError): SessionFate {
  if (error.rv === null) return "reuse";
  if (error.rv === CKR.CKR_OPERATION_ACTIVE || error.rv === CKR.CKR_FUNCTION_CANCELED) return "close";
  if (VOID.has(error.rv) || VOID_BEFORE_SIGN.has(error.rv)) return "void";
  return LEAVES_NOTHING.has(error.call ?? "") ? "reuse" : "close";
}
