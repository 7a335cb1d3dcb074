/*
 * Why sshd refused the socket. The protocol carries no reason; sshd's debug texts and a look from the helper do
 * (measured with OpenSSH 9.2; every text compared here is the server's own, so an unknown one only loses precision).
 */
import { TokenfwdError } from "../base/errors.js";
import { printable, shellWord } from "../base/printable.js";

/** The sentence for whoever may change sshd_config there. */
const askAdmin = (what: string): string => `send to the bastion's administrator: "Please ${what}."`;

/** What sshd says that the key of this log-in may do, e.g. `port-forwarding pty`; null where it said nothing. */
export function keyOptions(texts: readonly string[]): string | null {
  const said = texts.filter((text) => text.includes("key options:")).at(-1);
  return said === undefined ? null : said.slice(said.indexOf("key options:") + "key options:".length).trim();
}

/** The error for a refused forward. `texts` are the server's debug texts, `socketState` what lies on the path now. */
export function forwardRefused(
  path: string,
  texts: readonly string[],
  socketState: string,
  keyFile = "~/.ssh/authorized_keys",
): TokenfwdError {
  const refused = (reason: string, message: string, hint: string) =>
    new TokenfwdError("E_FORWARD_REFUSED", `the bastion's sshd refused to make the socket: ${message}`, { hint, reason });
  const options = keyOptions(texts);
  if (options !== null && !/\bport-forwarding\b/.test(options)) {
    return refused(
      "forward-key-options",
      "your key may not forward (no-port-forwarding or restrict)",
      `in ${keyFile} on the bastion, take no-port-forwarding away from this key's line, or add port-forwarding after restrict`,
    );
  }
  if (texts.some((text) => /disabled streamlocal forwarding/i.test(text))) {
    return refused(
      "forward-switched-off",
      "forwarding of Unix sockets is switched off",
      askAdmin("set AllowStreamLocalForwarding yes for my account in sshd_config, without DisableForwarding yes, and reload sshd"),
    );
  }
  if (texts.some((text) => /port forwarding refused/i.test(text))) {
    return refused(
      "forward-tcp-off",
      "AllowTcpForwarding no forbids Unix sockets too",
      askAdmin(
        "set AllowTcpForwarding remote (or yes) for my account in sshd_config and reload sshd: OpenSSH applies it to Unix sockets too",
      ),
    );
  }
  if (socketState !== "none")
    return refused("forward-path-taken", `${printable(path)} is in the way`, `on the bastion: rm ${shellWord(path)}, then connect again`);
  return refused(
    "forward-failed",
    `it cannot make ${printable(path)}`,
    "AllowStreamLocalForwarding must be yes or remote in the bastion's sshd_config; its log names the cause",
  );
}
