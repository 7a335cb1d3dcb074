/*
 * Says what clients do with the token, as events and as lines: uses, refusals, prompts, faults and violations. Shared by connect
 * and agent run. It must never show who asked other than by what the agent vouches for: the client's number and its origin.
 */
import type { AgentEvents, AgentPort } from "../agent/agent.js";
import type { Log } from "../base/log.js";
import { rvName } from "../cryptoki/rv.js";
import type { Origin } from "../cryptoki/types.js";
import type { EventStream } from "./event-stream.js";
import type { Ui } from "./ui.js";
import { createUseLines } from "./use-lines.js";

export interface ActivityOptions {
  readonly agent: Pick<AgentPort, "events">;
  readonly events: EventStream;
  /** Where lines go; null puts them into the log instead of across a command's screen. */
  readonly ui: Ui | null;
  readonly log: Log;
  /** A question at the workstation opens or closes. */
  onPrompt?(open: boolean): void;
}

/** Starts reporting; the answer stops it and says what was still counted. */
export function reportActivity(options: ActivityOptions): () => void {
  const { agent, events, ui, log } = options;
  const uses = createUseLines((text) => (ui === null ? log.info(text) : ui.line(text)));
  const said = new Set<string>();
  const stops = [
    agent.events.on("use", (use) => {
      const { client, key, mechanism, call, ok, rv } = use;
      events.emit("use", { client, key, mechanism, call, ok, rv });
      log.info("use", { client, key, mechanism, call, ok, rv });
      if (ui !== null) uses.add(client, useLine(use));
    }),
    agent.events.on("refused", (refused) => {
      const { client, call, rv, why } = refused;
      events.emit("refused", { client, call, rv, why });
      log.info("refused", { client, call, rv, why });
      if (ui !== null) uses.add(client, `refused: ${call} for ${client}${at(refused.origin)}: ${why} (${rvName(rv)})`);
    }),
    agent.events.on("prompt", (prompt) => {
      const { kind, token, triesLeft, state } = prompt;
      if (kind !== "touch") options.onPrompt?.(state === "open");
      if (state !== "open") return;
      events.emit("prompt", { kind, token, triesLeft });
      if (kind === "touch") (ui ?? NOBODY).line(`the token ${token} has been waiting: touch it`);
    }),
    agent.events.on("fault", ({ reason }) => {
      log.error("module fault", { reason });
      (ui ?? NOBODY).warning(`the PKCS#11 module failed and was started again: ${reason}`);
    }),
    agent.events.on("violation", ({ client, reason }) => {
      log.warn("violation", { client, reason });
      // A hostile peer can make as many of these as it likes: the first of each kind is said, all are in the log.
      if (said.has(reason) || said.size >= MAX_REASONS) return;
      said.add(reason);
      (ui ?? NOBODY).warning(`closed a connection (${client}): ${reason}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    uses.flush();
  };
}

const MAX_REASONS = 20;
const NOBODY: Pick<Ui, "line" | "warning"> = { line() {}, warning() {} };

function useLine(use: AgentEvents["use"]): string {
  const verdict = use.ok ? "" : `, which failed: ${rvName(use.rv)}`;
  return `used ${use.key} with ${use.mechanism} (${use.call}) for ${use.client}${at(use.origin)}${verdict}`;
}

function at(origin: Origin): string {
  return origin.host === null ? "" : ` on ${origin.user === null ? "" : `${origin.user}@`}${origin.host}`;
}
