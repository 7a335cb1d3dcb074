/*
 * The log-in where the PIN is wanted on this side of the wire: at a stock p11-kit server, or an agent told to take it. It
 * must never spend a try on a PIN that the token has refused already, nor the last try, and wipes every PIN it is given.
 */
import { createHmac, randomBytes } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { paddedText, printable } from "../../base/printable.js";
import { orAborted } from "../../base/single-flight.js";
import { CKF, CKU } from "../../cryptoki/constants.js";
import type { KeyRingOptions } from "../../cryptoki/keys/key-ring.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallContext, Cryptoki } from "../../cryptoki/types.js";
import { tokenUri } from "../../cryptoki/uri.js";
import type { PinProvider } from "./types.js";

/** What one client knows of the PINs it has tried, over all its connections. */
export interface PinTries {
  /** Runs after all that came before: of two log-ins at once the second must know what the first has found out. */
  inTurn<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
  wasRefused(token: string, pin: Buffer): boolean;
  refused(token: string, pin: Buffer): void;
}

/** Keeps no PIN: what is remembered of a refused one is a keyed hash, whose key dies with the client. */
export function createPinTries(): PinTries {
  const key = randomBytes(32);
  const refused = new Set<string>();
  const mark = (token: string, pin: Buffer) => createHmac("sha256", key).update(`${token}\0`).update(pin).digest("hex");
  let last: Promise<unknown> = Promise.resolve();
  return {
    async inTurn(signal, work) {
      const before = last;
      const mine = orAborted(before, signal, () => signal.reason as Error).then(work);
      // Who stops waiting does not let the next one overtake those that were before both.
      last = Promise.allSettled([before, mine]).then(() => undefined);
      return await mine;
    },
    wasRefused: (token, pin) => refused.has(mark(token, pin)),
    refused: (token, pin) => void refused.add(mark(token, pin)),
  };
}

export interface StockLoginOptions {
  readonly cryptoki: Cryptoki;
  readonly pin: PinProvider | undefined;
  readonly tries: PinTries;
}

/** Both log-ins that a key ring wants. They answer C_Login's CK_RV and reject with E_PIN_SOURCE, E_PIN_CANCELLED, E_PIN_WRONG or E_PIN_LOCKED. */
export type StockLogins = Required<Pick<KeyRingOptions, "login" | "loginForOperation">>;

export function createStockLogins({ cryptoki, pin: provider, tries }: StockLoginOptions): StockLogins {
  const as =
    (userType: bigint): StockLogins["login"] =>
    (slot, session, ctx) =>
      tries.inTurn(ctx.signal, () => login(slot, session, userType, ctx));
  const send = async (session: bigint, userType: bigint, pin: Buffer | null, ctx: CallContext) =>
    (await cryptoki.call("C_Login", { session, userType, pin }, ctx)).rv;
  return { login: as(CKU.CKU_USER), loginForOperation: as(CKU.CKU_CONTEXT_SPECIFIC) };

  async function login(slot: bigint, session: bigint, userType: bigint, ctx: CallContext): Promise<number> {
    const info = await cryptoki.call("C_GetTokenInfo", { slot }, ctx);
    const { label, manufacturer, model, serial, flags } = info;
    if (info.rv !== CKR.CKR_OK || !label || !manufacturer || !model || !serial || flags === undefined) return info.rv;
    if ((flags & CKF.CKF_PROTECTED_AUTHENTICATION_PATH) !== 0n) return await send(session, userType, null, ctx);
    const name = paddedText(label);
    if ((flags & CKF.CKF_USER_PIN_LOCKED) !== 0n) return CKR.CKR_PIN_LOCKED;
    if ((flags & CKF.CKF_USER_PIN_FINAL_TRY) !== 0n) {
      throw new TokenfwdError("E_PIN_LOCKED", `the token ${name} has one try left, which is not spent over a forward`, {
        hint: "log in at the workstation with the token's own tool, then try again",
      });
    }
    if (provider === undefined) {
      throw new TokenfwdError("E_PIN_SOURCE", `the token ${name} wants its PIN, and there is nothing to ask with`, {
        hint: "what is behind this socket takes the PIN from here: give it with --pin-source, or let tokenfwd connect ask at the workstation",
      });
    }
    const identity = { label: name, manufacturer: paddedText(manufacturer), model: paddedText(model), serial: paddedText(serial) };
    const uri = printable(tokenUri(identity));
    const asking = provider({ label: name, uri }, ctx.signal);
    const pin = await orAborted(asking, ctx.signal, () => ctx.signal.reason as Error).catch((thrown: unknown) => {
      // An answer that comes too late is wiped as well.
      asking.then((late) => late?.fill(0)).catch(() => {});
      throw thrown;
    });
    // A bare Enter is no PIN, and a token would count it as a wrong one.
    if (pin === null || pin.length === 0) {
      throw new TokenfwdError("E_PIN_CANCELLED", `no PIN was given for the token ${name}`, { hint: "nothing was tried; run it again" });
    }
    try {
      if (tries.wasRefused(uri, pin)) {
        throw new TokenfwdError("E_PIN_WRONG", `the token ${name} has refused this PIN before; it was not tried again`);
      }
      const rv = await send(session, userType, pin, ctx);
      if (rv === CKR.CKR_PIN_INCORRECT) tries.refused(uri, pin);
      return rv;
    } finally {
      pin.fill(0);
    }
  }
}
