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
  /** The device waits for a finger: called once for each wait. */
  onTouch?(token: string): void;
}

/** Starts reporting; the answer stops it and says what was still counted. */
export function reportActivity(options: ActivityOptions): () => void {
  const { agent, events, ui, log } = options;
  const print = (text: string): void => (ui === null ? log.info(text) : ui.line(text));
  // Apart, so that a client cannot push a use out of sight by being refused.
  const uses = createUseLines(print);
  const refusals = createUseLines(print, "refusals");
  const said = new Set<string>();
  const failures = new Map<string, number>();
  const stops = [
    agent.events.on("use", (use) => {
      const { client, key, mechanism, call, ok, rv, purpose, input, what } = use;
      const told = { client, key, mechanism, call, ok, rv, purpose, input, what };
      events.emit("use", told);
      log.info("use", told);
      if (ui !== null) uses.add(client, () => useLine(use));
    }),
    agent.events.on("hello", ({ client, name }) => log.info("client", { client, callsItself: name })),
    agent.events.on("refused", (refused) => {
      const { client, call, rv, why } = refused;
      events.emit("refused", { client, call, rv, why });
      log.info("refused", { client, call, rv, why });
      if (ui !== null) refusals.add(client, () => `refused: ${call} for ${client}${at(refused.origin)}: ${why} (${rvName(rv)})`);
    }),
    agent.events.on("prompt", (prompt) => {
      const { kind, token, triesLeft, state, what } = prompt;
      if (kind !== "touch") options.onPrompt?.(state === "open");
      if (kind === "touch")
        events.emit("touch", { token, state: state === "open" ? "waiting" : "over", ...(what === undefined ? {} : { what }) });
      if (state !== "open") return;
      events.emit("prompt", { kind, token, triesLeft });
      if (kind !== "touch") return;
      (ui ?? NOBODY).line(`the token ${token} has been waiting: touch it${what === undefined ? "" : `, to sign ${what}`}`);
      options.onTouch?.(token);
    }),
    agent.events.on("fault", ({ reason }) => {
      log.error("module fault", { reason });
      (ui ?? NOBODY).warning(`the PKCS#11 module failed and was started again: ${reason}`);
    }),
    agent.events.on("unlock-failed", ({ reason }) => {
      log.warn("unlock failed", { reason });
      const words = LOGIN_FAILURES[reason];
      // A bastion can ask as often as it likes.
      if (words === undefined || (failures.get(reason) ?? 0) > Date.now() - SAME_FAILURE_MS) return;
      failures.set(reason, Date.now());
      (ui ?? NOBODY).warning(words);
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
    refusals.flush();
  };
}

const MAX_REASONS = 20;
const SAME_FAILURE_MS = 10_000;
const LOGIN_FAILURES: Readonly<Record<string, string>> = {
  locked: "the PIN of the token is locked: unblock it with the token's own tool, which asks for the PUK or SO PIN",
  "wrong-pin": "the token refused the PIN of --pin-source, which is not tried a second time",
  "no-source": "a program wants to log in, and there is nothing to ask the PIN with",
  "last-try-declined": "the last try of the PIN was kept: unblock the PIN with the token's own tool first",
  "pin-pad": "the token has a PIN pad of its own, which this version cannot use",
};
const NOBODY: Pick<Ui, "line" | "warning"> = { line() {}, warning() {} };

function useLine(use: AgentEvents["use"]): string {
  const verdict = use.ok ? "" : `, which failed: ${rvName(use.rv)}`;
  // "data" is what a client says that has nothing to say.
  const purpose = use.purpose === null || use.purpose === "data" ? "" : `, for ${use.purpose}`;
  const what = use.what === null ? "" : `: ${use.what}`;
  const over = use.input === "digest" ? ", over a digest of what nobody here has seen" : "";
  return `used ${use.key} with ${use.mechanism} (${use.call}) for ${use.client}${at(use.origin)}${over}${purpose}${what}${verdict}`;
}

function at(origin: Origin): string {
  return origin.host === null ? "" : ` on ${origin.user === null ? "" : `${origin.user}@`}${origin.host}`;
}
