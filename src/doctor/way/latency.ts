/*
 * How long a call takes, measured from the bastion's side, and whether small packets are held back there.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

/** A delayed acknowledgement takes 40 ms; half of it is no accident. */
const HELD_MS = 20;
const SLOW_MS = 300;

const shown = (ms: number): string => (ms < 10 ? ms.toFixed(1) : ms.toFixed(0));

export const latencyCheck = defineCheck<DoctorContext>()({
  id: "latency",
  title: "time of a call",
  looks:
    "How long a call takes there and back, and whether the bastion's side holds small packets back until the one before is acknowledged (Nagle), measured on two letters that are printed there 10 ms apart.",
  needs: ["forward"],
  causes: {
    "packets-held": {
      status: "warn",
      code: null,
      meaning:
        "Small packets are held back, which costs a stock program about 40 ms for each of the 20 calls of a signature: stock p11-kit writes a message in pieces. OpenSSH does that only without a session; another SSH server or a proxy in between may do it always.",
      mend: 'use tokenfwd sign or tokenfwd/client there, which need one call; or send to the bastion\'s administrator: "Please let the SSH server set TCP_NODELAY on its connections."',
    },
    "far-away": {
      status: "warn",
      code: null,
      meaning: "The link is slow. A stock program makes about 20 calls for a signature, one after the other.",
      mend: "use tokenfwd sign or tokenfwd/client there: one round trip for a signature",
    },
  },
  async run({ way }, { broken }) {
    const heldMs = await way.heldMs();
    const proof = await way.proof();
    const call = proof.passed ? `${shown(proof.rttMs)} ms` : "not measured";
    const held = heldMs === null ? "whether packets are held back was not measured" : `small packets come ${shown(heldMs)} ms late`;
    if (heldMs !== null && heldMs > HELD_MS) return broken("packets-held", `${call}, ${held}`);
    if (proof.passed && proof.rttMs > SLOW_MS) return broken("far-away", call);
    return pass(`${call}, ${held}`);
  },
});
