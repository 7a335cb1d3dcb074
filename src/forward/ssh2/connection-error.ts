/*
 * What a failed connection means to a person. Pure: it looks at ssh2's error and at what was tried.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { SshSettings } from "../ssh-settings.js";
import { type Authentication, attemptText } from "./auth.js";

/** An error of the socket, the handshake or the protocol, before (`wasReady` false) or after login. */
export function connectionError(error: Error & { level?: string; code?: string }, settings: SshSettings, wasReady: boolean): TokenfwdError {
  const where = `${printable(settings.host)} port ${settings.port}`;
  const said = printable(error.message);
  const make = (code: "E_SSH" | "E_SSH_LOST" | "E_SSH_UNSUPPORTED", text: string, hint: string, reason?: string) =>
    new TokenfwdError(code, text, { hint, cause: error, ...(reason === undefined ? {} : { reason }) });
  if (error.level === "client-timeout") {
    return make(
      "E_SSH_LOST",
      `${where} stopped answering`,
      `nothing was heard for ${(settings.keepaliveMs * settings.keepaliveCount) / 1000} s; check the network and connect again`,
    );
  }
  if (wasReady) return make("E_SSH_LOST", `the connection to ${where} was lost: ${said}`, "connect again");
  if (/no matching|no mutual/i.test(said)) {
    return make(
      "E_SSH_UNSUPPORTED",
      `no common algorithm with ${where}: ${said.replace(/^Handshake failed: /, "")}`,
      "the bastion must offer curve25519, ecdh or dh key exchange, an ed25519, ecdsa or rsa-sha2 host key, and hmac-sha2 or aes-gcm",
      "no-common-algorithm",
    );
  }
  switch (error.code) {
    case "ETIMEDOUT":
      return make("E_SSH", `${where} cannot be reached (ETIMEDOUT)`, "check the network, VPN and firewall", "host-silent");
    case "ECONNREFUSED":
      return make("E_SSH", `${where} refused the connection`, "is sshd running there, and is this the port?", "port-closed");
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return make(
        "E_SSH",
        `the name ${printable(settings.host)} cannot be resolved`,
        "check the spelling, HostName in ssh_config, and the network",
        "name-unknown",
      );
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return make("E_SSH", `${where} cannot be reached (${error.code})`, "check the network, VPN and firewall", "host-unreachable");
    default:
      return make(
        "E_SSH",
        `the connection to ${where} failed: ${said}`,
        `try it with ssh: ssh -v ${printable(settings.destination)}`,
        "ssh-closed",
      );
  }
}

/** Nothing was accepted: what was tried, and what the server would have taken. */
export function authError(authentication: Authentication, settings: SshSettings, error: Error): TokenfwdError {
  const tried = authentication.attempts.map(attemptText);
  const takes = printable(authentication.methodsLeft().join(", "));
  const text = tried.length === 0 ? "there was nothing to try" : `tried ${tried.join("; ")}`;
  const left = authentication.methodsLeft();
  const keysTaken = left.length === 0 || left.includes("publickey");
  const asks = left.some((method) => method === "password" || method === "keyboard-interactive");
  const tooMany = /too many/i.test(error.message);
  const reason = tooMany
    ? "login-too-many-keys"
    : keysTaken
      ? tried.some((one) => one !== "")
        ? "login-key-refused"
        : "login-nothing-to-try"
      : asks
        ? "login-needs-person"
        : "login-method";
  return new TokenfwdError("E_SSH_AUTH", `${printable(settings.host)} did not accept ${printable(settings.user)}: ${text}`, {
    cause: error,
    reason,
    hint: tooMany
      ? "the bastion allows fewer tries than keys were offered: name the right one with -i KEY and --ssh-option IdentitiesOnly=yes"
      : keysTaken
        ? "name the key with -i KEY, load it with ssh-add, or put its public half into ~/.ssh/authorized_keys on the bastion"
        : asks
          ? `the bastion takes only ${takes}: run it on a terminal, without BatchMode`
          : `the bastion takes only ${takes}, which this version cannot do: ask for publickey to be allowed`,
  });
}
