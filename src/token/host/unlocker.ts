/*
 * Logging a token in with a PIN from the workstation: which source, how often, with what questions. One unlock at a
 * time; module calls of others go on while a person types. It must never spend a token's last try without a yes, never
 * try a PIN from a file twice, and never let a PIN leave this process.
 */
import { paddedText, printable } from "../../base/printable.js";
import { type SecretBytes, secretBytes, wipeable } from "../../base/secret.js";
import { CKF, CKS, CKU } from "../../cryptoki/constants.js";
import { CKR } from "../../cryptoki/rv.js";
import type { TokenDriver } from "../driver/pkcs11js.js";
import type { Asker } from "./asker.js";
import type { HostPinSource, PromptEvent, UnlockRequest, UnlockResult } from "./messages.js";
import { readPinDescriptor, readPinFile } from "./pin-file.js";
import type { Lend, PinBorrower } from "./pin-link.js";
import { createPinStore, type TokenKey } from "./pin-store.js";

const QUESTION_TIMEOUT_MS = 60_000;

export interface UnlockerOptions {
  /** Calls the module; the caller sees to it that a hang is noticed. */
  readonly driver: TokenDriver;
  readonly source: HostPinSource;
  /** Other hosts borrow what the token accepts. */
  readonly lends: boolean;
  /** Where the first host's PIN is borrowed; null where there is a source. */
  readonly borrower: PinBorrower | null;
  /** The descriptor of `fd` in this process. */
  readonly descriptor: number;
  /** What to ask with now: the terminal comes and goes. */
  askers(): readonly Asker[];
  notify(prompt: PromptEvent, terminal: string | null): void;
}

export interface Unlocker {
  unlock(request: UnlockRequest, signal: AbortSignal): Promise<UnlockResult>;
  confirm(question: string, timeoutMs: number, signal: AbortSignal): Promise<boolean>;
  canAsk(): boolean;
  /** Lends a PIN that this host has seen accepted, between two unlocks, and wipes one that comes back refused. */
  readonly lend: Lend;
  /** Wipes the PIN of a slot: lock, or the token has gone. */
  wipe(slot: bigint): void;
  readonly holdsPin: boolean;
  /** Wipes every PIN. */
  dispose(): void;
}

interface TokenState {
  readonly rv: number;
  readonly key: TokenKey;
  readonly label: string;
  readonly flags: bigint;
}

/** PIN answers of a token that another PIN may mend. */
const WRONG = new Map<number, string>([
  [CKR.CKR_PIN_INCORRECT, "the PIN was wrong"],
  [CKR.CKR_PIN_LEN_RANGE, "the PIN is too short or too long for this token"],
  [CKR.CKR_PIN_INVALID, "the PIN has characters that this token cannot take"],
]);

const refusedBy = (reason: "no-source" | "last-try-declined", asked: boolean): UnlockResult => ({
  rv: CKR.CKR_FUNCTION_REJECTED,
  asked,
  reason,
});
const locked = (asked: boolean): UnlockResult => ({ rv: CKR.CKR_PIN_LOCKED, asked, reason: "locked" });

function copyOf(pin: Buffer): SecretBytes {
  const copy = wipeable(pin.length);
  pin.copy(copy);
  return secretBytes(copy);
}

export function createUnlocker({ driver, source, lends, borrower, descriptor, askers, notify }: UnlockerOptions): Unlocker {
  const store = createPinStore();
  let fromDescriptor: Promise<SecretBytes> | null = null;
  let line: Promise<unknown> = Promise.resolve();

  /** Runs one after another: there is one person and one terminal. */
  function inLine<T>(run: () => Promise<T>): Promise<T> {
    const turn = line.then(run, run);
    line = turn.catch(() => {});
    return turn;
  }

  function tokenState(slot: bigint): TokenState {
    const info = driver.call("C_GetTokenInfo", { slot });
    return {
      rv: info.rv,
      key: { slot, identity: `${info.serial?.toString("hex") ?? ""}/${info.label?.toString("hex") ?? ""}` },
      label: info.label ? paddedText(info.label) : "",
      flags: info.flags ?? 0n,
    };
  }

  /** True when the token needs no user log-in any more. The context log-in of a key is needed each time. */
  function alreadyIn({ session, userType }: UnlockRequest): boolean {
    if (userType !== CKU.CKU_USER) return false;
    return isUserState(driver.call("C_GetSessionInfo", { session }));
  }

  function isUserState({ state }: { readonly state?: bigint }): boolean {
    return state === CKS.CKS_RO_USER_FUNCTIONS || state === CKS.CKS_RW_USER_FUNCTIONS;
  }

  const triesLeft = (flags: bigint) => (flags & CKF.CKF_USER_PIN_FINAL_TRY ? 1 : null);

  function notices(state: TokenState, error: string | null): string[] {
    const tries =
      state.flags & CKF.CKF_USER_PIN_FINAL_TRY
        ? "this is the last try"
        : state.flags & CKF.CKF_USER_PIN_COUNT_LOW
          ? "few tries are left"
          : null;
    return [error, tries].filter((text) => text !== null);
  }

  /** Puts a question to the first asker that works. Tells the agent before and after. */
  async function put<T extends { kind: string } | string>(
    prompt: Omit<PromptEvent, "state">,
    timeoutMs: number,
    signal: AbortSignal,
    ask: (asker: Asker, signal: AbortSignal) => Promise<T>,
    unavailable: T,
  ): Promise<{ answer: T; timedOut: boolean }> {
    const ending = new AbortController();
    const end = () => ending.abort();
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      end();
    }, timeoutMs);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    try {
      for (const asker of askers()) {
        notify({ ...prompt, state: "open" }, asker.terminalState);
        const answer = await ask(asker, ending.signal).finally(() => notify({ ...prompt, state: "closed" }, null));
        const kind = typeof answer === "string" ? answer : answer.kind;
        if (kind !== "unavailable") return { answer, timedOut };
      }
      return { answer: unavailable, timedOut };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
    }
  }

  /** A yes to spending the last try, which a slip of a finger must not give. */
  async function lastTryAllowed(state: TokenState, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const prompt = { kind: "confirm", token: state.label, triesLeft: 1 } as const;
    const question = `one PIN try is left on the token "${state.label}", a wrong PIN locks it; spend it?`;
    const { answer } = await put(prompt, timeoutMs, signal, (asker, ending) => asker.confirm(question, ending), "unavailable");
    return answer === "yes";
  }

  const login = ({ session, userType }: UnlockRequest, pin: Buffer) => driver.call("C_Login", { session, userType, pin }).rv;
  const isIn = (rv: number) => rv === CKR.CKR_OK || rv === CKR.CKR_USER_ALREADY_LOGGED_IN;

  /** The PIN of the file, which is read anew each time, or of the descriptor, which is kept. */
  async function unlockFrom(read: () => Promise<SecretBytes>, request: UnlockRequest, signal: AbortSignal): Promise<UnlockResult> {
    let pin: SecretBytes;
    try {
      pin = await read();
    } catch {
      return refusedBy("no-source", false);
    }
    try {
      return await unlockWith(pin, request, signal);
    } finally {
      if (source.kind === "file") pin.dispose();
    }
  }

  /** Tries a PIN once, and never again after the token refused it. */
  async function unlockWith(pin: SecretBytes, request: UnlockRequest, signal: AbortSignal): Promise<UnlockResult> {
    const state = tokenState(request.slot);
    if (state.rv !== CKR.CKR_OK) return { rv: state.rv, asked: false };
    if (store.wasRefused(state.key, pin.bytes)) return { rv: CKR.CKR_PIN_INCORRECT, asked: false, reason: "wrong-pin" };
    const final = (state.flags & CKF.CKF_USER_PIN_FINAL_TRY) !== 0n;
    if (final && !(await lastTryAllowed(state, request.timeoutMs ?? QUESTION_TIMEOUT_MS, signal)))
      return refusedBy("last-try-declined", true);
    const rv = login(request, pin.bytes);
    if (rv === CKR.CKR_OK && lends) store.keep(state.key, copyOf(pin.bytes));
    if (isIn(rv)) return { rv: CKR.CKR_OK, asked: final };
    if (rv === CKR.CKR_PIN_LOCKED) return locked(final);
    if (!WRONG.has(rv)) return { rv, asked: final };
    store.refuse(state.key, pin.bytes);
    return { rv: CKR.CKR_PIN_INCORRECT, asked: final, reason: "wrong-pin" };
  }

  /**
   * With the first host's PIN, once: the token that refuses it here has refused it for all hosts. Nobody is asked here, so the
   * last try, which the first host's success should have given back, is not this host's to spend.
   */
  async function unlockBorrowing(request: UnlockRequest, state: TokenState): Promise<UnlockResult> {
    if (state.flags & CKF.CKF_USER_PIN_FINAL_TRY) return refusedBy("last-try-declined", false);
    let result = refusedBy("no-source", false);
    await borrower?.borrow(state.key, (pin) => {
      if (pin === null) return false;
      if (store.wasRefused(state.key, pin)) {
        result = { rv: CKR.CKR_PIN_INCORRECT, asked: false, reason: "wrong-pin" };
        return true;
      }
      const rv = login(request, pin);
      if (isIn(rv)) result = { rv: CKR.CKR_OK, asked: false };
      else if (rv === CKR.CKR_PIN_LOCKED) result = locked(false);
      else if (!WRONG.has(rv)) result = { rv, asked: false };
      else {
        store.refuse(state.key, pin);
        result = { rv: CKR.CKR_PIN_INCORRECT, asked: false, reason: "wrong-pin" };
      }
      return WRONG.has(rv) || rv === CKR.CKR_PIN_LOCKED;
    });
    return result;
  }

  async function unlockAsking(request: UnlockRequest, signal: AbortSignal): Promise<UnlockResult> {
    const timeoutMs = request.timeoutMs ?? QUESTION_TIMEOUT_MS;
    let error: string | null = null;
    for (;;) {
      let state = tokenState(request.slot);
      if (state.rv !== CKR.CKR_OK) return { rv: state.rv, asked: error !== null };
      if (state.flags & CKF.CKF_USER_PIN_LOCKED) return locked(error !== null);
      const question = { token: state.label, who: printable(request.who), notices: notices(state, error) };
      const prompt = { kind: "pin", token: state.label, triesLeft: triesLeft(state.flags) } as const;
      const { answer, timedOut } = await put(prompt, timeoutMs, signal, (asker, ending) => asker.pin(question, ending), {
        kind: "unavailable",
      });
      if (answer.kind === "unavailable") return refusedBy("no-source", false);
      if (answer.kind === "cancelled") return { rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: timedOut ? "timeout" : "cancelled" };
      const { pin } = answer;
      // A bare Enter is no PIN, and no reason to spend a try.
      if (pin.bytes.length === 0) return { rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" };
      // The token may have changed while somebody typed: logged in by itself, swapped, or tried by another program.
      if (alreadyIn(request)) {
        pin.dispose();
        return { rv: CKR.CKR_OK, asked: true };
      }
      const identity = state.key.identity;
      state = tokenState(request.slot);
      if (state.rv !== CKR.CKR_OK || state.key.identity !== identity) {
        pin.dispose();
        return { rv: state.rv === CKR.CKR_OK ? CKR.CKR_DEVICE_REMOVED : state.rv, asked: true };
      }
      if (state.flags & CKF.CKF_USER_PIN_FINAL_TRY && !(await lastTryAllowed(state, timeoutMs, signal))) {
        pin.dispose();
        return refusedBy("last-try-declined", true);
      }
      const rv = login(request, pin.bytes);
      if (rv === CKR.CKR_OK) store.keep(state.key, pin);
      else pin.dispose();
      if (isIn(rv)) return { rv: CKR.CKR_OK, asked: true };
      if (rv === CKR.CKR_PIN_LOCKED) return locked(true);
      error = WRONG.get(rv) ?? null;
      if (error === null) return { rv, asked: true };
    }
  }

  /** The PIN this token accepted before: null when there is none or the token does not want it any more. */
  async function unlockAgain(request: UnlockRequest, state: TokenState, signal: AbortSignal): Promise<UnlockResult | null> {
    const pin = store.accepted(state.key);
    if (pin === null) return null;
    if (state.flags & CKF.CKF_USER_PIN_FINAL_TRY && !(await lastTryAllowed(state, request.timeoutMs ?? QUESTION_TIMEOUT_MS, signal)))
      return refusedBy("last-try-declined", true);
    const rv = login(request, pin.bytes);
    if (isIn(rv)) return { rv: CKR.CKR_OK, asked: false };
    if (!WRONG.has(rv) && rv !== CKR.CKR_PIN_LOCKED) return { rv, asked: false };
    store.wipe(request.slot);
    return rv === CKR.CKR_PIN_LOCKED ? locked(false) : null;
  }

  async function unlock(request: UnlockRequest, signal: AbortSignal): Promise<UnlockResult> {
    if (signal.aborted) return { rv: CKR.CKR_FUNCTION_CANCELED, asked: false, reason: "cancelled" };
    const state = tokenState(request.slot);
    if (state.rv !== CKR.CKR_OK) return { rv: state.rv, asked: false };
    // Its PIN is typed on its own pad, which takes a NULL PIN, and the driver cannot pass one.
    if (state.flags & CKF.CKF_PROTECTED_AUTHENTICATION_PATH) return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED, asked: false, reason: "pin-pad" };
    const info = driver.call("C_GetSessionInfo", { session: request.session });
    // Lost with a card that was away: it is opened again before anybody is asked.
    if (info.rv === CKR.CKR_SESSION_HANDLE_INVALID || info.rv === CKR.CKR_SESSION_CLOSED) return { rv: info.rv, asked: false };
    const isIn = request.userType === CKU.CKU_USER && isUserState(info);
    if (isIn && request.lost !== true) return { rv: CKR.CKR_OK, asked: false };
    if (state.flags & CKF.CKF_USER_PIN_LOCKED) return locked(false);
    // The card has been reset, and the module has not noticed: it would refuse a log-in, or make none.
    if (isIn) driver.call("C_Logout", { session: request.session });
    switch (source.kind) {
      case "client":
        return refusedBy("no-source", false);
      case "file":
        return unlockFrom(async () => readPinFile(source.path), request, signal);
      case "fd":
        fromDescriptor ??= readPinDescriptor(descriptor);
        return unlockFrom(() => fromDescriptor ?? readPinDescriptor(descriptor), request, signal);
      case "first-host":
        return unlockBorrowing(request, state);
      case "ask":
        return (await unlockAgain(request, state, signal)) ?? unlockAsking(request, signal);
    }
  }

  return {
    unlock: (request, signal) => inLine(() => unlock(request, signal)),
    confirm: (question, timeoutMs, signal) =>
      inLine(async () => {
        if (signal.aborted) return false;
        const prompt = { kind: "confirm", token: "", triesLeft: null } as const;
        const text = printable(question);
        const { answer } = await put(prompt, timeoutMs, signal, (asker, ending) => asker.confirm(text, ending), "unavailable");
        return answer === "yes";
      }),
    canAsk: () => source.kind === "file" || source.kind === "fd" || askers().length > 0,
    lend: (token, use) =>
      inLine(async () => {
        if (await use(store.lendable(token)?.bytes ?? null)) store.wipe(token.slot);
      }),
    wipe: (slot) => store.wipe(slot),
    get holdsPin() {
      return store.size > 0;
    },
    dispose() {
      store.dispose();
      fromDescriptor?.then(
        (pin) => pin.dispose(),
        () => {},
      );
    },
  };
}
