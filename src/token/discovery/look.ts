/*
 * Looks at one module in a token host of its own: what it is, its slots and tokens, the objects that a token shows before anybody
 * logs in, and what is wrong with each. It must never log in, never ask anybody anything, and never outlast its time.
 */
import { TokenfwdError } from "../../base/errors.js";
import { type Log, silentLog } from "../../base/log.js";
import { paddedText, printable } from "../../base/printable.js";
import { CKA, findBytes, findUlong } from "../../cryptoki/attributes.js";
import { CKF } from "../../cryptoki/constants.js";
import { findAll } from "../../cryptoki/keys/find.js";
import { localContext } from "../../cryptoki/local-context.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import type { CallContext, Cryptoki } from "../../cryptoki/types.js";
import { objectUri, type TokenIdentity, tokenUri } from "../../cryptoki/uri.js";
import { createTokenHost } from "../host/host.js";
import type { Candidate } from "./candidates.js";

/** What can be wrong with a token. */
export type TokenProblem = "not-initialized" | "pin-not-set" | "pin-locked" | "pin-last-try" | "pin-count-low" | "pin-pad" | "unreadable";

/** An object that a token shows without a log-in. Texts are printable. */
export interface SeenObject {
  readonly uri: string;
  readonly class: bigint;
  readonly label: string;
  readonly id: Buffer;
}

/** A token in a slot. Texts are printable. */
export interface SeenToken extends TokenIdentity {
  readonly uri: string;
  readonly flags: bigint;
  readonly problems: readonly TokenProblem[];
  /** True when nothing keeps programs from using its keys. */
  readonly usable: boolean;
  /** Null when they were not asked for or could not be listed; `objectsWhy` then says why. */
  readonly objects: readonly SeenObject[] | null;
  readonly objectsWhy: string | null;
  /** The module under which the same card was seen before; null for the first. */
  readonly sameAs: string | null;
}

export interface SeenSlot {
  readonly slot: bigint;
  readonly description: string;
  /** Null when there is no token in it. */
  readonly token: SeenToken | null;
}

/**
 * `ok`: it answered. `denied`: not loaded. `unloadable`: it is no module for this machine. `faulty`: it crashed, hung, refused to
 * start or answered nonsense. `why` says it in words, printable, for all but `ok`.
 */
export interface SeenModule {
  readonly path: string | null;
  readonly from: string;
  readonly state: "ok" | "denied" | "unloadable" | "faulty";
  readonly why: string | null;
  /** Its manufacturer and description as it gives them; null when it did not answer. */
  readonly library: { readonly manufacturer: string; readonly description: string } | null;
  readonly slots: readonly SeenSlot[];
}

export interface LookOptions {
  /** Also list the public objects. */
  readonly objects: boolean;
  readonly signal: AbortSignal;
  readonly log?: Log;
  /** For loading, and again for the slots and tokens; default 5,000 (design 12). Objects get twice this for each token. */
  readonly limitMs?: number;
}

const LIMIT_MS = 5000;
const MAX_SLOTS = 1024;
/** More objects than this on one token are not listed. */
const MAX_OBJECTS = 512;
const MAX_LABEL_BYTES = 4096;

/** Looks at the module. Rejects only when `signal` is aborted; everything that is wrong with the module is in the answer. */
export async function lookAt(candidate: Candidate, options: LookOptions): Promise<SeenModule> {
  const { signal, log = silentLog, limitMs = LIMIT_MS } = options;
  signal.throwIfAborted();
  const { path } = candidate;
  const from = printable(candidate.from);
  const end = (state: SeenModule["state"], why: string | null, rest: Partial<SeenModule> = {}): SeenModule => ({
    path,
    from,
    state,
    why: why === null ? null : printable(why, 1000),
    library: null,
    slots: [],
    ...rest,
  });
  if (path === null || candidate.denied !== null) return end("denied", candidate.denied);

  const deadlinesMs = { information: limitMs, session: limitMs, object: 2 * limitMs };
  let host: Awaited<ReturnType<typeof createTokenHost>>;
  try {
    // A PIN source that never asks: there is nothing to log in for.
    host = await createTokenHost({ modulePath: path, pinSource: { kind: "client" }, loadTimeoutMs: limitMs, deadlinesMs, signal, log });
  } catch (thrown) {
    signal.throwIfAborted();
    const error = TokenfwdError.from(thrown);
    return end(error.code === "E_MODULE" ? "unloadable" : "faulty", error.message);
  }
  let fault: string | null = null;
  const budget = new AbortController();
  const stop = () => budget.abort();
  const forget = host.events.on("fault", ({ reason }) => {
    fault ??= reason;
    // What a restarted process would say is of no interest: it crashes on the same call.
    stop();
  });
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  const late = setTimeout(() => {
    fault ??= `did not show its tokens within ${limitMs / 1000} s`;
    stop();
  }, limitMs);
  const partial: { library: SeenModule["library"]; slots: SeenSlot[] } = { library: null, slots: [] };
  try {
    const ctx = localContext("discovery", budget.signal);
    await untilAborted(budget.signal, readModule(host.cryptoki, partial, ctx));
    clearTimeout(late);
    if (options.objects) await readObjects(host.cryptoki, partial, 2 * limitMs, budget.signal);
  } catch (thrown) {
    fault ??= TokenfwdError.from(thrown).message;
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", stop);
    forget();
    await host.close();
  }
  signal.throwIfAborted();
  return fault === null ? end("ok", null, partial) : end("faulty", fault, partial);
}

/** Settles with `work`, or rejects as soon as the signal is aborted. */
async function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  let abort: () => void = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => reject(new TokenfwdError("E_MODULE_FAULT", "the module was given up"));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
    work.catch(() => undefined);
  }
}

async function readModule(
  cryptoki: Cryptoki,
  into: { library: SeenModule["library"]; slots: SeenSlot[] },
  ctx: CallContext,
): Promise<void> {
  const info = await cryptoki.call("C_GetInfo", {}, ctx);
  if (info.rv === CKR.CKR_OK && info.manufacturer && info.description)
    into.library = { manufacturer: paddedText(info.manufacturer), description: paddedText(info.description) };
  const { rv, slots } = await cryptoki.call("C_GetSlotList", { tokenPresent: 0, room: MAX_SLOTS }, ctx);
  if (rv !== CKR.CKR_OK || !Array.isArray(slots))
    throw new TokenfwdError("E_MODULE_FAULT", `the module cannot list its slots: ${rvName(rv)}`);
  for (const slot of slots as readonly bigint[]) {
    const { description } = await cryptoki.call("C_GetSlotInfo", { slot }, ctx);
    into.slots.push({
      slot,
      description: description === undefined ? "" : paddedText(description),
      token: await readToken(cryptoki, slot, ctx),
    });
  }
}

const NOBODY: TokenIdentity = { label: "", manufacturer: "", model: "", serial: "" };

async function readToken(cryptoki: Cryptoki, slot: bigint, ctx: CallContext): Promise<SeenToken | null> {
  const info = await cryptoki.call("C_GetTokenInfo", { slot }, ctx);
  const blank = { usable: false, objects: null, objectsWhy: null, sameAs: null };
  if (info.rv === CKR.CKR_TOKEN_NOT_PRESENT || info.rv === CKR.CKR_SLOT_ID_INVALID) return null;
  const { label, manufacturer, model, serial, flags } = info;
  if (
    info.rv === CKR.CKR_TOKEN_NOT_RECOGNIZED ||
    info.rv !== CKR.CKR_OK ||
    !label ||
    !manufacturer ||
    !model ||
    !serial ||
    flags === undefined
  )
    return { ...blank, ...NOBODY, uri: "", flags: 0n, problems: ["unreadable"], objectsWhy: `C_GetTokenInfo answered ${rvName(info.rv)}` };
  const identity: TokenIdentity = {
    label: paddedText(label),
    manufacturer: paddedText(manufacturer),
    model: paddedText(model),
    serial: paddedText(serial),
  };
  const problems = problemsOf(flags);
  const usable = !problems.some((one) => one === "not-initialized" || one === "pin-locked" || one === "pin-pad" || one === "pin-not-set");
  return { ...blank, ...identity, uri: tokenUri(identity), flags, problems, usable };
}

function problemsOf(flags: bigint): TokenProblem[] {
  const has = (flag: bigint): boolean => (flags & flag) !== 0n;
  if (!has(CKF.CKF_TOKEN_INITIALIZED)) return ["not-initialized"];
  const problems: TokenProblem[] = [];
  if (has(CKF.CKF_LOGIN_REQUIRED) && !has(CKF.CKF_USER_PIN_INITIALIZED)) problems.push("pin-not-set");
  if (has(CKF.CKF_USER_PIN_LOCKED)) problems.push("pin-locked");
  else if (has(CKF.CKF_USER_PIN_FINAL_TRY)) problems.push("pin-last-try");
  else if (has(CKF.CKF_USER_PIN_COUNT_LOW)) problems.push("pin-count-low");
  if (has(CKF.CKF_PROTECTED_AUTHENTICATION_PATH)) problems.push("pin-pad");
  return problems;
}

async function readObjects(cryptoki: Cryptoki, into: { slots: SeenSlot[] }, limitMs: number, signal: AbortSignal): Promise<void> {
  for (const [index, seen] of into.slots.entries()) {
    const { token } = seen;
    if (token === null || token.problems.includes("not-initialized") || token.problems.includes("unreadable")) continue;
    const limit = AbortSignal.any([signal, AbortSignal.timeout(limitMs)]);
    const ctx = localContext("discovery", limit);
    const outcome = await untilAborted(limit, objectsOf(cryptoki, seen.slot, token, ctx)).catch((): string => {
      signal.throwIfAborted();
      return `they could not be listed within ${limitMs / 1000} s`;
    });
    const objects = typeof outcome === "string" ? { objects: null, objectsWhy: outcome } : { objects: outcome };
    into.slots[index] = { ...seen, token: { ...token, ...objects } };
  }
}

/** The objects that are seen without a log-in, by class, label and id; or why they cannot be listed. */
async function objectsOf(cryptoki: Cryptoki, slot: bigint, token: TokenIdentity, ctx: CallContext): Promise<SeenObject[] | string> {
  const { rv, session } = await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  if (rv !== CKR.CKR_OK || session === undefined) return `no session with the token: ${rvName(rv)}`;
  const found = await findAll(cryptoki, session, [], ctx);
  if (found.rv !== CKR.CKR_OK) return `the search for objects answered ${rvName(found.rv)}`;
  if (found.objects.length > MAX_OBJECTS) return `there are ${found.objects.length}, more than ${MAX_OBJECTS}`;
  const objects: SeenObject[] = [];
  for (const object of found.objects) {
    const query = [CKA.CKA_CLASS, CKA.CKA_LABEL, CKA.CKA_ID].map((type) => ({ type, room: MAX_LABEL_BYTES }));
    const { attributes = [] } = await cryptoki.call("C_GetAttributeValue", { session, object, query }, ctx);
    const label = Buffer.from(findBytes(attributes, CKA.CKA_LABEL) ?? []);
    const id = Buffer.from(findBytes(attributes, CKA.CKA_ID) ?? []);
    const cls = findUlong(attributes, CKA.CKA_CLASS);
    if (cls === undefined) continue;
    objects.push({ uri: objectUri(token, { class: cls, label, id }), class: cls, label: printable(label), id });
  }
  await cryptoki.call("C_CloseSession", { session }, ctx);
  return objects.sort((a, b) => Number(a.class - b.class) || Buffer.compare(a.id, b.id) || (a.uri < b.uri ? -1 : 1));
}
