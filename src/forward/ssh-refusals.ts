/*
 * What a configuration may ask for and our own transport cannot do, each with the way round. It must never pass over a setting that
 * says more about whom to trust than we look at.
 */
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";

/** The error for a setting that cannot be used. */
export function unsupported(setting: string, what: string, hint: string): TokenfwdError {
  return new TokenfwdError("E_SSH_UNSUPPORTED", `${what} (${setting}), which this version cannot use`, { hint, reason: "ssh-setting" });
}

/** Looks at what `ssh -G` said; `set` answers null for a setting that is missing or `none`. @throws TokenfwdError E_SSH_UNSUPPORTED */
export function refuseUnusable(destination: string, set: (key: string) => string | null): void {
  if (set("proxycommand") !== null) {
    throw unsupported(
      "ProxyCommand",
      `${printable(destination)} is reached through a proxy command`,
      "use ProxyJump where the command only runs ssh -W; else forward a port first: ssh -L 2222:127.0.0.1:22 HOST, then tokenfwd connect -p 2222 USER@127.0.0.1",
    );
  }
  const certificate = set("certificatefile");
  if (certificate !== null) {
    throw unsupported(
      "CertificateFile",
      "the configuration logs in with a user certificate",
      "use a key the bastion accepts without a certificate: --ssh-option CertificateFile=none -i KEY",
    );
  }
  if (set("pkcs11provider") !== null) {
    throw unsupported(
      "PKCS11Provider",
      "the login key lies on a PKCS#11 token",
      "load it into an agent: ssh-add -s MODULE, and --ssh-option PKCS11Provider=none",
    );
  }
  // Both say more about host keys than known_hosts does; to pass over them would be to trust what they forbid.
  if (set("revokedhostkeys") !== null) {
    throw unsupported(
      "RevokedHostKeys",
      "the configuration keeps revoked host keys in a file of its own",
      "write them into known_hosts as @revoked lines, then --ssh-option RevokedHostKeys=none",
    );
  }
  if (set("knownhostscommand") !== null) {
    throw unsupported(
      "KnownHostsCommand",
      "the configuration asks a program for host keys",
      "add the host's key to known_hosts after checking it, then --ssh-option KnownHostsCommand=none",
    );
  }
}
