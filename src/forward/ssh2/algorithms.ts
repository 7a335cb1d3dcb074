/*
 * What is offered in the key exchange: our own list, cut down to what ssh_config allows. It must never offer SHA-1, CBC or zlib,
 * whatever the configuration says.
 */
import type { Algorithms } from "ssh2";
import { type KnownKey, preferredKeyTypes } from "../known-hosts.js";
import { unsupported } from "../ssh-refusals.js";
import type { SshSettings } from "../ssh-settings.js";

const OURS = {
  kex: [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
  ],
  cipher: ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr", "chacha20-poly1305@openssh.com"],
  hmac: ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"],
  hostKey: ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256"],
} as const;

const SETTINGS = { kex: "KexAlgorithms", cipher: "Ciphers", hmac: "MACs", hostKey: "HostKeyAlgorithms" } as const;

/** The offer, the types of known host keys first. @throws TokenfwdError E_SSH_UNSUPPORTED when the configuration leaves nothing of ours */
export function algorithmsFor(settings: Pick<SshSettings, "algorithms">, known: readonly KnownKey[]): Algorithms {
  const allowed = (kind: keyof typeof OURS): string[] => {
    const wanted = settings.algorithms[kind];
    const left = OURS[kind].filter((name) => wanted === null || wanted.includes(name));
    if (left.length > 0) return left;
    const hint = `allow one of ${OURS[kind].join(", ")} for this host`;
    throw unsupported(SETTINGS[kind], "the configuration allows no algorithm of ours", hint);
  };
  const offer = {
    kex: allowed("kex"),
    cipher: allowed("cipher"),
    hmac: allowed("hmac"),
    serverHostKey: preferredKeyTypes(known, allowed("hostKey")),
    compress: ["none"],
  };
  return offer as unknown as Algorithms;
}
