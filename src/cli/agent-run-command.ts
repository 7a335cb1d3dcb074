/*
 * From the command line of `agent run` to a running agent: checks every option first, then brings the real parts together.
 */
import { join } from "node:path";
import { createAgent } from "../agent/agent.js";
import { listenOn } from "../agent/listen.js";
import type { Log } from "../base/log.js";
import { runtimeDirectory } from "../base/paths.js";
import { printable } from "../base/printable.js";
import { run } from "../base/run.js";
import { p11KitAddress } from "../wire/p11kit/address.js";
import { agentRun } from "./agent-run.js";
import { createEventStream, noEvents } from "./event-stream.js";
import { createLifetime, processSignals } from "./lifetime.js";
import { openModule } from "./open-module.js";
import { checkTokenOptions, usage } from "./options.js";
import type { RawAgentRunOptions } from "./program.js";
import { createTouchNotice } from "./touch-notice.js";
import { agentTap, takeTrace } from "./trace/take.js";
import { createUi } from "./ui.js";

/** Runs the agent on the process's own streams. Throws E_USAGE and E_SOCKET_PATH for its options; everything later is reported. */
export async function runAgent(raw: RawAgentRunOptions, log: Log): Promise<number> {
  const token = checkTokenOptions(raw);
  if (raw.socket === "") throw usage("--socket is empty", "leave it out, or name a path");
  const socket = raw.socket ?? process.env["TOKENFWD_AGENT"] ?? join(runtimeDirectory(), "tokenfwd", "agent.sock");
  const json = raw.json === true;
  const lifetime = createLifetime(processSignals);
  process.stdout.on("error", () => lifetime.stop("SIGPIPE"));
  const around = {
    stdout: process.stdout,
    ui: createUi(process.stderr),
    events: json ? createEventStream(process.stdout) : noEvents,
    json,
    log,
    lifetime,
    onTouch: createTouchNotice({ terminal: process.stderr, env: process.env, run }),
  };
  const { trace } = raw;
  const tracing =
    trace === undefined ? null : takeTrace({ path: trace, data: false, of: { agent: printable(socket) } }, lifetime, around.ui);
  return agentRun({ ...token, socket }, around, {
    openModule,
    createAgent: tracing === null ? createAgent : (options) => createAgent({ ...options, tap: agentTap(tracing) }),
    listenOn,
    addressOf: p11KitAddress,
  });
}
