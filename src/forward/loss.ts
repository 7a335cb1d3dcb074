/*
 * When a forward is lost: by the end of its connection, or of the shell that keeps its socket. It must never take an end that we have
 * made ourselves for a loss.
 */
import { TokenfwdError } from "../base/errors.js";
import type { Helper } from "./remote/helper.js";
import type { Transport } from "./transport.js";

/** The connection's own reason comes a moment after the shell's end, and says more. */
const MOMENT_MS = 500;

/** The connection's end, or the helper's: its trap takes the socket away. Never settles when `isOver` says that the end is ours. */
export function watchLoss(
  transport: Pick<Transport, "closed">,
  helper: Pick<Helper, "gone">,
  isOver: () => boolean,
): Promise<TokenfwdError> {
  return new Promise((resolve) => {
    void transport.closed.then((reason) => {
      if (reason !== null) resolve(reason);
    });
    void helper.gone.then(async () => {
      await Promise.race([transport.closed, new Promise((done) => setTimeout(done, MOMENT_MS).unref())]);
      if (isOver()) return;
      resolve(
        new TokenfwdError("E_SSH_LOST", "the shell that keeps our socket on the bastion was ended", {
          hint: "connect again; a limit on idle sessions there would do this",
        }),
      );
    });
  });
}
