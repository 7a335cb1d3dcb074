/*
 * The place of the agent's socket on this machine, for `tokenfwd agent run`: who listens there, and whether the runtime directory is
 * fit. connect does without it, so nothing here is a failure. It must never make or remove anything.
 */
import { join } from "node:path";
import { pingSocket } from "../../agent/ping.js";
import { directoryFault, lstatOrNull } from "../../base/paths.js";
import { printable, shellWord } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const agentSocketCheck = defineCheck<DoctorContext>()({
  id: "agent-socket",
  title: "agent socket",
  looks: "Who listens where tokenfwd agent run puts its socket on this machine, and whether that place is fit for it.",
  causes: {
    "unfit-directory": {
      status: "warn",
      code: "E_SOCKET_PATH",
      usual: true,
      meaning:
        "The runtime directory is missing, belongs to somebody else or is open to others, so agent run refuses to put its socket there.",
      mend: "let XDG_RUNTIME_DIR name a directory of yours with mode 0700 (a log-in session has one: /run/user/UID)",
    },
    stale: {
      status: "warn",
      code: null,
      meaning: "An agent ended without taking its socket away. The next agent run replaces it; programs that find it first see nothing.",
      mend: "rm {path}",
    },
    stranger: {
      status: "warn",
      code: "E_AGENT_LIVE",
      usual: true,
      meaning: "Something that is no agent of ours listens on the agent's path. agent run leaves it alone and ends.",
      mend: "find out who listens there: fuser {path}",
    },
  },
  async run({ env }, { broken }) {
    const named = env["TOKENFWD_AGENT"];
    const uid = process.geteuid?.() ?? 0;
    const runtime = env["XDG_RUNTIME_DIR"] || (process.platform === "darwin" && env["TMPDIR"]) || `/tmp/tokenfwd-${uid}`;
    if (!named) {
      // Ours of that name is made when it is wanted.
      const fault = !env["XDG_RUNTIME_DIR"] && lstatOrNull(runtime) === null ? null : directoryFault(runtime, uid, true);
      if (fault !== null) return broken("unfit-directory", `${printable(runtime)} ${fault}`);
    }
    const path = named || join(runtime, "tokenfwd", "agent.sock");
    const shown = printable(path);
    if (lstatOrNull(path) === null) return pass(`none at ${shown}; connect brings its own`);
    const who = await pingSocket(path);
    if (who.kind === "tokenfwd") return pass(`an agent (process ${who.pid}) answers at ${shown}`);
    if (who.kind === "stale") return broken("stale", `nobody listens on ${shown}`, { path: shellWord(path) });
    const what = who.kind === "p11-kit" ? "another p11-kit server answers" : who.why;
    return broken("stranger", `${shown}: ${what}`, { path: shellWord(path) });
  },
});
