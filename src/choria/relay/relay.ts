/*
 * The broker relay: plain NATS for a client on this machine, TLS with the token's key to a broker. A client gets an INFO of ours,
 * must say the login, and only then is a broker dialled; from its CONNECT on, everything passes untouched, and whoever does not
 * read holds up who writes. Listening and dialling are others' business: it is given streams. It must never dial for somebody
 * who has not said the login, and never pass the login on.
 */
import { setMaxListeners } from "node:events";
import { type Duplex, finished } from "node:stream";
import type { TokenfwdError } from "../../base/errors.js";
import { createEmitter, type Emitter } from "../../base/events.js";
import { type Log, silentLog } from "../../base/log.js";
import type { Broker } from "../config/brokers.js";
import type { Dial } from "../types.js";
import { LineError, readLine } from "./line.js";
import { type Connect, errorLine, infoForClient, loginCheck, MAX_CONNECT_BYTES, NatsError, parseConnect, type RelayLogin } from "./nats.js";
import { createUpstream, type UpstreamTls } from "./upstream.js";
import { whileConnected } from "./waiting.js";

export interface BrokerRelayOptions {
  readonly login: RelayLogin;
  /** In the order in which they are tried; at least one. */
  readonly brokers: readonly Broker[];
  readonly dial: Dial;
  readonly tls: UpstreamTls;
  readonly log?: Log;
  /** Clients at a time, default 256. */
  readonly maxClients?: number;
  /** Of these, clients that have not said the login yet, default 64; one more takes the place of the longest there. */
  readonly maxStrangers?: number;
  /** For the login, default 5 s. */
  readonly connectTimeoutMs?: number;
}

export interface BrokerRelayEvents {
  /** A broker answers after it did not, or was not known to; or it does not, and `cause` says why. */
  readonly upstream: { readonly broker: string; readonly state: "up" | "down"; readonly cause: TokenfwdError | null };
  /** What is wrong on our own side: the token, OpenSSL's engine, the agent. */
  readonly fault: { readonly error: TokenfwdError };
  /** A client was turned away before any broker was dialled; printable. */
  readonly refused: { readonly why: string };
}

export interface BrokerRelay {
  /** Serves one client; the stream becomes the relay's. */
  serve(stream: Duplex): void;
  /** Has the first broker that answers accept the token's key. Rejects with a TokenfwdError that says what is wrong. */
  prewarm(options: { readonly signal: AbortSignal }): Promise<void>;
  readonly events: Emitter<BrokerRelayEvents>;
  /** Clients at this moment. */
  readonly clients: number;
  /** Ends every connection. Safe to call twice. */
  close(): Promise<void>;
}

/** How long one side may take to read what is still to come when the other has ended. */
const LINGER_MS = 5_000;

/** A relay without clients. The TLS client stays the caller's. */
export function createBrokerRelay(options: BrokerRelayOptions): BrokerRelay {
  const { login, brokers, dial, tls, log = silentLog, maxClients = 256, maxStrangers = 64, connectTimeoutMs = 5_000 } = options;
  const isLogin = loginCheck(login);
  const emitter = createEmitter<BrokerRelayEvents>();
  const ending = new AbortController();
  // Each client listens to it: that is no leak.
  setMaxListeners(0, ending.signal);
  const serving = new Map<Duplex, Promise<void>>();
  /** Who has not said the login yet, the longest there first. */
  const strangers = new Set<Duplex>();
  const upstream = createUpstream({
    brokers,
    dial,
    tls,
    changed(broker, state, cause) {
      log.info(state === "up" ? "a broker answers" : "a broker does not answer", { broker, ...(cause === null ? {} : { cause }) });
      emitter.emit("upstream", { broker, state, cause });
    },
    fault(error) {
      log.warn("the token's key cannot be used", { error });
      emitter.emit("fault", { error });
    },
  });

  function refuse(client: Duplex, answer: string, why: string): void {
    emitter.emit("refused", { why });
    hangUp(client, errorLine(answer));
  }

  /** Whoever fills the port without a login must not keep out who has it: the longest there has to go. */
  function makeRoom(): void {
    const [oldest] = strangers;
    if (oldest === undefined || strangers.size < maxStrangers) return;
    strangers.delete(oldest);
    refuse(oldest, "Maximum Connections Exceeded", `one of more than ${maxStrangers} clients without the login`);
  }

  /** The client's CONNECT with the right login; null when it was turned away or has gone. */
  async function admit(client: Duplex): Promise<Connect | null> {
    strangers.add(client);
    try {
      const line = await readLine(client, { maxBytes: MAX_CONNECT_BYTES, timeoutMs: connectTimeoutMs, signal: ending.signal });
      const connect = parseConnect(line);
      if (isLogin(connect)) return connect;
      refuse(client, "Authorization Violation", connect.user === "" ? "a client without the login" : "a client with a wrong login");
    } catch (thrown) {
      if (thrown instanceof NatsError) refuse(client, "Unknown Protocol Operation", `a client that speaks no NATS: ${thrown.message}`);
      else if (!(thrown instanceof LineError) || thrown.failure === "ended") client.destroy();
      else if (thrown.failure === "late") refuse(client, "Authentication Timeout", "a client that did not log in in time");
      else refuse(client, "Maximum Control Line Exceeded", "a client whose first line has no end");
    } finally {
      strangers.delete(client);
    }
    return null;
  }

  async function run(client: Duplex): Promise<void> {
    client.write(infoForClient(upstream.info));
    const connect = await admit(client);
    if (connect === null) return;
    let broker: Duplex;
    try {
      broker = await whileConnected(client, ending.signal, (signal) => upstream.connect(signal));
    } catch (thrown) {
      if (client.destroyed || ending.signal.aborted) client.destroy();
      else hangUp(client, errorLine(thrown instanceof Error ? thrown.message : "no broker"));
      return;
    }
    broker.write(connect.line);
    await join(client, broker, ending.signal);
  }

  return {
    events: emitter,
    get clients() {
      return serving.size;
    },
    serve(stream) {
      // After an error comes the close, which is what is acted on.
      stream.on("error", () => stream.destroy());
      if (ending.signal.aborted || serving.size >= maxClients) {
        hangUp(stream, errorLine("Maximum Connections Exceeded"));
        return;
      }
      makeRoom();
      const served = run(stream)
        .catch((error: unknown) => {
          log.error("a client could not be served", { error });
          stream.destroy();
        })
        .finally(() => serving.delete(stream));
      serving.set(stream, served);
    },
    prewarm: ({ signal }) => upstream.prewarm(AbortSignal.any([signal, ending.signal])),
    async close() {
      ending.abort();
      for (const stream of serving.keys()) stream.destroy();
      await Promise.all(serving.values());
    },
  };
}

/** Carries bytes both ways until both sides have ended, or the signal is aborted. Never rejects. */
async function join(client: Duplex, broker: Duplex, signal: AbortSignal): Promise<void> {
  const destroy = (): void => {
    client.destroy();
    broker.destroy();
  };
  let late: NodeJS.Timeout | undefined;
  const over = (stream: Duplex, broken: () => void): Promise<void> =>
    new Promise((resolve) => {
      // Whoever ends has passed its end on to the other by then; who breaks has not said any.
      finished(stream, { writable: false }, () => {
        if (!stream.readableEnded) broken();
        late ??= setTimeout(destroy, LINGER_MS);
        resolve();
      });
    });
  broker.on("error", () => broker.destroy());
  signal.addEventListener("abort", destroy, { once: true });
  const both = [over(client, () => broker.destroy()), over(broker, () => client.end())];
  client.pipe(broker);
  broker.pipe(client);
  await Promise.all(both);
  clearTimeout(late);
  signal.removeEventListener("abort", destroy);
  for (const stream of [client, broker]) hangUp(stream, null);
}

/** Says a last line, and closes when it has gone out, or soon. */
function hangUp(stream: Duplex, last: Buffer | null): void {
  if (stream.destroyed) return;
  const late = setTimeout(() => stream.destroy(), LINGER_MS);
  stream.once("close", () => clearTimeout(late));
  const done = (): void => void stream.destroy();
  if (last === null) stream.end(done);
  else stream.end(last, done);
}
