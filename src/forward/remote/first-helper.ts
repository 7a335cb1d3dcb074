/*
 * Starts a connection's first helper, which also finds out whether the bastion gives a terminal. It must never go on without one
 * where it was demanded.
 */
import { TokenfwdError } from "../../base/errors.js";
import { keyOptions } from "../causes.js";
import type { Transport } from "../transport.js";
import { type Helper, startHelper } from "./helper.js";
import { retryingSessions } from "./sessions.js";

/**
 * The helper with a terminal if there is one, else without, with a warning.
 * @throws TokenfwdError E_PTY_REFUSED when `requirePty`, E_REMOTE_SHELL
 */
export async function firstHelper(transport: Transport, requirePty: boolean, warn: (text: string) => void): Promise<Helper> {
  const withPty = await started(transport, true);
  if ("request" in withPty) return withPty;
  if (withPty.refused !== "pty") throw noShell(withPty.reason);
  if (requirePty) {
    throw new TokenfwdError("E_PTY_REFUSED", "the bastion gives no terminal (PermitTTY no, or no-pty for this key)", {
      hint: "leave -t away",
      reason: "no-terminal",
    });
  }
  warn("the bastion gives no terminal (PermitTTY no, or no-pty for this key): -t and --shell do not work there");
  // Where one session is allowed, the one whose terminal was refused goes a moment after the refusal.
  const without = await started(retryingSessions(transport), false);
  if ("request" in without) return without;
  throw noShell(without.reason);
}

/** As startHelper; where the key's own options run another command, the error says so. */
async function started(transport: Transport, pty: boolean): ReturnType<typeof startHelper> {
  try {
    return await startHelper(transport, pty);
  } catch (thrown) {
    const error = TokenfwdError.from(thrown);
    if (error.reason !== "command-not-run" || !/\bcommand\b/.test(keyOptions(transport.debugTexts()) ?? "")) throw error;
    throw new TokenfwdError("E_REMOTE_SHELL", `${error.message}; your key runs a command of its own there (command= in authorized_keys)`, {
      hint: 'in ~/.ssh/authorized_keys on the bastion, take command="..." away from this key\'s line, or use another key: -i KEY',
      cause: error,
      reason: "forced-command",
    });
  }
}

function noShell(reason: string): TokenfwdError {
  return new TokenfwdError("E_REMOTE_SHELL", `the bastion starts no shell: ${reason}`, {
    hint: "in the bastion's sshd_config: MaxSessions must be 1 or more, and the account needs a shell",
    reason: "no-session",
  });
}
