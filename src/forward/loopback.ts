/*
 * TCP through the connection: ports on the bastion's loopback that lead here, and connections from the bastion to elsewhere; and what it
 * means when its sshd wants neither. It must never call a refusal of sshd a broken network.
 */
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import type { Transport } from "./transport.js";

/** What works where sshd forwards Unix sockets and no TCP. */
const OTHER_WAY = "or do without: tokenfwd connect DEST --tools -- tokenfwd choria run -- ... needs no TCP forwarding, and Node there";

/** @throws TokenfwdError E_FORWARD_REFUSED, E_SSH_LOST */
export async function listenOnLoopback(
  transport: Transport,
  connected: (stream: Duplex) => void,
  warn: (text: string) => void,
): Promise<number> {
  const outcome = await transport.listenLoopback(connected);
  if (outcome.ok) {
    if (transport.debugTexts().some((text) => /overridden by server GatewayPorts/.test(text)))
      warn(
        "the bastion's sshd listens for other machines too (GatewayPorts yes); what does not come from the bastion itself is turned away",
      );
    return outcome.value;
  }
  if (outcome.refused === "closed") throw lost();
  throw listenRefused(transport.debugTexts(), outcome.reason);
}

/** The error for a port that is not given. `texts` are the server's debug texts (measured with OpenSSH 9.2). */
function listenRefused(texts: readonly string[], reason: string): TokenfwdError {
  const limited =
    texts.some((text) => /port forwarding refused/i.test(text)) && !texts.some((text) => /disabled port forwarding/i.test(text));
  return limited
    ? refused(
        "gives no port on its loopback: PermitListen, or permitlisten of your key, allows others only",
        `in the bastion's sshd_config, for you: PermitListen any, then reload sshd; ${OTHER_WAY}`,
      )
    : refused(
        `gives no port on its loopback: ${printable(reason)}`,
        `in the bastion's sshd_config, for you: AllowTcpForwarding yes, then reload sshd; ${OTHER_WAY}`,
      );
}

/** @throws TokenfwdError E_FORWARD_REFUSED, E_SSH_LOST, or an Error that says why the bastion does not get there */
export async function dialThrough(transport: Transport, host: string, port: number, signal: AbortSignal): Promise<Duplex> {
  signal.throwIfAborted();
  const opening = transport.openTcp(host, port);
  let stop: () => void = () => {};
  const stopped = new Promise<never>((_resolve, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    const outcome = await Promise.race([opening, stopped]);
    if (outcome.ok) return outcome.value;
    if (outcome.refused === "closed") throw lost();
    if (outcome.refused !== "prohibited") throw new Error(outcome.reason);
    throw refused(
      `connects nobody to ${printable(host)} port ${port}`,
      `in the bastion's sshd_config, for you: AllowTcpForwarding yes, and PermitOpen ${printable(host)}:${port} where it stands there (or permitopen of your key), then reload sshd; ${OTHER_WAY}`,
    );
  } catch (error) {
    // Given up on, it may still come.
    if (signal.aborted) void opening.then((late) => (late.ok ? late.value.destroy() : null));
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function refused(what: string, hint: string): TokenfwdError {
  return new TokenfwdError("E_FORWARD_REFUSED", `the bastion's sshd ${what}`, { hint });
}

function lost(): TokenfwdError {
  return new TokenfwdError("E_SSH_LOST", "the connection to the bastion is closed", { hint: "connect again" });
}
