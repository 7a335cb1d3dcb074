/*
 * `tokenfwd connect`: wires the token's host, the agent and the forward, says when the token is ready on the bastion, runs CMD,
 * and takes everything away again. It must never leave anything on the bastion or a raw terminal behind, whatever fails,
 * and no PIN ever passes through it.
 */
import { randomBytes } from "node:crypto";
import type { AgentOptions, AgentPort } from "../agent/agent.js";
import type { Inspection } from "../agent/inspect.js";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { CKR, rvName } from "../cryptoki/rv.js";
import type { Origin } from "../cryptoki/types.js";
import type { ResolveOptions, SshSettings } from "../forward/ssh-settings.js";
import type { Forward, ForwardOptions, ForwardUi } from "../forward/types.js";
import type { TokenHost, TokenHostOptions, UnlockResult } from "../token/host/host.js";
import { reportActivity } from "./activity.js";
import { readyEvent, readyLines } from "./connect-ready.js";
import type { EventStream } from "./event-stream.js";
import { chooseKey } from "./key-choice.js";
import { COMMAND_FAILURE, type Lifetime, signalStatus } from "./lifetime.js";
import type { TokenOptions } from "./options.js";
import { createRemoteCommand, type LocalStdio, type PtyChoice } from "./remote-command.js";
import type { Terminal } from "./terminal.js";
import type { Ui } from "./ui.js";

export interface ConnectOptions extends TokenOptions {
  readonly destination: string;
  readonly unlock: "now" | "later" | null;
  readonly ssh: Omit<ResolveOptions, "signal">;
  readonly pty: PtyChoice;
  readonly command: readonly (string | Buffer)[] | null;
}

/** The parts a connect is made of; the real ones, or a test's. */
export interface ConnectParts {
  createTokenHost(options: TokenHostOptions): Promise<TokenHost>;
  inspectToken(host: TokenHost, token: string | null, signal: AbortSignal): Promise<Inspection>;
  createAgent(options: AgentOptions): Promise<AgentPort>;
  resolveSshSettings(destination: string, options: ResolveOptions): Promise<SshSettings>;
  openForward(options: ForwardOptions): Promise<Forward>;
  workstationId(): string;
}

/** What a connect talks to. `ui` and `events` are silent where they share a stream with the other. */
export interface ConnectSurroundings {
  readonly stdio: LocalStdio;
  readonly terminal: Terminal;
  /** Built late: a line's end depends on whether the terminal is raw. */
  createUi(isRaw: () => boolean): Ui;
  readonly events: EventStream;
  readonly log: Log;
  readonly lifetime: Lifetime;
  readonly term: string;
}

/** Runs a connect to its end. Answers the exit status; what went wrong has been said, and everything is closed. */
export async function connect(options: ConnectOptions, around: ConnectSurroundings, parts: ConnectParts): Promise<number> {
  const { events, lifetime, log } = around;
  const remote = createRemoteCommand(around.stdio, options.pty, around.term);
  const ui = around.createUi(remote.isRaw);
  const progress = { ready: false };
  let status: number;
  try {
    status = await session(options, around, parts, { remote, ui, progress });
  } catch (thrown) {
    const interrupted = lifetime.stoppedBy !== null;
    if (interrupted && progress.ready) {
      status = options.command === null ? 0 : signalStatus(lifetime.stoppedBy ?? "SIGINT");
    } else {
      const error = interrupted ? new TokenfwdError("E_INTERRUPTED", "interrupted before ready") : TokenfwdError.from(thrown);
      log.error("connect failed", { code: error.code, message: error.message, cause: error.cause });
      events.emit("error", { code: error.code, message: error.message, hint: error.hint ?? null, exitCode: error.exitCode });
      ui.error(error);
      status = options.command !== null && !interrupted ? COMMAND_FAILURE : error.exitCode;
    }
  }
  events.emit("closing", {});
  await lifetime.close();
  events.emit("closed", { exitCode: status });
  return status;
}

interface Inner {
  readonly remote: ReturnType<typeof createRemoteCommand>;
  readonly ui: Ui;
  readonly progress: { ready: boolean };
}

async function session(options: ConnectOptions, around: ConnectSurroundings, parts: ConnectParts, inner: Inner): Promise<number> {
  const { events, lifetime, log } = around;
  const { remote, ui, progress } = inner;
  const { signal } = lifetime;
  events.emit("connecting", { destination: options.destination });
  const settings = await parts.resolveSshSettings(options.destination, { ...options.ssh, signal });

  const starting = parts.createTokenHost({ modulePath: options.module, pinSource: options.pinSource, log });
  const host = await lifetime.wait(starting, (late) => late.close());
  lifetime.defer(() => host.close());
  const unlock = await unlockWhen(options, host);
  const inspection = await parts.inspectToken(host, options.token, signal);
  const choice = await chooseKey(options.key, inspection, around.terminal, signal);
  signal.throwIfAborted();
  if (choice.warning !== null) ui.warning(choice.warning);

  const { token, profile, allowRawRsa, pinSource } = options;
  const pinMode = pinSource.kind === "client" ? "client" : "ask";
  const agent = await parts.createAgent({ host, token, key: choice.key, profile, allowRawRsa, pinMode, inspection });
  lifetime.defer(() => agent.close());
  const screenIsTheirs = options.command !== null && remote.pty;
  lifetime.defer(reportActivity({ agent, events, ui: screenIsTheirs ? null : ui, log, onPrompt: (open) => remote.holdStdin(open) }));

  const connectId = randomBytes(8).toString("hex");
  const seen: { hostKey: string | null } = { hostKey: null };
  const originNow = (): Omit<Origin, "connectId"> => ({
    kind: "forward",
    destination: options.destination,
    user: settings.user,
    host: settings.host,
    port: settings.port,
    hostKeySha256: seen.hostKey,
  });
  const warned = new Set<string>();
  const warn = (text: string): void => {
    if (warned.has(text)) return;
    warned.add(text);
    ui.warning(text);
    events.emit("forward", { warning: text });
  };
  const forward = await parts.openForward({
    settings,
    workstationId: parts.workstationId(),
    connectId,
    ui: forwardUi(around, warn, seen),
    signal,
    attach: (stream) => agent.attach(stream, originNow(), connectId),
    expectedSlots: () => agent.slots(),
    requirePty: options.pty === "force",
  });
  lifetime.defer(() => forward.close());
  seen.hostKey = forward.ready.hostKey;
  const lost = forward.lost.then((error) => {
    events.emit("lost", { code: error.code, message: error.message });
    throw error;
  });
  lost.catch(() => undefined);
  for (const warning of forward.ready.warnings) warn(warning);

  if (unlock && choice.key !== null) {
    const result = await Promise.race([agent.unlock(originNow(), signal), lost]);
    signal.throwIfAborted();
    if (result.rv !== CKR.CKR_OK) throw unlockError(result);
  }
  signal.throwIfAborted();
  progress.ready = true;
  events.emit("ready", readyEvent(options, choice.key, inspection.tokens, forward.ready));
  for (const line of readyLines(options, choice.key, inspection.tokens, forward.ready)) ui.line(line);

  if (options.command === null) {
    await Promise.race([lifetime.stopped, lost]);
    return 0;
  }
  const status = await Promise.race([remote.run(forward, options.command, signal), lost]);
  if (lifetime.stoppedBy !== null) return signalStatus(lifetime.stoppedBy);
  if (status === null)
    throw new TokenfwdError("E_SSH_LOST", "the command's channel ended without an exit status", { hint: "was the connection cut?" });
  return status;
}

/** `now` with nothing to ask with is refused before anything is opened (design 7). */
async function unlockWhen(options: ConnectOptions, host: TokenHost): Promise<boolean> {
  if (options.unlock === "later" || options.profile === "read") return false;
  if (options.unlock === null && (options.command === null || options.pinSource.kind === "client")) return false;
  const able = options.pinSource.kind !== "client" && (await host.canAsk());
  if (able) return true;
  if (options.unlock === null) return false;
  throw new TokenfwdError("E_PIN_SOURCE", "--unlock now, and there is nothing to ask the PIN with", {
    hint: "run it on a terminal, install pinentry, or give the PIN with --pin-source file:PATH",
  });
}

function unlockError(result: UnlockResult): TokenfwdError {
  switch (result.reason) {
    case "cancelled":
      return new TokenfwdError("E_PIN_CANCELLED", "the PIN question was cancelled", { hint: "run it again, or use --unlock later" });
    case "timeout":
      return new TokenfwdError("E_PIN_CANCELLED", "nobody answered the PIN question in time", {
        hint: "run it again, or use --unlock later",
      });
    case "no-source":
      return new TokenfwdError("E_PIN_SOURCE", "there is nothing to ask the PIN with", {
        hint: "run it on a terminal, install pinentry, or give the PIN with --pin-source file:PATH",
      });
    case "last-try-declined":
      return new TokenfwdError("E_PIN_LOCKED", "the last try of the PIN was declined", {
        hint: "unblock the PIN with the token's own tool first",
      });
    case "locked":
      return new TokenfwdError("E_PIN_LOCKED", "the PIN is locked", {
        hint: "unblock it with the token's own tool, which asks for the PUK or SO PIN",
      });
    case "wrong-pin":
      return new TokenfwdError("E_PIN_WRONG", "the token refused the PIN", {
        hint: "check the PIN source; it has not been tried a second time",
      });
    default:
      return new TokenfwdError("E_MODULE_FAULT", `the token cannot be unlocked: ${rvName(result.rv)}`, {
        hint: "try the same with: pkcs11-tool --module MODULE --login -O",
      });
  }
}

function forwardUi(around: ConnectSurroundings, warn: (text: string) => void, seen: { hostKey: string | null }): ForwardUi {
  const { events, terminal, lifetime } = around;
  return {
    async confirmHostKey({ host, keyType, fingerprint }) {
      const question = [
        `the host key of ${host} is not known: ${keyType} ${fingerprint}`,
        "compare it with what the host's administrator says. Trust it and remember it? (yes/no) ",
      ];
      return (await terminal.ask(question, lifetime.signal))?.trim().toLowerCase() === "yes";
    },
    askPassphrase: (keyPath) => terminal.askSecret(`passphrase for ${keyPath}: `, lifetime.signal),
    event(name, data) {
      if (name === "hostkey") {
        const key = data["hostKey"] ?? data["fingerprint"];
        if (typeof key === "string") seen.hostKey = key;
      }
      // There is no event of that name: a warning is about the forward, and is said there.
      if (name === "warning") warn(String(data["message"] ?? data["text"] ?? data["warning"] ?? JSON.stringify(data)));
      else events.emit(name, data);
      around.log.info(name, data);
    },
  };
}
