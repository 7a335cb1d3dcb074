/*
 * How long the way to the bastion and back is, and whether small packets are held back on it. It must never count what the token takes.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

/** A delayed acknowledgement takes 40 ms; half of it is no accident. */
const HELD_MS = 20;
const SLOW_MS = 300;

const shown = (ms: number): string => (ms < 10 ? ms.toFixed(1) : ms.toFixed(0));

export const latencyCheck = defineCheck<DoctorContext>()({
  id: "latency",
  title: "delay",
  looks:
    "How long the way there and back is, and whether the bastion's side holds small packets back until the one before is acknowledged (Nagle), measured on two letters that are printed there 10 ms apart.",
  needs: ["remote-shell"],
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
    const pulse = await way.pulse();
    if (pulse === null) return pass("not measured: no command can run beside the shell that keeps the socket");
    const text = `${shown(pulse.rttMs)} ms there and back, small packets come ${shown(pulse.heldMs)} ms late`;
    if (pulse.heldMs > HELD_MS) return broken("packets-held", text);
    return pulse.rttMs > SLOW_MS ? broken("far-away", text) : pass(text);
  },
});
