/*
 * TLS to brokers as the owner of the token's key. The key is used for one handshake at a time, in a process of its own
 * (handshake.ts), which brings back a session; every connection that carries something resumes one, in this process and without
 * the key (docs/adr/0006). Sessions are in memory only: whoever has one is the operator to the broker, so they are forgotten
 * when they are replaced, when the token has gone, and at the end. What is ours of them is overwritten then; Node has copies.
 */
import { once } from "node:events";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { connect, createSecureContext, type TLSSocket } from "node:tls";
import { TokenfwdError } from "../../base/errors.js";
import { createEmitter, type Emitter } from "../../base/events.js";
import { type Log, silentLog } from "../../base/log.js";
import { orAborted } from "../../base/single-flight.js";
import { hostPort } from "../loopback.js";
import { type BrokerName, brokerName, brokerRefusal, cutError, isStranger, noTicketError, strangerError } from "./causes.js";
import { type EnginePlaces, findEngine } from "./engine.js";
import { type HandshakeOutcome, makeHandshake, type TlsPeer } from "./handshake.js";

export type { TlsPeer } from "./handshake.js";

export interface TlsClientOptions {
  /** PEM of the token's certificate. */
  readonly certificatePem: string;
  /** `pkcs11:` URI of its private key, without query attributes. */
  readonly keyUri: string;
  /** PEM of the CAs that brokers are checked against; no other is trusted. */
  readonly caPem: string;
  /** Value of P11_KIT_SERVER_ADDRESS that leads to the agent. */
  readonly address: string;
  /** Script and arguments for this Node that run `runHandshakeChild`. */
  readonly program: readonly string[];
  /**
   * Asked once, when the other end wants the PIN from this side; null for "no PIN". The buffer becomes ours and is overwritten at
   * close. A PIN that was refused is the last that is tried.
   */
  readonly pin?: (signal: AbortSignal) => Promise<Buffer | null>;
  readonly log?: Log;
  /** Default: looked for. */
  readonly engine?: EnginePlaces;
  /** Milliseconds since 1970, for the broker's certificate; default Date.now. */
  readonly now?: () => number;
}

export interface TlsClientEvents {
  /** The token's key is about to sign a handshake: a touch may be needed. */
  readonly signing: { readonly broker: string; readonly attempt: number };
  /** It has signed, and the broker has taken it. */
  readonly signed: { readonly broker: string; readonly signMs: number };
  /** The broker hung up while the token was signing; it is tried again. */
  readonly cut: { readonly broker: string; readonly signMs: number; readonly brokerMs: number };
}

export interface TlsClient {
  /**
   * A TLS connection of the token's owner; `peer.open` is called once for each attempt. Rejects with a TokenfwdError: E_CHORIA_BROKER,
   * E_CHORIA_ENGINE, E_KEY_NOT_FOUND, E_REFUSED, or what `open` rejects with; or with the signal's reason. A handshake that
   * the key is being asked for goes on when its asker leaves: the next one has use of it.
   */
  connect(peer: TlsPeer, options: { readonly signal: AbortSignal }): Promise<Duplex>;
  /** Makes sure that there is a session for this broker, however short ago the key was asked in vain. Rejects as `connect` does. */
  prewarm(peer: TlsPeer, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Forgets all sessions: the next connection needs the token. Connections that are open stay. */
  dropSessions(): void;
  readonly events: Emitter<TlsClientEvents>;
  /** Ends what is under way. Connections are their takers' own. Safe to call twice. */
  close(): Promise<void>;
}

/** Handshakes for one connection while the broker cuts them off: a key that remembers a touch needs two. */
const MAX_TRIES = 3;
/** After a handshake that failed the key is not asked again for so long, and twice as long after each further one. */
const PAUSE_MS = { first: 2_000, most: 60_000 } as const;
/** A session that is not resumed, twice in a row, is no session. */
const MAX_RESUMPTIONS = 2;
const RESUME_MS = 10_000;

/** A client that has made no connection yet. Throws E_CHORIA_ENGINE where its parts are missing. */
export function createTlsClient(options: TlsClientOptions): TlsClient {
  const { caPem, certificatePem, keyUri, address, program, log = silentLog, now = Date.now } = options;
  const engine = options.engine ?? findEngine();
  // Without the key: what resumes nothing is a stranger's connection here, and is seen as one.
  const context = createSecureContext({ ca: caPem, minVersion: "TLSv1.2" });
  const emitter = createEmitter<TlsClientEvents>();
  const sessions = new Map<string, Buffer>();
  /** When the certificate that a broker showed expires: nobody looks at it again where a session is resumed. */
  const expiries = new Map<string, number>();
  const handshakes = new Map<string, Promise<void>>();
  const failures = new Map<string, Failure>();
  const ending = new AbortController();
  const closed = (): TokenfwdError => new TokenfwdError("E_CHORIA", "the relay has ended");
  /** One after the other, whatever the broker. */
  let queue: Promise<unknown> = Promise.resolve();
  /** Counted up when sessions are dropped: what was begun before is not kept. */
  let generation = 0;
  let pin: Buffer | null = null;
  let refusedPin: TokenfwdError | null = null;

  function keep(name: string, session: Buffer, born: number): void {
    if (born !== generation || ending.signal.aborted) {
      session.fill(0);
      return;
    }
    sessions.get(name)?.fill(0);
    sessions.set(name, session);
  }

  function drop(name: string): void {
    sessions.get(name)?.fill(0);
    sessions.delete(name);
  }

  /** One handshake; where it is found that a PIN is wanted, a second with it. */
  async function attempt(peer: TlsPeer, signing: () => void): Promise<HandshakeOutcome> {
    const make = () => makeHandshake({ program, engine, address, caPem, certificatePem, keyUri, pin, log }, peer, ending.signal, signing);
    if (refusedPin !== null) throw refusedPin;
    try {
      if (pin !== null || options.pin === undefined) return await make();
      try {
        return await make();
      } catch (thrown) {
        if (!(thrown instanceof TokenfwdError) || thrown.code !== "E_PIN_SOURCE") throw thrown;
        pin = await options.pin(ending.signal);
        if (pin === null) throw new TokenfwdError("E_PIN_CANCELLED", "the question for the token's PIN was cancelled");
        return await make();
      }
    } catch (thrown) {
      if (thrown instanceof TokenfwdError && (thrown.code === "E_PIN_WRONG" || thrown.code === "E_PIN_LOCKED")) refusedPin = thrown;
      throw thrown;
    }
  }

  async function handshake(peer: TlsPeer): Promise<void> {
    const name = hostPort(peer);
    const broker = brokerName(peer);
    let last: HandshakeOutcome | null = null;
    for (let tries = 1; tries <= MAX_TRIES; tries++) {
      ending.signal.throwIfAborted();
      const born = generation;
      last = await attempt(peer, () => emitter.emit("signing", { broker, attempt: tries }));
      if (last.kind === "ticket") {
        keep(name, last.session, born);
        expiries.set(name, last.brokerUntil);
        emitter.emit("signed", { broker, signMs: last.signMs });
        return;
      }
      log.info("the broker cut a handshake off", { broker, ...last });
      emitter.emit("cut", { broker, signMs: last.signMs, brokerMs: last.brokerMs });
    }
    if (last?.kind === "cut") throw cutError(peer, last.brokerMs, last.signMs, MAX_TRIES);
  }

  function note(name: string, error: TokenfwdError): void {
    const times = (failures.get(name)?.times ?? 0) + 1;
    const untilMs = performance.now() + Math.min(PAUSE_MS.most, PAUSE_MS.first * 2 ** (times - 1));
    failures.set(name, { error, times, untilMs });
  }

  /** A failure that the key had a part in is remembered: a client that tries again and again must not make the token sign each time. */
  async function remembered(peer: TlsPeer): Promise<void> {
    let isOfDial = false;
    const open = async (signal: AbortSignal): Promise<Duplex> => {
      try {
        return await peer.open(signal);
      } catch (thrown) {
        isOfDial = true;
        throw thrown;
      }
    };
    try {
      await handshake({ host: peer.host, port: peer.port, open });
    } catch (thrown) {
      if (thrown instanceof TokenfwdError && !isOfDial && !ending.signal.aborted) note(hostPort(peer), thrown);
      throw thrown;
    }
  }

  /** Makes the handshake, or waits for the one that is under way. */
  async function session(peer: TlsPeer, signal: AbortSignal): Promise<void> {
    const name = hostPort(peer);
    let running = handshakes.get(name);
    if (running === undefined) {
      running = queue.then(() => remembered(peer)).finally(() => handshakes.delete(name));
      queue = running.catch(() => undefined);
      handshakes.set(name, running);
    }
    await orAborted(running, signal, () => signal.reason);
  }

  return {
    events: emitter,
    async connect(peer, { signal }) {
      const name = hostPort(peer);
      for (let tries = 0; tries < MAX_RESUMPTIONS; tries++) {
        if (ending.signal.aborted) throw closed();
        if (!((expiries.get(name) ?? 0) > now())) drop(name);
        if (!sessions.has(name)) {
          const failed = failures.get(name);
          if (failed !== undefined && !handshakes.has(name) && performance.now() < failed.untilMs) throw failed.error;
          await session(peer, signal);
        }
        const cipher = await peer.open(signal);
        const ticket = sessions.get(name);
        const born = generation;
        if (ticket === undefined) {
          // Dropped while the broker was dialled.
          cipher.destroy();
          continue;
        }
        const renewed = (fresh: Buffer): void => keep(name, fresh, born);
        const resumed = await resume(cipher, { context, peer, ticket, signal, renewed });
        if (resumed !== null) {
          failures.delete(name);
          return resumed;
        }
        log.info("the broker does not resume the session any more", { broker: name });
        if (sessions.get(name) === ticket) drop(name);
      }
      const useless = noTicketError(peer);
      note(name, useless);
      throw useless;
    },
    async prewarm(peer, { signal }) {
      if (ending.signal.aborted) throw closed();
      if (!sessions.has(hostPort(peer))) await session(peer, signal);
    },
    dropSessions() {
      generation += 1;
      for (const name of [...sessions.keys()]) drop(name);
    },
    async close() {
      ending.abort(closed());
      for (const name of [...sessions.keys()]) drop(name);
      await queue;
      pin?.fill(0);
    },
  };
}

/** The last handshake with a broker, which failed. */
interface Failure {
  readonly error: TokenfwdError;
  readonly times: number;
  readonly untilMs: number;
}

interface Resumption {
  readonly context: ReturnType<typeof createSecureContext>;
  readonly peer: BrokerName;
  readonly ticket: Buffer;
  readonly signal: AbortSignal;
  renewed(session: Buffer): void;
}

/** Resumes the session on a fresh connection, which becomes ours; null when the broker would rather begin anew. */
async function resume(cipher: Duplex, { context, peer, ticket, signal, renewed }: Resumption): Promise<TLSSocket | null> {
  const { host } = peer;
  const servername = isIP(host) === 0 ? host : "";
  const socket = connect({ socket: cipher, secureContext: context, session: ticket, host, servername, rejectUnauthorized: true });
  // Stays for the connection's life: after an error comes its close, which is what its taker listens to.
  socket.on("error", () => {});
  socket.on("session", (fresh: Buffer) => {
    if (socket.isSessionReused()) renewed(fresh);
  });
  cipher.once("close", () => socket.destroy(new Error("the broker hung up")));
  const late = AbortSignal.timeout(RESUME_MS);
  let isResumed = false;
  try {
    await once(socket, "secureConnect", { signal: AbortSignal.any([signal, late]) });
    isResumed = socket.isSessionReused();
    return isResumed ? socket : null;
  } catch (thrown) {
    signal.throwIfAborted();
    const { code = "ECONNRESET", message } = thrown as NodeJS.ErrnoException;
    throw isStranger(code) ? strangerError({ code, message }, peer) : brokerRefusal({ code, message }, peer, false);
  } finally {
    if (!isResumed) {
      socket.destroy();
      cipher.destroy();
    }
  }
}
