/*
 * sshd's permission to make the socket, and whose fault a refusal is.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const forwardCheck = defineCheck<DoctorContext>()({
  id: "forward",
  title: "forwarding",
  looks:
    "Whether sshd makes the socket, and if not, what forbids it: your key's options, sshd's forwarding of Unix sockets, or AllowTcpForwarding.",
  needs: ["socket"],
  causes: {
    "forward-key-options": {
      status: "fail",
      code: "E_FORWARD_REFUSED",
      meaning: "Your key's line in authorized_keys has no-port-forwarding, or restrict without port-forwarding.",
      mend: "in ~/.ssh/authorized_keys on the bastion, take no-port-forwarding away from this key's line, or add port-forwarding after restrict",
    },
    "forward-switched-off": {
      status: "fail",
      code: "E_FORWARD_REFUSED",
      meaning: "sshd makes no Unix socket for this account: AllowStreamLocalForwarding is no or local, or DisableForwarding is yes.",
      mend: 'send to the bastion\'s administrator: "Please set AllowStreamLocalForwarding yes for my account in sshd_config, without DisableForwarding yes, and reload sshd."',
    },
    "forward-tcp-off": {
      status: "fail",
      code: "E_FORWARD_REFUSED",
      meaning: "AllowTcpForwarding is no or local. sshd then makes no Unix sockets either, though its manual does not say so.",
      mend: 'send to the bastion\'s administrator: "Please set AllowTcpForwarding remote (or yes) for my account in sshd_config and reload sshd: OpenSSH applies it to Unix sockets too."',
    },
    "forward-path-taken": {
      status: "fail",
      code: "E_FORWARD_REFUSED",
      meaning: "Something came to lie on the socket's path while sshd was asked.",
      mend: "on the bastion: ls -l SOCKET; remove it, and connect again",
    },
    "forward-silent": {
      status: "fail",
      code: "E_FORWARD_REFUSED",
      meaning: "sshd did not answer the request.",
      mend: "connect again; if it stays, the log of the bastion's sshd says more",
    },
    "forward-failed": {
      status: "fail",
      code: "E_FORWARD_REFUSED",
      usual: true,
      meaning: "sshd refused and gave no reason that is known. It may be an SSH server without this extension.",
      mend: "send to the bastion's administrator: \"Please look into sshd's log for why streamlocal-forward of my account fails; AllowStreamLocalForwarding must be yes or remote.\"",
    },
  },
  async run({ way }) {
    await way.listening();
    return pass(`sshd has made ${printable((await way.place()).socket)}`);
  },
});
