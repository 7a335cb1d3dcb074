/*
 * The proof of the socket from the bastion's side, as connect makes it. It must never call a socket good for answering alone.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const verifyCheck = defineCheck<DoctorContext>()({
  id: "verify",
  title: "way back",
  looks: "Whether a call that enters at the socket on the bastion comes out here, with a number that only this run knows.",
  needs: ["forward"],
  causes: {
    "not-verified": {
      status: "fail",
      code: "E_NOT_VERIFIED",
      usual: true,
      meaning: "The socket was made, and what answers there is not this run of tokenfwd.",
      mend: "connect again; if it stays, run with TOKENFWD_LOG set and report it",
    },
    "opened-otherwise": {
      status: "warn",
      code: null,
      meaning:
        "sshd makes the socket and opens none for us (AllowStreamLocalForwarding remote, or AllowTcpForwarding remote). The proof goes through a program on the bastion, which costs a session and a moment.",
      mend: 'nothing is to be done; to have it quicker, send to the bastion\'s administrator: "Please set AllowStreamLocalForwarding yes and AllowTcpForwarding yes for my account in sshd_config."',
    },
    "no-way-to-look": {
      status: "warn",
      code: null,
      meaning: "The socket was made, and nothing lets us call it from the bastion's side, so that connect says ready without a proof.",
      mend: 'install nc, socat, perl or python3 on the bastion; or send to its administrator: "Please set AllowStreamLocalForwarding yes for my account in sshd_config."',
    },
  },
  async run({ way }, { broken }) {
    const proof = await way.proof();
    if (!proof.passed) return broken("no-way-to-look", proof.reason);
    const behind = proof.behind === "agent" ? "" : "; behind it is no token, see above";
    const text = `a call from there came back in ${proof.rttMs} ms${behind}`;
    return proof.via === "direct-streamlocal" ? pass(text) : broken("opened-otherwise", `through ${proof.via}: ${text}`);
  },
});
