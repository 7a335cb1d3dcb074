/*
 * What --help says of the commands that also run on a bastion, beyond the list of options. Plain text at most 100 columns wide.
 * It must never promise what a command does not do.
 */
import { STATUS } from "./help.js";

export const BASTION_HELP = `
Start here:
  tokenfwd keys
      lists the keys that the workstation lets be used.
  tokenfwd sign --key 'pkcs11:...' < release.tar > release.sig
      signs; the workstation shows it, and asks for the PIN there.
  tokenfwd choria run -- req rpcutil ping
      runs choria with that key: it signs the requests, and speaks to the broker.
  tokenfwd doctor
      says what is broken between here and the token, and what mends it.

The workstation runs tokenfwd connect or tokenfwd agent run; a p11-kit server does as well.

${STATUS}

Environment:
  TOKENFWD_SOCKET=PATH             the socket, as tokenfwd connect DEST -- CMD sets it
  P11_KIT_SERVER_ADDRESS=unix:...  else this one, which stock programs read
`;

export const SIGN_HELP = `
What happens:
  stdin is read to its end, the socket is found (--socket, TOKENFWD_SOCKET, P11_KIT_SERVER_ADDRESS,
  the usual places), and one request signs. Nothing is on stdout unless the whole signature is.

Without --mechanism: CKM_SHA256_RSA_PKCS for RSA, CKM_ECDSA_SHA256 for EC, CKM_EDDSA for Ed25519.
An ECDSA signature is r and s one after the other, which PKCS#11 has; openssl wants --der.
A document of more than about 1 MiB is hashed here with the mechanism's hash and sent as its digest.

Examples:
  tokenfwd sign --key 'pkcs11:object=ops;type=private' < file > file.sig
  openssl dgst -sha256 -verify ops.pub -signature file.sig file
  tokenfwd sign --spki "$SPKI" --der --purpose release < file > file.sig
  openssl dgst -sha256 -binary file | tokenfwd sign --spki "$SPKI" --digest --base64
  tokenfwd sign --key 'pkcs11:id=%01;type=private' --expect-cert ops.crt < file > file.sig

The PIN is asked for at the workstation. Where it is wanted on this side (by a p11-kit server, or an
agent with --pin-source client) it is asked for here, or comes from --pin-source, and crosses the
wire.

${STATUS}
`;

export const BASTION_DOCTOR_HELP = `
What happens:
  The socket is found as tokenfwd sign finds it, and each thing between it and the programs here is
  looked at in order: who answers, the token, its keys, p11-kit and what it hides, Choria's
  configuration if there is one. Nothing is changed. A signature is made with --pin-source alone.

Marks: \u2713 passed   ! works, and something should be mended   \u2717 failed   - not reached

Examples:
  tokenfwd doctor
  tokenfwd doctor --pin-source ask
  tokenfwd doctor --json | jq '.checks[] | select(.status == "fail")'

Exit status: that of the first check that failed, 0 when none did; warnings do not count.

${STATUS}
`;

export const KEYS_HELP = `
What is shown of each key: its URI for --key, its SPKI hash for --spki, and its certificate. With
--json one document: { "v": 1, "keys": [{ uri, label, id, type, bits or curve, spki, certificate:
{ subject, issuer, notAfter } or null, mechanisms }] }.

Examples:
  tokenfwd keys
  SPKI=$(tokenfwd keys --json | jq -r '.keys[0].spki')

${STATUS}
`;
