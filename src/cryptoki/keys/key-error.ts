/*
 * Why nothing was signed, as one closed list of reasons that every surface maps to its own codes. `message` and `hint`
 * are printable and carry no secret.
 */
import { printable } from "../../base/printable.js";
import { rvName } from "../rv.js";

/**
 * `not-found` and `ambiguous`: no key, or several, are named. `mismatch`: the token's public key is not the expected
 * one, or is not shown. `mechanism`: the key or the token cannot do it. `bad-input`: the request makes no sense as it
 * stands. `cryptoki`: a call said no, `rv` and `call` say which.
 */
export type KeyErrorReason = "not-found" | "ambiguous" | "mismatch" | "mechanism" | "bad-input" | "cryptoki";

/** Thrown by a KeyRing. Whoever catches one may be sure that no signature was handed out. */
export class KeyError extends Error {
  readonly reason: KeyErrorReason;
  /** With `cryptoki`: the CK_RV, and the call that answered it. */
  readonly rv: number | null;
  readonly call: string | null;
  readonly hint: string | null;

  constructor(
    reason: KeyErrorReason,
    message: string,
    more: { readonly rv?: number; readonly call?: string; readonly hint?: string | null } = {},
  ) {
    super(printable(message, 2_000));
    this.reason = reason;
    this.rv = more.rv ?? null;
    this.call = more.call ?? null;
    this.hint = more.hint == null ? null : printable(more.hint, 4_000);
  }
}
KeyError.prototype.name = "KeyError";

/** The error for a call that answered something else than it should. */
export function cryptokiError(call: string, rv: number): KeyError {
  return new KeyError("cryptoki", `${call} answered ${rvName(rv)}`, { rv, call });
}
