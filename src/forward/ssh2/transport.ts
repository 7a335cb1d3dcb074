/*
 * A Transport on ssh2. It must never accept a host key on its own (ssh2 takes any unless told), offer SHA-1 or zlib,
 * forward an agent, or take a channel that the server opens for anything but a socket we asked for.
 */
import { connect as dial } from "node:net";
import type { Duplex } from "node:stream";
import ssh2, { type Algorithms, type ClientChannel, type ServerHostKeyAlgorithm } from "ssh2";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { addKnownKey, findKnownKeys, fingerprint, judgeHostKey, keyType, knownHostsName, preferredKeyTypes } from "../known-hosts.js";
import type { SshSettings } from "../ssh-settings.js";
import type { ExecChannel, ExitStatus, Outcome, Refusal, Transport } from "../transport.js";
import type { ForwardUi } from "../types.js";
import { type Authentication, createAuthentication } from "./auth.js";
import { channelStream } from "./channel-stream.js";
import { authError, connectionError } from "./connection-error.js";

const HOST_KEY_TYPES = [
  "ssh-ed25519",
  "ecdsa-sha2-nistp256",
  "ecdsa-sha2-nistp384",
  "ecdsa-sha2-nistp521",
  "rsa-sha2-512",
  "rsa-sha2-256",
] as const;
const ALGORITHMS = {
  kex: [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
  ],
  hmac: ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"],
  compress: ["none"],
} as const;
const FAMILIES = { any: 0, inet: 4, inet6: 6 } as const;
const MAX_DEBUG_TEXTS = 100;

export interface Ssh2Options {
  readonly settings: SshSettings;
  readonly ui: ForwardUi;
  readonly signal: AbortSignal;
}

/**
 * Connects, checks the host key, logs in.
 * @throws TokenfwdError E_SSH, E_SSH_AUTH, E_SSH_UNSUPPORTED, E_HOST_KEY_*, E_INTERRUPTED
 */
export async function connectSsh2(options: Ssh2Options): Promise<Transport> {
  const { settings, ui, signal } = options;
  const known = await findKnownKeys(settings);
  const client = new ssh2.Client();
  const socket = dial({
    host: settings.host,
    port: settings.port,
    family: FAMILIES[settings.addressFamily],
    ...(settings.bindAddress === null ? {} : { localAddress: settings.bindAddress }),
    // From the first byte on: each delayed packet of the handshake and the login costs 40 ms.
    noDelay: true,
  });
  const debugTexts: string[] = [];
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
  const authentication: Authentication = createAuthentication({ settings, ui, whileAsking });

  let accepted: Buffer | null = null;
  const verifyHostKey = async (key: Buffer): Promise<boolean> => {
    const name = knownHostsName(settings);
    const print = fingerprint(key);
    if (accepted !== null) {
      // A later key exchange of the same connection: what was settled once is neither asked nor written again.
      if (accepted.equals(key)) return true;
      throw new TokenfwdError("E_HOST_KEY_CHANGED", `the host key of ${printable(name)} changed within the connection: it is ${print}`, {
        hint: "somebody may be listening; do not connect before the bastion's administrator explains",
      });
    }
    const verdict = judgeHostKey(name, key, known);
    let added = false;
    if (verdict === "unknown") {
      const unknown = (why: string) =>
        new TokenfwdError("E_HOST_KEY_UNKNOWN", `the host key of ${printable(name)} is not known (${keyType(key)} ${print}) and ${why}`, {
          hint: "compare the fingerprint with the administrator's, then connect once with ssh or answer yes",
        });
      if (settings.strictHostKeyChecking === "yes") throw unknown("StrictHostKeyChecking is yes");
      if (settings.strictHostKeyChecking === "ask") {
        const question = { host: printable(name), keyType: keyType(key), fingerprint: print };
        if (!(await whileAsking(() => ui.confirmHostKey(question)))) throw unknown("nobody confirmed it");
      }
      added = await addKnownKey(settings, key);
      if (!added)
        ui.event("warning", {
          text: `the host key could not be written to ${printable(settings.userKnownHostsFiles[0] ?? "known_hosts")}`,
        });
    }
    accepted = Buffer.from(key);
    hostKey = print;
    ui.event("hostkey", { host: printable(name), keyType: keyType(key), hostKey: print, known: verdict === "known", added });
    return true;
  };

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
    client.on("banner", (text: string) => ui.event("auth", { banner: printable(text, 4000) }));
    client.on("error", (error: Error & { level?: string }) => {
      // The agent failed on one key; ssh2 goes on with the next method.
      if (error.level === "agent") return;
      const refused = error.level === "client-authentication" || /authentication failures/i.test(error.message);
      fatal ??= !ready && refused ? authError(authentication, settings, error) : connectionError(error, settings, ready);
    });
    client.on("close", () => {
      clearTimeout(timer);
      const lost =
        fatal ??
        new TokenfwdError(ready ? "E_SSH_LOST" : "E_SSH", `${printable(settings.host)} closed the connection`, {
          hint: ready ? "connect again" : "the server's log says why; too many keys offered is one cause (IdentitiesOnly yes)",
        });
      resolveClosed(ended ? null : lost);
      reject(lost);
    });
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
    algorithms: {
      ...ALGORITHMS,
      serverHostKey: preferredKeyTypes(known, HOST_KEY_TYPES) as ServerHostKeyAlgorithm[],
    } as unknown as Algorithms,
    authHandler: authentication.handler,
    hostVerifier: (key: Buffer, verify: (good: boolean) => void) => {
      verifyHostKey(key).then(verify, (error: unknown) => {
        fatal ??= TokenfwdError.from(error);
        verify(false);
      });
    },
    debug: (text: string) => {
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

  const attempt = <T>(
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
      const fail = (error: Error, kind: Refusal["refused"] = refused) =>
        settle({ ok: false, refused: kind, reason: printable(error.message) });
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

  return {
    hostKey,
    strictKex,
    closed,
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
