/*
 * The token host as the agent sees it: a Cryptoki over a process that holds the module, restarted when the module
 * crashes or hangs, and the questions that only that process may ask. The module has one call at a time. It must
 * never hold a PIN (a client's own, passed through, aside) and never let a module take the agent down.
 */
import { fstatSync } from "node:fs";
import { TokenfwdError } from "../../base/errors.js";
import { createEmitter, type Emitter } from "../../base/events.js";
import { type Log, silentLog } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import type { CallClass } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallContext, CallResult, Cryptoki, CryptokiEvents } from "../../cryptoki/types.js";
import type { HostPinSource, HostStep, PinSource, PromptEvent, UnlockRequest, UnlockResult } from "./messages.js";
import { checkModuleFile } from "./module-file.js";
import type { PoolPlace } from "./pool-place.js";
import { createSupervisor, type Supervisor } from "./supervisor.js";

export type { HostStep, PinSource, UnlockRequest, UnlockResult } from "./messages.js";

export interface TokenHostOptions {
  /** Gives up a module that is still being loaded and ends its process; means nothing once it is loaded. */
  readonly signal?: AbortSignal;
  readonly modulePath: string;
  readonly pinSource: PinSource;
  /** Program to ask with where there is no terminal; else TOKENFWD_PINENTRY, else `pinentry` on PATH. */
  readonly pinentry?: string;
  /** Overrides of the deadlines by class, in milliseconds. */
  readonly deadlinesMs?: Partial<Record<CallClass, number>>;
  /** From the start of the process until the module is initialised; default 10,000. */
  readonly loadTimeoutMs?: number;
  /** After how long a private-key call counts as waiting for a touch; default 3,000. */
  readonly touchNoticeMs?: number;
  /** After how long without a call the module is finalised, so that another program can have the card; null (default): never. */
  readonly holdMs?: number | null;
  /** Gets what the module prints. */
  readonly log?: Log;
}

/** What a host tells beside the events of every Cryptoki. */
export interface HostEvents extends CryptokiEvents {
  /** A question or a touch at the workstation begins or ends. */
  prompt: PromptEvent;
  /** A log-in with a PIN of the source has come to nothing, and why; not told of a question that somebody gave up. */
  "unlock-failed": { readonly reason: NonNullable<UnlockResult["reason"]>; readonly slot: bigint };
  /** The process died or was killed; `reason` is printable. Calls that were running answered CKR_DEVICE_REMOVED. */
  fault: { readonly reason: string };
}

/** True while the module must not be released, nobody having called it for `quietMs`. */
export type KeepGuard = (quietMs: number) => boolean;

/** What came of two calls in one crossing: the answer of the second, or with `begun` false the first one's that kept it from being made. */
export interface PairAnswer {
  readonly result: CallResult;
  readonly begun: boolean;
  /** The first call is being made once more: in its session is an operation that nobody has asked for yet. */
  readonly ahead: boolean;
}

export interface TokenHost extends AsyncDisposable {
  /**
   * REAL handles and slots. C_Initialize and C_Finalize answer CKR_OK and do nothing: the module is initialised as
   * long as the process lives. A call whose session is of an earlier epoch answers CKR_SESSION_HANDLE_INVALID.
   */
  readonly cryptoki: Cryptoki;
  /**
   * Makes `first`, and when that answers CKR_OK `then`, in one crossing and with nobody's call between them. With `again` a
   * C_SignInit and its C_Sign are likely to follow once more: on a quick token that C_SignInit may be made ahead, when the answer has
   * left. The next call in the session has to be that very C_SignInit, alone or as `first`, or C_CloseSession.
   */
  pair(first: HostStep, then: HostStep, ctx: CallContext, again?: boolean): Promise<PairAnswer>;
  /**
   * Logs in with the PIN of the source, one request after another: who waits in line and finds the token open is told
   * that nobody was asked. A token with a PIN pad of its own answers CKR_FUNCTION_NOT_SUPPORTED.
   */
  unlock(request: UnlockRequest, ctx: CallContext): Promise<UnlockResult>;
  /** A yes or no at the workstation: terminal, else pinentry, else false. `timeoutMs` default 60,000. */
  confirm(question: string, ctx: CallContext, timeoutMs?: number): Promise<boolean>;
  /** True when there is something to get a PIN from: terminal, pinentry, file, descriptor. */
  canAsk(): Promise<boolean>;
  /** Wipes the PIN of a slot and logs the token out. */
  lock(slot: bigint): Promise<void>;
  /** Asks this before each release of the hold. */
  keep(guard: KeepGuard): void;
  /** +1 at each restart of the process and each release of the module; handles of earlier epochs are void. Starts at 0. */
  readonly epoch: number;
  /** Of the process that holds the module; undefined while there is none. */
  readonly pid: number | undefined;
  readonly events: Emitter<HostEvents>;
  /** The other processes with the same module, where there is a pool (pool.ts); `close` of this one closes them too. */
  readonly others?: readonly TokenHost[];
  /** Releases the module and ends the process; calls that wait answer CKR_CRYPTOKI_NOT_INITIALIZED. Safe to call twice. */
  close(): Promise<void>;
}

const CONFIRM_TIMEOUT_MS = 60_000;

const CANCELLED: UnlockResult = { rv: CKR.CKR_FUNCTION_CANCELED, asked: false, reason: "cancelled" };

function checkDescriptor(source: HostPinSource): number | null {
  if (source.kind !== "fd") return null;
  try {
    fstatSync(source.fd);
    return source.fd;
  } catch (cause) {
    throw new TokenfwdError("E_PIN_SOURCE", `descriptor ${source.fd} is not open`, {
      cause,
      hint: `open it in the shell: tokenfwd ... fd:${source.fd} ${source.fd}< PINFILE`,
    });
  }
}

/**
 * Starts the process and loads the module. Rejects with E_MODULE (missing, not a library, another architecture, not a
 * PKCS#11 module, one of p11-kit's own), E_MODULE_FAULT (it crashed, hung or refused while loading), E_PIN_SOURCE, or the
 * signal's reason.
 */
export async function createTokenHost(options: TokenHostOptions): Promise<TokenHost> {
  return (await startTokenHost(options, null)).host;
}

/** A host at its place in a pool, and what the pool needs of it (pool.ts). Rejects as createTokenHost does. */
export async function startTokenHost(
  options: TokenHostOptions,
  pool: PoolPlace | null,
): Promise<{ readonly host: TokenHost; readonly supervisor: Supervisor }> {
  const { log = silentLog } = options;
  const pinSource: HostPinSource = pool === null || pool.first === null ? options.pinSource : { kind: "first-host" };
  const modulePath = checkModuleFile(options.modulePath);
  const pinDescriptor = checkDescriptor(pinSource);
  const events = createEmitter<HostEvents>();
  const supervisor = createSupervisor({
    // The name it was given, not the real one: some modules find their configuration by it.
    start: {
      kind: "start",
      modulePath: options.modulePath,
      pinSource,
      lends: pool?.first === null,
      pinentry: options.pinentry || process.env["TOKENFWD_PINENTRY"] || null,
    },
    shownPath: printable(modulePath),
    pinDescriptor,
    deadlinesMs: options.deadlinesMs ?? {},
    ...(options.loadTimeoutMs === undefined ? {} : { loadTimeoutMs: options.loadTimeoutMs }),
    ...(options.touchNoticeMs === undefined ? {} : { touchNoticeMs: options.touchNoticeMs }),
    holdMs: options.holdMs ?? null,
    pool,
    log,
    events,
  });
  await loaded(supervisor, options.signal);

  async function unlock(request: UnlockRequest, { signal }: CallContext): Promise<UnlockResult> {
    if (signal.aborted) return CANCELLED;
    const reply = await supervisor.request((id) => ({ kind: "unlock", id, request }), signal);
    if (reply === null) return signal.aborted ? CANCELLED : { rv: CKR.CKR_DEVICE_REMOVED, asked: false };
    if (reply.kind !== "unlocked") return { rv: CKR.CKR_GENERAL_ERROR, asked: false };
    const { reason } = reply.result;
    if (reason !== undefined && reason !== "cancelled" && reason !== "timeout")
      events.emit("unlock-failed", { reason, slot: request.slot });
    return reply.result;
  }

  async function answer(make: Parameters<typeof supervisor.request>[0], signal?: AbortSignal): Promise<boolean> {
    const reply = await supervisor.request(make, signal);
    return reply !== null && reply.kind === "answer" && reply.yes;
  }

  const close = () => supervisor.close();
  const host: TokenHost = {
    cryptoki: { call: supervisor.call, events, close: async () => {} },
    pair: supervisor.pair,
    keep: supervisor.keep,
    unlock,
    confirm: (question, ctx, timeoutMs = CONFIRM_TIMEOUT_MS) => answer((id) => ({ kind: "confirm", id, question, timeoutMs }), ctx.signal),
    canAsk: () => answer((id) => ({ kind: "can-ask", id })),
    lock: async (slot) => void (await answer((id) => ({ kind: "lock", id, slot }))),
    get epoch() {
      return supervisor.epoch;
    },
    get pid() {
      return supervisor.pid;
    },
    events,
    close,
    [Symbol.asyncDispose]: close,
  };
  return { host, supervisor };
}

/** Waits for the module. A process in which one hangs would not notice our end, so it is ended before we give up. */
async function loaded(supervisor: Pick<Supervisor, "ready" | "close">, signal: AbortSignal | undefined): Promise<void> {
  let giveUp = (): void => {};
  const givenUp = new Promise<never>((_resolve, reject) => {
    giveUp = () => void supervisor.close().then(() => reject(signal?.reason));
  });
  if (signal?.aborted) giveUp();
  signal?.addEventListener("abort", giveUp, { once: true });
  try {
    await Promise.race([supervisor.ready, givenUp]);
  } finally {
    signal?.removeEventListener("abort", giveUp);
  }
}
