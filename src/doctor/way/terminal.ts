/*
 * Whether the bastion gives a terminal (PermitTTY, and the options of the key). It must never count as a fault: only -t and --shell need one.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const terminalCheck = defineCheck<DoctorContext>()({
  id: "terminal",
  title: "terminal",
  looks: "Whether sshd gives a terminal, which -t and --shell need.",
  // Of a key that may do nothing, what it may not forward is the thing to say.
  needs: ["forward"],
  causes: {
    "no-terminal": {
      status: "warn",
      code: "E_PTY_REFUSED",
      usual: true,
      meaning:
        "PermitTTY is no, or the key has no-pty or restrict. All works without one but -t and --shell. Whether small packets are held back is measured by the check latency.",
      mend: 'send to the bastion\'s administrator: "Please set PermitTTY yes for my account in sshd_config"; or add pty to the options of your key in authorized_keys',
    },
  },
  async run({ way }, { broken }) {
    return (await way.bastion()).looked.pty ? pass("there is one") : broken("no-terminal", "the bastion gives none");
  },
});
