/*
 * A Transport on ssh2. It must never accept a host key on its own (ssh2 takes any unless told), offer SHA-1 or zlib,
 * forward an agent, or take a channel that the server opens for anything but a socket we asked for.
 */
import type { Duplex } from "node:stream";
import ssh2, { type ClientChannel } from "ssh2";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { findKnownKeys, fingerprint } from "../known-hosts.js";
import type { SshSettings } from "../ssh-settings.js";
import type { ExecChannel, ExitStatus, Outcome, Refusal, Transport } from "../transport.js";
import type { ForwardUi } from "../types.js";
import { algorithmsFor } from "./algorithms.js";
import { type Authentication, createAuthentication } from "./auth.js";
import { channelStream } from "./channel-stream.js";
import { authError, connectionError } from "./connection-error.js";
import { createHostKeyCheck } from "./host-key.js";
import { createLoopbackPorts } from "./loopback-ports.js";

const MAX_DEBUG_TEXTS = 100;
/** A server could fill the log with them while a person types. */
const MAX_BANNERS = 10;

export interface Ssh2Options {
  readonly settings: SshSettings;
  readonly ui: ForwardUi;
  readonly signal: AbortSignal;
  /** How the connection below ends, where `dial` goes through one. */
  readonly below?: Promise<TokenfwdError | null>;
}

/** Asks the server for one thing, within the time that it has for each; an answer that comes later goes to `discard`. */
export type Attempt = <T>(
  refused: Refusal["refused"],
  start: (done: (error: Error | undefined | null, value?: T) => void) => void,
  discard?: (late: T) => void,
) => Promise<Outcome<T>>;

/**
 * Checks the host key and logs in, on the connection that `dial` begins to make and that is owned from then on.
 * @throws TokenfwdError E_SSH, E_SSH_AUTH, E_SSH_UNSUPPORTED, E_HOST_KEY_*, E_INTERRUPTED
 */
export async function connectOver(dial: () => Duplex, options: Ssh2Options): Promise<Transport> {
  const { settings, ui, signal, below } = options;
  const known = await findKnownKeys(settings);
  const algorithms = algorithmsFor(settings, known);
  const client = new ssh2.Client();
  const socket = dial();
  const debugTexts: string[] = [];
  let banners = 0;
  let strictKex = false;
  let hostKey = "";
  let fatal: TokenfwdError | null = null;
  let ended = false;
  let ready = false;

  // Our own clock instead of ssh2's, which also runs while a person reads a question.
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      fatal ??= new TokenfwdError(
        "E_SSH",
        `no answer from ${printable(settings.host)} port ${settings.port} in ${settings.connectTimeoutMs / 1000} s`,
        {
          hint: "check the name, the network and the firewall; ConnectTimeout in ssh_config sets the limit",
          reason: "connecting" in socket && socket.connecting === true ? "host-silent" : "ssh-silent",
        },
      );
      socket.destroy();
    }, settings.connectTimeoutMs);
  };
  const whileAsking = async <T>(question: () => Promise<T>): Promise<T> => {
    clearTimeout(timer);
    try {
      return await question();
    } finally {
      if (!ready) arm();
    }
  };
  const tooMuch = (why: string) => {
    fatal ??= new TokenfwdError("E_SSH_AUTH", `the log-in to ${printable(settings.host)} was given up: ${why}`, {
      hint: `try it with ssh: ssh -v ${printable(settings.destination)}`,
      reason: "login-method",
    });
    socket.destroy();
  };
  const authentication: Authentication = createAuthentication({ settings, ui, whileAsking, tooMuch });
  const checkHostKey = createHostKeyCheck({ settings, known, ui, whileAsking });

  let resolveClosed: (reason: TokenfwdError | null) => void = () => {};
  const closed = new Promise<TokenfwdError | null>((resolve) => {
    resolveClosed = resolve;
  });
  const abort = () => {
    fatal ??= new TokenfwdError("E_INTERRUPTED", "interrupted");
    socket.destroy();
  };

  const connected = new Promise<void>((resolve, reject) => {
    client.on("ready", () => {
      ready = true;
      authentication.succeeded();
      resolve();
    });
    client.on("banner", (text: string) => {
      banners += 1;
      if (banners <= MAX_BANNERS) ui.event("auth", { banner: printable(text, 4000) });
    });
    client.on("error", (error: Error & { level?: string }) => {
      // The agent failed on one key; ssh2 goes on with the next method.
      if (error.level === "agent") return;
      const refused = error.level === "client-authentication" || /authentication failures/i.test(error.message);
      fatal ??= !ready && refused ? authError(authentication, settings, error) : connectionError(error, settings, ready);
    });
    client.on("change password", () => tooMuch("the password has expired and a new one is wanted"));
    client.on("close", () => {
      clearTimeout(timer);
      authentication.ended();
      const lost =
        fatal ??
        new TokenfwdError(ready ? "E_SSH_LOST" : "E_SSH", `${printable(settings.host)} closed the connection`, {
          hint: ready ? "connect again" : "the server's log says why; too many keys offered is one cause (IdentitiesOnly yes)",
          ...(ready ? {} : { reason: "ssh-closed" }),
        });
      resolveClosed(ended ? null : lost);
      reject(lost);
    });
  });

  void below?.then((reason) => {
    fatal ??= reason;
    socket.destroy();
  });
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  arm();
  client.connect({
    sock: socket,
    username: settings.user,
    readyTimeout: 0,
    keepaliveInterval: settings.keepaliveMs,
    keepaliveCountMax: settings.keepaliveCount,
    agentForward: false,
    // What a server of another name can do is seen by asking it.
    strictVendor: false,
    algorithms,
    authHandler: authentication.handler,
    hostVerifier: (key: Buffer, verify: (good: boolean) => void) => {
      checkHostKey(key).then(
        () => {
          hostKey = fingerprint(key);
          verify(true);
        },
        (error: unknown) => {
          fatal ??= TokenfwdError.from(error);
          verify(false);
        },
      );
    },
    debug: (text: string) => {
      authentication.debug(text);
      if (text.includes("strict KEX mode enabled")) strictKex = true;
      const said = /^Debug output from server: (.*)$/s.exec(text)?.[1];
      if (said !== undefined && debugTexts.length < MAX_DEBUG_TEXTS) debugTexts.push(printable(said.replace(/^"|"$/g, "")));
    },
  });
  try {
    await connected;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
  const sockets = new Map<string, (stream: Duplex) => void>();
  client.on("unix connection", (info, accept, reject) => {
    const connectedTo = sockets.get(info.socketPath);
    if (connectedTo === undefined) reject();
    else connectedTo(channelStream(accept() as ClientChannel));
  });

  const attempt: Attempt = <T>(
    refused: Refusal["refused"],
    start: (done: (error: Error | undefined | null, value?: T) => void) => void,
    discard: (late: T) => void = () => {},
  ): Promise<Outcome<T>> =>
    new Promise((resolve) => {
      let settled = false;
      const settle = (outcome: Outcome<T>) => {
        clearTimeout(patience);
        settled = true;
        resolve(outcome);
      };
      const fail = (error: Error & { reason?: number }, kind: Refusal["refused"] = refused) => {
        // SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1).
        const prohibited = kind === "open" && error.reason === 1;
        settle({ ok: false, refused: prohibited ? "prohibited" : kind, reason: printable(error.message) });
      };
      const seconds = settings.connectTimeoutMs / 1000;
      const patience = setTimeout(() => fail(new Error(`no answer in ${seconds} s`), "silent"), settings.connectTimeoutMs);
      void closed.then(() => fail(new Error("the connection is closed"), "closed"));
      try {
        start((error, value) => {
          if (error) fail(error);
          else if (settled) discard(value as T);
          else settle({ ok: true, value: value as T });
        });
      } catch (error) {
        fail(error instanceof Error ? error : new Error(String(error)), "closed");
      }
    });

  const loopbackPorts = createLoopbackPorts(client, attempt);
  return {
    hostKey,
    strictKex,
    closed,
    listenLoopback: loopbackPorts.listen,
    unlistenLoopback: loopbackPorts.unlisten,
    debugTexts: () => debugTexts,
    async exec(command, { pty } = {}) {
      const outcome = await attempt<ClientChannel>(
        "session",
        (done) => {
          client.exec(command, pty === undefined ? {} : { pty: { ...pty, width: 0, height: 0, modes: {} } }, done);
        },
        (late) => late.close(),
      );
      if (outcome.ok) return { ok: true, value: execChannel(outcome.value) };
      if (/pseudo-terminal/.test(outcome.reason)) return { ...outcome, refused: "pty" };
      return /Unable to exec/.test(outcome.reason) ? { ...outcome, refused: "exec" } : outcome;
    },
    async listenRemote(path, onStream) {
      sockets.set(path, onStream);
      const outcome = await attempt<null>("listen", (done) => client.openssh_forwardInStreamLocal(path, (error) => done(error, null)));
      if (!outcome.ok) sockets.delete(path);
      return outcome;
    },
    async unlistenRemote(path) {
      if (!sockets.delete(path)) return;
      await attempt<null>("listen", (done) => client.openssh_unforwardInStreamLocal(path, (error) => done(error, null)));
    },
    async openRemote(path) {
      const outcome = await attempt<ClientChannel>(
        "open",
        (done) => client.openssh_forwardOutStreamLocal(path, done),
        (late) => late.close(),
      );
      return outcome.ok ? { ok: true, value: channelStream(outcome.value) } : outcome;
    },
    async openTcp(host, port) {
      const outcome = await attempt<ClientChannel>(
        "open",
        (done) => client.forwardOut("127.0.0.1", 0, host, port, done),
        (late) => late.close(),
      );
      return outcome.ok ? { ok: true, value: channelStream(outcome.value) } : outcome;
    },
    async end() {
      ended = true;
      client.end();
      // The socket itself, not ssh2's destroy(): that does nothing once end() was called, and a dead peer never answers it.
      const hard = setTimeout(() => socket.destroy(), 1_000);
      await closed;
      clearTimeout(hard);
    },
  };
}

function execChannel(channel: ClientChannel): ExecChannel {
  let status: ExitStatus = { code: null, signal: null };
  channel.on("exit", (code: number | null, signal?: string) => {
    status = { code: code ?? null, signal: signal === undefined ? null : `SIG${printable(signal, 20).replace(/^SIG/, "")}` };
  });
  const exit = new Promise<ExitStatus>((resolve) => {
    channel.on("close", () => resolve(status));
  });
  return {
    stream: channelStream(channel),
    stderr: channel.stderr,
    exit,
    resize: ({ cols, rows }) => channel.setWindow(rows, cols, 0, 0),
    signal: (name) => channel.signal(name),
    close: () => channel.close(),
  };
}
