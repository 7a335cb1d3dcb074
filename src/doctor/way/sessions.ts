/*
 * How many sessions one connection may have (MaxSessions), which CMD and the shell that keeps the socket share. It must never take
 * the only one for itself.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const sessionsCheck = defineCheck<DoctorContext>()({
  id: "sessions",
  title: "sessions",
  looks: "Whether a command can run on the connection beside the shell that keeps the socket.",
  needs: ["remote-shell"],
  causes: {
    "one-session": {
      status: "warn",
      code: null,
      meaning:
        "sshd allows one session per connection. CMD then takes the place of the shell that keeps the socket, and if the connection is lost meanwhile, the socket's directory stays there until the next connect.",
      mend: 'send to the bastion\'s administrator: "Please set MaxSessions to 2 or more (10 is the default) for my account in sshd_config."',
    },
  },
  async run({ way }, { broken }) {
    const { oneSession } = (await way.bastion()).looked;
    return oneSession ? broken("one-session", "one session per connection (MaxSessions 1)") : pass("more than one per connection");
  },
});
