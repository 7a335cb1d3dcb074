/*
 * Who answers on the socket: our agent, or a stock p11-kit server; and what it lets this machine do.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { BastionContext } from "./context.js";

export const bastionAgentCheck = defineCheck<BastionContext>()({
  id: "bastion-agent",
  title: "who answers",
  looks: "Which protocol the other end of the socket speaks, and the policy under which it serves this machine.",
  needs: ["bastion-socket"],
  causes: {
    "stock-server": {
      status: "warn",
      code: null,
      meaning:
        "A stock p11-kit server answers (p11-kit server, or tokenfwd connect --stock). It works; a PIN that is typed here crosses the connection, and no policy keeps a program from changing the token.",
      mend: "at the workstation, in the place of p11-kit server: tokenfwd connect HOST",
    },
    "pin-crosses": {
      status: "warn",
      code: null,
      meaning: "The agent was started with --pin-source client: a PIN that is typed here crosses the connection.",
      mend: "at the workstation, leave out --pin-source client",
    },
    "read-only": {
      status: "warn",
      code: null,
      meaning: "The agent serves this machine under the policy read: objects are seen, and nothing can be signed.",
      mend: "at the workstation, leave out --policy read",
    },
  },
  async run({ client }, { broken }) {
    const connected = await client();
    const status = await connected.status();
    if (status === null) return broken("stock-server", "a stock p11-kit server");
    if (status.pin === "client") return broken("pin-crosses", "an agent with --pin-source client");
    const policy = printable(status.policy, 40);
    if (policy === "read") return broken("read-only", "an agent with the policy read");
    return pass(`tokenfwd's agent, policy ${policy}`);
  },
});
