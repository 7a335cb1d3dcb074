/*
 * One forward from its first channel to its last: looks, claims a directory, listens, proves, links, and takes it all away again. It
 * must never leave anything on the bastion after a rejection or a close, and never call a socket good that was not verified.
 */
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import { within } from "../base/within.js";
import { p11KitAddress } from "../wire/p11kit/address.js";
import { forwardRefused } from "./causes.js";
import { dialThrough, listenOnLoopback } from "./loopback.js";
import { watchLoss } from "./loss.js";
import { bastionFiles, type CommandFile, commandDirectory, keepFiles } from "./remote/command-files.js";
import { firstHelper } from "./remote/first-helper.js";
import { type Helper, startHelper } from "./remote/helper.js";
import { claimPlace, linkWellKnown, type Place, type Probe, probeBastion } from "./remote/place.js";
import { measurePulse, type Pulse } from "./remote/pulse.js";
import { onlyOneSession, retryingSessions } from "./remote/sessions.js";
import { type Survey, surveyBastion } from "./remote/survey.js";
import { findToolsNode, sendTools, type Tools, type ToolsNode } from "./remote/tools.js";
import { runCommand } from "./run-command.js";
import type { ExitStatus, Outcome, Transport } from "./transport.js";
import type {
  Bastion,
  BastionFacts,
  BastionOptions,
  BastionSteps,
  Forward,
  ForwardReady,
  ForwardService,
  RemoteWork,
  RunIo,
} from "./types.js";
import { createNonceWatch, type NonceWatch, type Verification } from "./verify.js";
import { provePlace, reachPlace, type WayIn } from "./verify-place.js";

const CLEAN_UP_MS = 3_000;
/** How long a short command, or the helper after its last word, may take to close its channel. */
const CLOSE_MS = 5_000;

/** What a step fails with once the end has begun. */
export function interrupted(): TokenfwdError {
  return new TokenfwdError("E_INTERRUPTED", "interrupted");
}

/** One forward from its first channel to its last. */
export interface Opening extends BastionSteps {
  /** Everything that makes nothing on the bastion. Answers what tells of the connection's end, and the way to look further. */
  look(): Promise<Pick<Bastion, "lost" | "files">>;
  /** What was seen; to be asked for after `look`. */
  facts(): BastionFacts;
  /** All steps, then the link and the tools. */
  open(service: ForwardService, lost: Promise<TokenfwdError>): Promise<Forward>;
  /** Removes what was made, then ends the connection. Safe to call twice. */
  close(): Promise<void>;
}

/** A forward over a connection, which it owns from now on. */
export function createOpening(options: BastionOptions, transport: Transport): Opening {
  return new OneOpening(options, transport);
}

class OneOpening implements Opening {
  readonly #options: BastionOptions;
  readonly #transport: Transport;
  readonly #watch: NonceWatch = createNonceWatch();
  readonly #warnings: string[] = [];
  #helper: Helper | null = null;
  #looked: { readonly probe: Probe; readonly node: ToolsNode | null } | null = null;
  #place: Place | null = null;
  #oneSession = false;
  #sending = false;
  /** In front of CMD's PATH, the first one first. */
  readonly #searchFirst: string[] = [];
  #closing: Promise<void> | null = null;

  constructor(options: BastionOptions, transport: Transport) {
    this.#options = options;
    this.#transport = transport;
  }

  async look(): Promise<Pick<Bastion, "lost" | "files">> {
    const { settings, ui, requirePty, tools } = this.#options;
    if (!this.#transport.strictKex)
      this.#warn("the bastion's ssh server is too old for strict key exchange (OpenSSH 9.6 or a patched one has it)");
    for (const line of settings.staleForwards) {
      this.#warn(
        `ssh_config has a RemoteForward of the recipe by hand, which is not needed any more and can take the well-known path: delete the line "RemoteForward ${line}"`,
      );
    }
    const helper = await firstHelper(this.#transport, requirePty, (text) => this.#warn(text));
    this.#helper = helper;
    const [probe, oneSession] = await Promise.all([probeBastion(helper), onlyOneSession(this.#transport, CLOSE_MS)]);
    this.#oneSession = oneSession;
    if (oneSession) {
      this.#warn(
        "the bastion allows one session per connection (MaxSessions 1): if the connection is lost while a command runs, the socket's directory stays there",
      );
    }
    ui.event("probe", {
      uid: probe.uid,
      os: probe.os,
      runtimeDir: probe.runtimeDir,
      runtimeDirFrom: probe.runtimeDirFrom,
      skipped: probe.skipped,
      p11Kit: probe.p11Kit,
      p11KitClient: probe.p11KitClient,
      pty: helper.pty,
      tools: probe.tools,
    });
    if (probe.p11KitClient === null)
      this.#warn("p11-kit-client.so was not found on the bastion: install p11-kit (Debian: p11-kit-modules, Fedora: p11-kit-server)");

    this.#looked = { probe, node: tools === undefined ? null : await findToolsNode(helper) };
    const lost = watchLoss(this.#transport, helper, () => this.#closing !== null || this.#helper !== helper);
    return { lost, files: bastionFiles(helper) };
  }

  async open(service: ForwardService, lost: Promise<TokenfwdError>): Promise<Forward> {
    const { settings, tools: bundle } = this.#options;
    const { helper, probe, node } = this.#seen();
    const place = await this.claim();
    await this.listen(service);
    const verification = await this.prove(service);
    const wellKnown = await linkWellKnown(this.#transport, helper, probe);
    if (wellKnown === "foreign")
      this.#warn(`another socket lies at ${printable(probe.runtimeDir)}/p11-kit/pkcs11 and is left alone: set P11_KIT_SERVER_ADDRESS`);

    const tools = node === null || bundle === undefined ? null : await this.#sendTools(() => sendTools(helper, probe, place, node, bundle));

    const ready: ForwardReady = {
      user: settings.user,
      host: settings.host,
      port: settings.port,
      hostKey: this.#transport.hostKey,
      pty: helper.pty,
      ...(verification.passed
        ? { verified: "rpc", rttMs: verification.rttMs }
        : { verified: "no", verifiedWhy: verification.reason, rttMs: 0 }),
      remoteSocket: place.socket,
      address: p11KitAddress(place.socket),
      wellKnown,
      tools,
      warnings: this.#warnings,
    };
    if (tools !== null) this.#searchFirst.push(tools.directory);
    return {
      ready,
      run: (work, io) => this.#run(work, io, ready),
      listenLoopback: (connected) => listenOnLoopback(this.#transport, connected, (text) => this.#warn(text)),
      dial: (host, port, signal) => dialThrough(this.#transport, host, port, signal),
      keep: (make) => this.#keep(helper, probe, place, make),
      lost,
      close: () => this.close(),
    };
  }

  facts(): BastionFacts {
    const { helper, probe } = this.#seen();
    const { strictKex } = this.#transport;
    return { probe, pty: helper.pty, said: helper.said, oneSession: this.#oneSession, strictKex };
  }

  async claim(): Promise<Place> {
    const { workstationId, connectId } = this.#options;
    const { helper, probe } = this.#seen();
    const place = await claimPlace(this.#transport, helper, probe, workstationId, connectId);
    // Nothing is made on the bastion once the clean-up has begun.
    if (this.#closing !== null) throw interrupted();
    this.#place = place;
    return place;
  }

  async listen(service: Pick<ForwardService, "attach">): Promise<void> {
    const { socket } = this.#claimed();
    await this.#listen(this.#seen().helper, this.#claimed(), service);
    this.#options.ui.event("forward", { remoteSocket: socket });
  }

  async prove(service: ForwardService): Promise<Verification & { readonly via: string }> {
    const { ui } = this.#options;
    return await provePlace({ ...this.#wayIn(), watch: this.#watch, service, ui, warn: (text) => this.#warn(text) });
  }

  async dial(): Promise<Outcome<Duplex>> {
    return await reachPlace(this.#wayIn());
  }

  async survey(): Promise<Survey> {
    const { helper, probe } = this.#seen();
    return await surveyBastion(this.#transport, helper, probe, this.#options.workstationId);
  }

  async pulse(): Promise<Pulse | null> {
    return this.#oneSession ? null : await measurePulse(this.#transport);
  }

  #wayIn(): WayIn {
    const { tools } = this.#seen().probe;
    return { transport: this.#transport, tools, path: this.#claimed().socket, mayExec: !this.#oneSession };
  }

  #seen(): { readonly helper: Helper; readonly probe: Probe; readonly node: ToolsNode | null } {
    if (this.#helper === null || this.#looked === null) throw interrupted();
    return { helper: this.#helper, ...this.#looked };
  }

  #claimed(): Place {
    if (this.#place === null) throw interrupted();
    return this.#place;
  }

  close(): Promise<void> {
    this.#closing ??= this.#tearDown();
    return this.#closing;
  }

  #warn(text: string): void {
    this.#warnings.push(text);
    this.#options.ui.event("warning", { text });
  }

  async #listen(helper: Helper, place: Place, service: Pick<ForwardService, "attach">): Promise<void> {
    const outcome = await this.#transport.listenRemote(place.socket, (stream) => {
      try {
        service.attach(stream).onFirstFrameOptions((bytes) => this.#watch.seen(bytes));
      } catch {
        // The agent takes no more streams; the bastion's program sees a closed connection.
        stream.destroy();
      }
    });
    if (outcome.ok) return;
    if (outcome.refused === "silent") {
      throw new TokenfwdError("E_FORWARD_REFUSED", `the bastion's sshd does not make the socket: ${outcome.reason}`, {
        hint: "connect again; if it stays, the log of the bastion's sshd says more",
        reason: "forward-silent",
      });
    }
    const look = await helper.request("look", place.name);
    throw forwardRefused(place.socket, this.#transport.debugTexts(), look.get("sock")?.[0] ?? "none");
  }

  async #sendTools(sending: () => Promise<Tools>): Promise<Tools> {
    if (this.#closing !== null) throw interrupted();
    this.#sending = true;
    try {
      const tools = await sending();
      const { path, node, nodeVersion, bytes } = tools;
      this.#options.ui.event("tools", { path, node, nodeVersion, bytes });
      return tools;
    } finally {
      this.#sending = false;
    }
  }

  async #keep(helper: Helper, probe: Probe, place: Place, make: (directory: string) => readonly CommandFile[]): Promise<void> {
    if (this.#closing !== null) throw interrupted();
    this.#searchFirst.unshift(await keepFiles(helper, probe, place, make(commandDirectory(probe, place))));
  }

  async #run(work: RemoteWork, io: RunIo, ready: ForwardReady): Promise<ExitStatus> {
    if (this.#oneSession && this.#helper !== null) {
      // The command needs the only session there is; a new helper takes over when it has ended.
      const helper = this.#helper;
      this.#helper = null;
      await helper.request("release");
      await within(CLOSE_MS, helper.gone);
      helper.close();
    }
    return await runCommand(
      this.#oneSession ? retryingSessions(this.#transport) : this.#transport,
      work,
      {
        environment: { TOKENFWD_SOCKET: ready.remoteSocket, P11_KIT_SERVER_ADDRESS: ready.address },
        searchFirst: this.#searchFirst.length === 0 ? null : this.#searchFirst.join(":"),
      },
      io,
    );
  }

  async #tearDown(): Promise<void> {
    await within(CLEAN_UP_MS, Promise.race([this.#cleanUp(), this.#transport.closed]));
    await this.#transport.end();
  }

  async #cleanUp(): Promise<void> {
    let helper = this.#helper;
    if (this.#place !== null) await this.#transport.unlistenRemote(this.#place.socket);
    // In the midst of a file it hears nothing: its trap cleans up, and the next one what it could not.
    if (helper !== null && this.#sending) helper.close();
    if (helper === null) helper = await this.#adopt();
    try {
      await helper?.request("exit");
    } catch {
      // It went before it could answer (somebody ended it): another one cleans up.
      await (await this.#adopt())?.request("exit");
    }
  }

  /** A new helper that owns what the first one made. */
  async #adopt(): Promise<Helper | null> {
    if (this.#place === null) return null;
    const started = await startHelper(this.#oneSession ? retryingSessions(this.#transport) : this.#transport, false);
    if (!("request" in started)) return null;
    await started.request("probe");
    await started.request("adopt", this.#place.name, this.#options.connectId);
    return started;
  }
}
