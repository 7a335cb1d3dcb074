/*
 * Starts a connection's first helper, which also finds out whether the bastion gives a terminal. It must never go on without one
 * where it was demanded.
 */
import { TokenfwdError } from "../../base/errors.js";
import type { Transport } from "../transport.js";
import { type Helper, startHelper } from "./helper.js";
import { retryingSessions } from "./sessions.js";

/**
 * The helper with a terminal if there is one, else without, with a warning.
 * @throws TokenfwdError E_PTY_REFUSED when `requirePty`, E_REMOTE_SHELL
 */
export async function firstHelper(transport: Transport, requirePty: boolean, warn: (text: string) => void): Promise<Helper> {
  const withPty = await startHelper(transport, true);
  if ("request" in withPty) return withPty;
  if (withPty.refused !== "pty") throw noShell(withPty.reason);
  if (requirePty) {
    throw new TokenfwdError("E_PTY_REFUSED", "the bastion gives no terminal (PermitTTY no, or no-pty for this key)", {
      hint: "leave -t away",
    });
  }
  warn(
    "the bastion gives no terminal (PermitTTY no, or no-pty for this key): each call may take about 40 ms longer, because sshd delays small packets on a connection without one",
  );
  // Where one session is allowed, the one whose terminal was refused goes a moment after the refusal.
  const without = await startHelper(retryingSessions(transport), false);
  if ("request" in without) return without;
  throw noShell(without.reason);
}

function noShell(reason: string): TokenfwdError {
  return new TokenfwdError("E_REMOTE_SHELL", `the bastion starts no shell: ${reason}`, {
    hint: "in the bastion's sshd_config: MaxSessions must be 1 or more, and the account needs a shell",
  });
}
