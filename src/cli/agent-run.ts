/*
 * `tokenfwd agent run`: serves the token on a socket of this workstation, in the foreground, until it is told to stop. It must
 * never print anything but the address on stdout, and never outlive the removal of its socket.
 */
import type { Duplex } from "node:stream";
import type { AgentOptions, AgentPort } from "../agent/agent.js";
import type { Listening } from "../agent/listen.js";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { LOCAL_ORIGIN } from "../cryptoki/local-context.js";
import type { TokenHost } from "../token/host/host.js";
import { reportActivity } from "./activity.js";
import type { EventStream } from "./event-stream.js";
import type { Lifetime } from "./lifetime.js";
import type { OpenModuleOptions } from "./open-module.js";
import type { TokenOptions } from "./options.js";
import { DESCRIBED_PURPOSES } from "./purposes.js";
import type { Ui } from "./ui.js";

export interface AgentRunOptions extends TokenOptions {
  readonly socket: string;
}

/** The parts it is made of; the real ones, or a test's. */
export interface AgentRunParts {
  openModule(options: OpenModuleOptions): Promise<TokenHost>;
  createAgent(options: AgentOptions): Promise<AgentPort>;
  listenOn(options: { path: string; onStream(stream: Duplex): void }): Promise<Listening>;
  /** The path as p11-kit writes an address. */
  addressOf(path: string): string;
}

export interface AgentRunSurroundings {
  readonly stdout: { write(text: string): unknown };
  readonly ui: Ui;
  readonly events: EventStream;
  readonly json: boolean;
  readonly log: Log;
  readonly lifetime: Lifetime;
  /** Calls somebody to the device. */
  onTouch(token: string): void;
}

/** Runs it to its end. Answers the exit status; what went wrong has been said, and everything is closed. */
export async function agentRun(options: AgentRunOptions, around: AgentRunSurroundings, parts: AgentRunParts): Promise<number> {
  const { ui, events, lifetime, log } = around;
  let status = 0;
  let ready = false;
  try {
    const { token, profile, allowRawRsa, pinSource, holdMs, hosts } = options;
    const { signal } = lifetime;
    const starting = parts.openModule({ modulePath: options.module, token, pinSource, holdMs, hosts, signal, log, found: ui.line });
    const host = await lifetime.wait(starting, (late) => late.close());
    lifetime.defer(() => host.close());
    const pinMode = pinSource.kind === "client" ? "client" : "ask";
    const agent = await parts.createAgent({
      host,
      token,
      key: options.key ?? "all",
      profile,
      allowRawRsa,
      pinMode,
      describe: DESCRIBED_PURPOSES,
    });
    lifetime.defer(() => agent.close());
    lifetime.defer(reportActivity({ agent, events, ui, log, onTouch: around.onTouch }));
    const listening = await parts.listenOn({ path: options.socket, onStream: (stream) => void agent.attach(stream, LOCAL_ORIGIN) });
    lifetime.defer(() => listening.close());
    lifetime.signal.throwIfAborted();
    ready = true;
    const address = parts.addressOf(listening.path);
    if (around.json) {
      const tokens = agent.inspection.tokens.map(({ uri, label, serial }) => ({ uri, label, serial }));
      events.emit("ready", { socket: listening.path, address, tokens, key: options.key ?? "all", policy: profile, pid: process.pid });
    } else {
      around.stdout.write(`P11_KIT_SERVER_ADDRESS=${address}; export P11_KIT_SERVER_ADDRESS;\n`);
    }
    ui.line(`listening on ${listening.path}`);
    await lifetime.stopped;
  } catch (thrown) {
    const interrupted = lifetime.stoppedBy !== null;
    if (!(interrupted && ready)) {
      const error = interrupted ? new TokenfwdError("E_INTERRUPTED", "interrupted before ready") : TokenfwdError.from(thrown);
      log.error("agent run failed", { code: error.code, message: error.message, cause: error.cause });
      events.emit("error", { code: error.code, message: error.message, hint: error.hint ?? null, exitCode: error.exitCode });
      ui.error(error);
      status = error.exitCode;
    }
  }
  events.emit("closing", {});
  await lifetime.close();
  events.emit("closed", { exitCode: status });
  return status;
}
