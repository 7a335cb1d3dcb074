/*
 * `tokenfwd connect`: wires the token's host, the agent and the forward, says when the token is ready on the bastion, runs CMD,
 * and takes everything away again. It must never leave anything on the bastion or a raw terminal behind, whatever fails,
 * and no PIN ever passes through it.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import type { AgentOptions, AgentPort } from "../../agent/agent.js";
import type { Inspection } from "../../agent/inspect.js";
import type { Stock, StockOptions } from "../../agent/stock.js";
import { TokenfwdError } from "../../base/errors.js";
import type { Log } from "../../base/log.js";
import type { Origin } from "../../cryptoki/types.js";
import type { BastionFiles } from "../../forward/remote/command-files.js";
import type { ResolveOptions, SshSettings } from "../../forward/ssh-settings.js";
import type { Bastion, BastionOptions, ForwardUi, RemoteWork } from "../../forward/types.js";
import type { TokenHost } from "../../token/host/host.js";
import type { EventStream } from "../event-stream.js";
import { COMMAND_FAILURE, type Lifetime, signalStatus } from "../lifetime.js";
import type { OpenModuleOptions } from "../open-module.js";
import type { TokenOptions } from "../options.js";
import type { Terminal } from "../terminal.js";
import type { Ui } from "../ui.js";
import { serveAgent } from "./agent.js";
import type { ChoriaOptions, ChoriaPlan, ChoriaServing } from "./choria.js";
import { readyEvent, readyLines } from "./ready.js";
import { createRemoteCommand, type LocalStdio, type PtyChoice } from "./remote-command.js";
import { serveStock } from "./stock.js";

export interface ConnectOptions extends TokenOptions {
  readonly destination: string;
  readonly unlock: "now" | "later" | null;
  readonly ssh: Omit<ResolveOptions, "signal">;
  readonly pty: PtyChoice;
  /** What runs on the bastion, null for nothing. */
  readonly command: RemoteWork | null;
  /** The one file of our program to put on the bastion, null for none. */
  readonly tools: Buffer | null;
  /** A stock p11-kit server in the place of our agent. */
  readonly stock: boolean;
  /** Makes choria on the bastion use the token; null: does not. */
  readonly choria: ChoriaOptions | null;
}

/** The parts a connect is made of; the real ones, or a test's. */
export interface ConnectParts {
  /** The module's real path. Throws E_MODULE when the file is not there or no module, which is told before anything else is tried. */
  checkModule(path: string): string;
  openModule(options: OpenModuleOptions): Promise<TokenHost>;
  inspectToken(host: TokenHost, token: string | null, signal: AbortSignal): Promise<Inspection>;
  createAgent(options: AgentOptions): Promise<AgentPort>;
  findModule(token: string | null, options: { readonly signal: AbortSignal; readonly log: Log }): Promise<string>;
  openStock(options: StockOptions): Promise<Stock>;
  resolveSshSettings(destination: string, options: ResolveOptions): Promise<SshSettings>;
  connectBastion(options: BastionOptions): Promise<Bastion>;
  workstationId(): string;
  planChoria(options: ChoriaOptions, files: BastionFiles, isRoot: boolean): Promise<ChoriaPlan>;
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
  /** Calls somebody to the device. */
  onTouch(token: string): void;
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
      log.error("connect failed", { code: error.code, message: error.message, reason: error.reason, cause: error.cause });
      const { code, message, hint = null, reason = null, exitCode } = error;
      events.emit("error", { code, message, hint, cause: (await causeOf(error)) ?? reason, exitCode });
      ui.error(error);
      status = options.command !== null && !interrupted ? COMMAND_FAILURE : error.exitCode;
    }
  }
  events.emit("closing", {});
  await lifetime.close();
  events.emit("closed", { exitCode: status });
  return status;
}

/** The name that doctor has for it. Its table is loaded when something has failed, and not before. */
async function causeOf(error: TokenfwdError): Promise<string | null> {
  const table = await import("../../doctor/table.js").catch(() => null);
  return table?.nameCause(error)?.cause ?? null;
}

/** What is made once for a connect. */
export interface Inner {
  readonly remote: ReturnType<typeof createRemoteCommand>;
  readonly ui: Ui;
  readonly progress: { ready: boolean };
}

async function session(options: ConnectOptions, around: ConnectSurroundings, parts: ConnectParts, inner: Inner): Promise<number> {
  const { events, lifetime } = around;
  const { remote, ui, progress } = inner;
  const { signal } = lifetime;
  events.emit("connecting", { destination: options.destination });
  if (options.module !== null) parts.checkModule(options.module);
  const settings = await parts.resolveSshSettings(options.destination, { ...options.ssh, signal });

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
  // Before there is a socket into which a program of the bastion could type one.
  if (options.stock) warn("--stock: a PIN is typed on the bastion and crosses the connection, and no policy applies");
  // The token comes after the log-in, which may need the same card (ssh-agent).
  const bastion = await parts.connectBastion({
    settings,
    workstationId: parts.workstationId(),
    connectId,
    ui: forwardUi(around, warn, seen),
    signal,
    requirePty: options.pty === "force",
    ...(options.tools === null ? {} : { tools: options.tools }),
  });
  lifetime.defer(() => bastion.close());
  seen.hostKey = bastion.hostKey;
  const cut = failing(bastion.lost);
  cut.catch(() => undefined);
  // Before the token is opened, and anybody asked for a PIN.
  const plan =
    options.choria === null ? null : await Promise.race([parts.planChoria(options.choria, bastion.files, settings.user === "root"), cut]);
  const starting = options.stock ? serveStock(options, around, parts, ui) : serveAgent(options, around, parts, inner);
  // What comes up after the connection was cut is still taken down.
  lifetime.defer(() =>
    starting.then(
      () => undefined,
      () => undefined,
    ),
  );
  const serving = await Promise.race([starting, cut]);
  const opening = bastion.open({
    attach: (stream) => serving.attach(stream, originNow(), connectId),
    expectedSlots: serving.expectedSlots,
    offerVersion: serving.offerVersion,
  });
  // What is served may end first, and is then the reason why nothing answers.
  const forward = await Promise.race([opening, ...(serving.gone === null ? [] : [failing(serving.gone)])]);
  // Once more and so first: the bastion is cleaned up before a module that may hang is closed.
  lifetime.defer(() => forward.close());
  const lost = Promise.race([forward.lost, ...(serving.gone === null ? [] : [serving.gone])]).then((error) => {
    events.emit("lost", { code: error.code, message: error.message });
    throw error;
  });
  lost.catch(() => undefined);
  for (const warning of forward.ready.warnings) warn(warning);

  if (serving.unlock !== null) await Promise.race([serving.unlock(originNow(), signal), lost]);
  let choria: ChoriaServing | null = null;
  if (plan !== null) {
    const attach = (stream: Duplex): void => void serving.attach(stream, originNow(), connectId);
    const opened = plan.open({ forward, attach, lifetime, log: around.log });
    // As above: what comes up after a loss is taken down too.
    const ended = opened.then(
      () => undefined,
      () => undefined,
    );
    lifetime.defer(() => ended);
    choria = await Promise.race([opened, lost]);
  }
  signal.throwIfAborted();
  progress.ready = true;
  events.emit("ready", readyEvent(options, serving.key, serving.tokens, forward.ready, choria));
  for (const line of readyLines(options, serving.key, serving.tokens, forward.ready, choria)) ui.line(line);

  const useless = choria === null ? [] : [failing(choria.gone)];
  if (options.command === null) {
    await Promise.race([lifetime.stopped, lost, ...useless]);
    return 0;
  }
  const status = await Promise.race([remote.run(forward, options.command, signal), lost, ...useless]);
  if (lifetime.stoppedBy !== null) return signalStatus(lifetime.stoppedBy);
  if (status === null)
    throw new TokenfwdError("E_SSH_LOST", "the command's channel ended without an exit status", { hint: "was the connection cut?" });
  return status;
}

/** Rejects with what `gone` resolves to. */
async function failing(gone: Promise<TokenfwdError>): Promise<never> {
  throw await gone;
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
    askLogin: ({ lines, echo }) => terminal.askSecret(lines, lifetime.signal, echo),
    event(name, data) {
      if (name === "hostkey" && data["jump"] !== true) {
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
