/*
 * Errors of the wire, the key ring and the socket as errors for people. It must never hide that a signature may have been
 * made, and shows nothing of the other end unprinted.
 */
import { type ErrorCode, TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { KeyError, type KeyErrorReason } from "../../cryptoki/keys/key-error.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import { CONNECTION_ENDED } from "../../wire/rpc/client.js";
import { RpcError, type RpcErrorCode } from "../../wire/rpc/messages.js";

interface Meaning {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
}

const DENIED: Meaning = {
  code: "E_REFUSED",
  message: "the workstation refused it",
  hint: "what was refused, and why, is written where tokenfwd connect runs",
};
const CANNOT: Meaning = { code: "E_MECHANISM", message: "the token cannot do this with this key" };
const GONE: Meaning = { code: "E_TOKEN_NOT_FOUND", message: "the token is not there", hint: "is it plugged in at the workstation?" };

/** What a CK_RV means to a person who asked for a signature. */
const RVS: ReadonlyMap<number, Meaning> = new Map([
  [CKR.CKR_PIN_INCORRECT, { code: "E_PIN_WRONG", message: "the token refused the PIN" }],
  [CKR.CKR_PIN_LEN_RANGE, { code: "E_PIN_WRONG", message: "the PIN is too short or too long for the token" }],
  [CKR.CKR_PIN_INVALID, { code: "E_PIN_WRONG", message: "the PIN has a character that the token does not take" }],
  [
    CKR.CKR_PIN_LOCKED,
    { code: "E_PIN_LOCKED", message: "the PIN is locked, or its last try was declined", hint: "unlock it with the token's own tool" },
  ],
  [CKR.CKR_FUNCTION_CANCELED, { code: "E_PIN_CANCELLED", message: "the question at the workstation was cancelled or timed out" }],
  [
    CKR.CKR_USER_NOT_LOGGED_IN,
    {
      code: "E_PIN_SOURCE",
      message: "the token wants its PIN from this side",
      hint: "the workstation runs with --pin-source client: give the PIN here with --pin-source, or ask for it there",
    },
  ],
  [CKR.CKR_FUNCTION_REJECTED, DENIED],
  [CKR.CKR_FUNCTION_NOT_SUPPORTED, DENIED],
  [CKR.CKR_TOKEN_WRITE_PROTECTED, DENIED],
  [CKR.CKR_TOKEN_NOT_PRESENT, GONE],
  [CKR.CKR_DEVICE_REMOVED, GONE],
  [CKR.CKR_TOKEN_NOT_RECOGNIZED, GONE],
  [CKR.CKR_MECHANISM_INVALID, CANNOT],
  [CKR.CKR_MECHANISM_PARAM_INVALID, CANNOT],
  [CKR.CKR_KEY_TYPE_INCONSISTENT, CANNOT],
  [CKR.CKR_KEY_SIZE_RANGE, CANNOT],
  [CKR.CKR_KEY_FUNCTION_NOT_PERMITTED, CANNOT],
  [CKR.CKR_DATA_LEN_RANGE, CANNOT],
  [CKR.CKR_DATA_INVALID, CANNOT],
]);

const REASONS: Readonly<Record<Exclude<KeyErrorReason, "cryptoki">, ErrorCode>> = {
  "not-found": "E_KEY_NOT_FOUND",
  ambiguous: "E_KEY_CHOICE",
  mismatch: "E_KEY_MISMATCH",
  mechanism: "E_MECHANISM",
  "bad-input": "E_USAGE",
};

const CODES: Readonly<Partial<Record<RpcErrorCode, ErrorCode>>> = {
  "key-not-found": "E_KEY_NOT_FOUND",
  "key-ambiguous": "E_KEY_CHOICE",
  "key-mismatch": "E_KEY_MISMATCH",
  mechanism: "E_MECHANISM",
  "bad-request": "E_USAGE",
  protocol: "E_AGENT_SOCKET",
  version: "E_AGENT_SOCKET",
  "unknown-request": "E_AGENT_SOCKET",
  busy: "E_AGENT_LOST",
};

const OTHER_VERSION = "the agent may be of another version; use the same one at both ends";

function withHint(hint: string | null | undefined): { hint?: string } {
  return hint ? { hint } : {};
}

/** A call that answered something else than CKR_OK. */
export function cryptokiError(rv: number, call: string | null, hint: string | null, cause: unknown): TokenfwdError {
  const meaning = RVS.get(rv) ?? { code: "E_MODULE_FAULT" as const, message: "the token failed" };
  const where = call === null ? rvName(rv) : `${printable(call, 40)} answered ${rvName(rv)}`;
  return new TokenfwdError(meaning.code, `${meaning.message} (${where})`, { ...withHint(hint ?? meaning.hint), cause });
}

/** The connection ended while something was asked for. `sent`: it may have been done all the same. */
export function lostError(sent: boolean, cause?: unknown): TokenfwdError {
  const message = "the connection to the agent was lost";
  return new TokenfwdError("E_AGENT_LOST", sent ? `${message} before it answered; a signature may have been made` : message, {
    hint: "is tokenfwd connect still running at the workstation?",
    cause,
  });
}

/** The time that was given is over. */
export function deadlineError(cause?: unknown): TokenfwdError {
  return new TokenfwdError("E_AGENT_LOST", "the agent did not answer in the time given", {
    hint: "somebody at the workstation may have to touch the token or type its PIN; give it more time",
    cause,
  });
}

function fromRpc(error: RpcError): TokenfwdError {
  const message = printable(error.message);
  const hint = error.hint === null ? null : printable(error.hint, 4_000);
  if (error.code === "cryptoki") return cryptokiError(error.rv ?? CKR.CKR_GENERAL_ERROR, error.call, hint, error);
  if (error.code === "deadline") return deadlineError(error);
  if (error.code === "internal" && error.message === CONNECTION_ENDED) return lostError(true, error);
  const code = CODES[error.code];
  if (code === undefined) {
    return new TokenfwdError("E_BUG", `the agent reports an internal error: ${message}`, { ...withHint(hint), cause: error });
  }
  const other = code === "E_AGENT_SOCKET" ? OTHER_VERSION : undefined;
  return new TokenfwdError(code, message, { ...withHint(hint ?? other), cause: error });
}

/** Whatever a request threw, as an error for people: a TokenfwdError stays what it is, what is not known is E_BUG. */
export function clientError(thrown: unknown): TokenfwdError {
  if (thrown instanceof RpcError) return fromRpc(thrown);
  if (!(thrown instanceof KeyError)) return TokenfwdError.from(thrown);
  if (thrown.reason === "cryptoki") return cryptokiError(thrown.rv ?? CKR.CKR_GENERAL_ERROR, thrown.call, thrown.hint, thrown);
  return new TokenfwdError(REASONS[thrown.reason], thrown.message, { ...withHint(thrown.hint), cause: thrown });
}
