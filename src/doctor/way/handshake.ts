/*
 * SSH itself: the other end speaks it, with algorithms that both sides have.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const handshakeCheck = defineCheck<DoctorContext>()({
  id: "handshake",
  title: "SSH handshake",
  looks: "Whether what accepts the connection is an SSH server, and whether there are algorithms that both sides have.",
  needs: ["tcp"],
  causes: {
    "ssh-silent": {
      status: "fail",
      code: "E_SSH",
      meaning: "The connection was accepted, and then nothing came: the port may belong to something else, or the server is overloaded.",
      mend: "see what answers there: ssh -v DESTINATION; the first line of an SSH server begins with SSH-2.0",
    },
    "ssh-closed": {
      status: "fail",
      code: "E_SSH",
      usual: true,
      meaning: "The connection was closed in the middle: by a server that limits connections, or one that is no SSH server.",
      mend: "see how far it comes: ssh -v DESTINATION; the log of the bastion's sshd says why it closed",
    },
    "no-common-algorithm": {
      status: "fail",
      code: "E_SSH_UNSUPPORTED",
      meaning: "The server offers no key exchange, host key, cipher or MAC that we use. SHA-1, CBC and compression are never used.",
      mend: 'send to the bastion\'s administrator: "Please let sshd also offer curve25519-sha256 or ecdh-sha2-nistp256 (KexAlgorithms), an ed25519, ecdsa or rsa-sha2 host key, and aes-gcm or aes-ctr with hmac-sha2."',
    },
    "old-server": {
      status: "warn",
      code: null,
      meaning: "The server does not know strict key exchange, which protects the start of a connection (CVE-2023-48795).",
      mend: 'send to the bastion\'s administrator: "Please update OpenSSH to 9.6 or to a patched package: it lacks strict key exchange."',
    },
  },
  async run({ way }, { broken }) {
    const { looked } = await way.bastion();
    return looked.strictKex ? pass("with strict key exchange") : broken("old-server", "the server does not know strict key exchange");
  },
});
