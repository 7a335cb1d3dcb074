/*
 * The bastion's name, or with a jump host that one's: it has an address. It must never ask a name server on its own, past what the
 * system resolves.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const resolveCheck = defineCheck<DoctorContext>()({
  id: "resolve",
  title: "host name",
  looks: "Whether the name of the bastion, or of the jump host, has an address.",
  needs: ["ssh-config"],
  // The first that needs the connection waits for all of it: a person may be asked for a passphrase.
  limitMs: 300_000,
  causes: {
    "name-unknown": {
      status: "fail",
      code: "E_SSH",
      meaning: "The system finds no address for the name that ssh would connect to.",
      mend: "check the spelling and HostName in the ssh configuration (ssh -G DESTINATION), and the network or VPN that knows the name",
    },
  },
  async run({ way }) {
    await way.bastion();
    const { host, jump } = await way.settings();
    return pass(printable((jump ?? { host }).host));
  },
});
