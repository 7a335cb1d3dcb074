/*
 * The bastion's host key, judged as connect judges it. It must never accept one for a person, and never write one down.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const hostKeyCheck = defineCheck<DoctorContext>()({
  id: "host-key",
  title: "host key",
  looks: "Whether the key that the bastion shows is the one in known_hosts. Nobody is asked, and nothing is written.",
  needs: ["handshake"],
  causes: {
    "host-key-unknown": {
      status: "fail",
      code: "E_HOST_KEY_UNKNOWN",
      usual: true,
      meaning: "known_hosts has no key of this host. connect asks on a terminal, and stops where there is none.",
      mend: "compare the fingerprint with what the bastion's administrator says, then log in once with ssh and answer yes",
    },
    "host-key-changed": {
      status: "fail",
      code: "E_HOST_KEY_CHANGED",
      usual: true,
      meaning: "The host shows another key than the one in known_hosts: it was set up anew, or somebody sits in between.",
      mend: "ask the bastion's administrator for the new fingerprint; only if it is the same: ssh-keygen -R HOST",
    },
    "host-key-revoked": {
      status: "fail",
      code: "E_HOST_KEY_CHANGED",
      meaning: "known_hosts says that this very key must not be trusted any more.",
      mend: 'do not connect; ask the bastion\'s administrator: "Your host key is marked as revoked here. Which one holds now?"',
    },
    "host-key-authority": {
      status: "fail",
      code: "E_SSH_UNSUPPORTED",
      meaning: "known_hosts vouches for the host by a certificate authority, and this version can only compare plain keys.",
      mend: "add the plain key to known_hosts after checking it: ssh-keyscan -p PORT HOST",
    },
  },
  async run({ way }) {
    await way.bastion();
    const { hostKey, known } = way.story();
    return pass(known ? (hostKey ?? "") : `${hostKey ?? ""}, not known, which StrictHostKeyChecking of the configuration allows`);
  },
});
