/*
 * Why a token could not be unlocked, as an error for people. It must never say anything of the PIN that was tried.
 */
import { TokenfwdError } from "../base/errors.js";
import { rvName } from "../cryptoki/rv.js";
import type { UnlockResult } from "../token/host/host.js";

/** The error for an unlock that did not answer CKR_OK. */
export function unlockError(result: UnlockResult): TokenfwdError {
  switch (result.reason) {
    case "cancelled":
      return new TokenfwdError("E_PIN_CANCELLED", "the PIN question was cancelled", {
        hint: "run it again, or use --unlock later",
        reason: "pin-cancelled",
      });
    case "timeout":
      return new TokenfwdError("E_PIN_CANCELLED", "nobody answered the PIN question in time", {
        hint: "run it again, or use --unlock later",
        reason: "pin-timeout",
      });
    case "no-source":
      return new TokenfwdError("E_PIN_SOURCE", "there is nothing to ask the PIN with", {
        hint: "run it on a terminal, install pinentry, or give the PIN with --pin-source file:PATH",
      });
    case "last-try-declined":
      return new TokenfwdError("E_PIN_LOCKED", "the last try of the PIN was declined", {
        hint: "unblock the PIN with the token's own tool first",
        reason: "last-try-declined",
      });
    case "locked":
      return new TokenfwdError("E_PIN_LOCKED", "the PIN is locked", {
        hint: "unblock it with the token's own tool, which asks for the PUK or SO PIN",
        reason: "locked-now",
      });
    case "pin-pad":
      return new TokenfwdError("E_TOKEN_UNSUPPORTED", "the token has a PIN pad of its own, which this version cannot use", {
        hint: "use a token or reader without one; see docs/operations.md",
      });
    case "wrong-pin":
      return new TokenfwdError("E_PIN_WRONG", "the token refused the PIN", {
        hint: "check the PIN source; it has not been tried a second time",
        reason: "pin-wrong",
      });
    default:
      return new TokenfwdError("E_MODULE_FAULT", `the token cannot be unlocked: ${rvName(result.rv)}`, {
        hint: "try the same with: pkcs11-tool --module MODULE --login -O",
        reason: "unlock-failed",
      });
  }
}
