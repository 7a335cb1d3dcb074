/*
 * Every error a person can meet: one table of codes, each with its exit status and its meaning. protocol/errors.md is
 * generated from it. Texts are lower case, without a full stop, name the thing, and carry no secret; the mend is the hint.
 */

interface Row {
  readonly exitCode: number;
  /** One sentence for protocol/errors.md. */
  readonly meaning: string;
}

const TABLE = {
  E_OUTPUT: { exitCode: 1, meaning: "the result could not be written to standard output" },
  E_USAGE: { exitCode: 2, meaning: "the command line cannot be carried out as written" },
  E_FULL_OVER_FORWARD: { exitCode: 2, meaning: "the profile full was asked for over a forward without --allow-full-over-forward" },
  E_CONFIG: { exitCode: 3, meaning: "a configuration file cannot be used" },
  E_SSH: { exitCode: 10, meaning: "the SSH connection could not be made or was lost" },
  E_SSH_CONFIG: { exitCode: 10, meaning: "ssh -G could not resolve the destination" },
  E_SSH_AUTH: { exitCode: 10, meaning: "the bastion, or the jump host, accepted nothing that was offered at log-in" },
  E_SSH_UNSUPPORTED: { exitCode: 10, meaning: "the ssh configuration asks for something this version cannot do" },
  E_SSH_LOST: { exitCode: 10, meaning: "an established SSH connection went dead" },
  E_HOST_KEY_CHANGED: { exitCode: 11, meaning: "the bastion's host key is not the one in known_hosts, or is revoked" },
  E_HOST_KEY_UNKNOWN: { exitCode: 11, meaning: "the bastion's host key is not known and nobody confirmed it" },
  E_FORWARD_REFUSED: { exitCode: 12, meaning: "the bastion's sshd refused to make the socket" },
  E_RUNTIME_DIR: { exitCode: 12, meaning: "no directory on the bastion is fit to hold the socket" },
  E_PATH_TOO_LONG: { exitCode: 12, meaning: "the socket's path is longer than a Unix socket address" },
  E_PTY_REFUSED: { exitCode: 12, meaning: "a terminal was asked for with -t and the bastion gives none" },
  E_REMOTE_SHELL: { exitCode: 12, meaning: "the bastion's shell did not answer the probe as a POSIX shell does" },
  E_TOOLS: { exitCode: 12, meaning: "the tools could not be put on the bastion" },
  E_NOT_VERIFIED: { exitCode: 13, meaning: "the socket on the bastion did not lead back to this agent" },
  E_SOCKET_FOREIGN: { exitCode: 13, meaning: "somebody else's live socket lies on our path on the bastion" },
  E_MODULE: { exitCode: 20, meaning: "the PKCS#11 module cannot be found or loaded" },
  E_TOKEN_NOT_FOUND: { exitCode: 20, meaning: "no token, or no token that matches" },
  E_KEY_NOT_FOUND: { exitCode: 20, meaning: "no key matches the URI" },
  E_KEY_CHOICE: { exitCode: 20, meaning: "several keys or tokens could be meant and one must be named" },
  E_KEY_MISMATCH: {
    exitCode: 20,
    meaning: "the token's public key is not the expected one, or the token does not show it; nothing was signed",
  },
  E_MECHANISM: { exitCode: 20, meaning: "the key cannot sign with this mechanism, or the token does not have it" },
  E_MODULE_FAULT: { exitCode: 21, meaning: "the PKCS#11 module crashed, hung or answered nonsense" },
  E_TOKEN_UNSUPPORTED: { exitCode: 21, meaning: "the token needs something the driver cannot do" },
  E_PIN_WRONG: { exitCode: 30, meaning: "the token refused the PIN" },
  E_PIN_SOURCE: { exitCode: 30, meaning: "there is nothing to ask a PIN with, or the PIN source cannot be used" },
  E_PIN_LOCKED: { exitCode: 31, meaning: "the PIN is locked, or its last try was declined" },
  E_PIN_CANCELLED: { exitCode: 32, meaning: "the PIN question was cancelled or timed out" },
  E_REFUSED: { exitCode: 32, meaning: "the agent's policy or the person at the workstation said no" },
  E_AGENT_NOT_FOUND: { exitCode: 40, meaning: "no agent's socket was found at any of the places it can be" },
  E_AGENT_SOCKET: { exitCode: 40, meaning: "the agent's socket cannot be used: it refuses, it does not answer, or it is not safely ours" },
  E_AGENT_LOST: { exitCode: 40, meaning: "the connection to the agent ended, or its answer did not come in time" },
  E_AGENT_LIVE: { exitCode: 40, meaning: "another agent lives on the socket's path" },
  E_SOCKET_PATH: { exitCode: 40, meaning: "the agent's socket cannot be made where it was asked for" },
  E_STOCK: { exitCode: 40, meaning: "the p11-kit server of --stock is missing, did not start, or ended" },
  E_CHORIA: { exitCode: 50, meaning: "choria could not be run, or the signer or the relay under it ended" },
  E_CHORIA_CONFIG: { exitCode: 50, meaning: "choria's client configuration cannot be used" },
  E_CHORIA_REQUEST: { exitCode: 50, meaning: "the document is not a Choria request that is signed here" },
  E_CHORIA_CERT: { exitCode: 50, meaning: "the token's certificate is none that Choria's servers take" },
  E_CHORIA_ENGINE: { exitCode: 50, meaning: "OpenSSL's PKCS#11 engine, which TLS with the token's key needs, is missing" },
  E_CHORIA_BROKER: { exitCode: 50, meaning: "no broker could be reached, or it is not the one that it should be" },
  E_BUG: { exitCode: 70, meaning: "a bug of ours; please report it" },
  E_INTERRUPTED: { exitCode: 130, meaning: "interrupted before ready" },
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof TABLE;

/** The table, for the generated page and for tests. */
export const ERRORS: Readonly<Record<ErrorCode, Row>> = TABLE;

export interface ErrorOptions {
  /** What mends it: a command to type, or a sentence to send to somebody. */
  readonly hint?: string;
  /** Which of several things a code stands for, as doctor's table names it (`src/doctor`). */
  readonly reason?: string;
  readonly cause?: unknown;
}

/** An error with a code of the table. `message` and `hint` are fit for a terminal: no secret, no control character. */
export class TokenfwdError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly reason: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.reason = options.reason;
  }

  /** The process exit status of this code. */
  get exitCode(): number {
    return TABLE[this.code].exitCode;
  }

  /** An unknown thrown value as one of ours: itself, or E_BUG with the value as cause. */
  static from(thrown: unknown): TokenfwdError {
    if (thrown instanceof TokenfwdError) return thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new TokenfwdError("E_BUG", `internal error: ${text}`, {
      cause: thrown,
      hint: "this is a bug of ours, please report it with TOKENFWD_LOG set",
    });
  }
}
TokenfwdError.prototype.name = "TokenfwdError";
