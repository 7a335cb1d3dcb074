/*
 * What ssh would do for the destination: its configuration can be read, and asks for nothing that our own transport cannot do. It must
 * never read ssh_config itself.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const sshConfigCheck = defineCheck<DoctorContext>()({
  id: "ssh-config",
  title: "ssh configuration",
  looks: "What ssh -G says of the destination: whether it can be resolved, and whether it asks for something that this version cannot do.",
  causes: {
    "ssh-missing": {
      status: "fail",
      code: "E_SSH_CONFIG",
      meaning: "There is no ssh or no ssh-keygen on PATH. Settings are read through the one, known_hosts through the other.",
      mend: "install the OpenSSH client (Debian: openssh-client, Fedora: openssh-clients)",
    },
    "ssh-config-broken": {
      status: "fail",
      code: "E_SSH_CONFIG",
      usual: true,
      meaning: "ssh itself cannot make sense of its configuration, or of the destination. The line has its own words.",
      mend: "try it yourself, and mend the line that it names: ssh -G DESTINATION",
    },
    "jump-wrong": {
      status: "fail",
      code: "E_SSH_CONFIG",
      meaning: "ProxyJump names no host, or leads through the bastion to itself.",
      mend: "write it as [user@]host[:port], or leave it out for this host: --ssh-option ProxyJump=none",
    },
    "ssh-setting": {
      status: "fail",
      code: "E_SSH_UNSUPPORTED",
      usual: true,
      meaning: "The configuration asks for something that this version cannot do, such as a proxy command or a user certificate.",
      mend: "the line of the check names the setting and the way round; docs/operations.md has the whole list",
    },
  },
  async run({ way }) {
    const { user, host, port, jump } = await way.settings();
    const over = jump === null ? "" : ` through ${printable(jump.host)}`;
    return pass(`${printable(user)}@${printable(host)} port ${port}${over}`);
  },
});
