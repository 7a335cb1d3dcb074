/*
 * The brokers behind a relay: which one is tried when, and a connection to the first that answers, with its INFO read and TLS
 * under way. One that failed is passed over for a while, as long as there is another; how often the token is asked is the TLS
 * client's business. It must never say that a broker is up which was not spoken to.
 */
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { Broker } from "../config/brokers.js";
import { hostPort } from "../loopback.js";
import type { TlsClient, TlsPeer } from "../tls/tls-client.js";
import type { Dial } from "../types.js";
import { LineError, readLine } from "./line.js";
import { MAX_INFO_BYTES, NatsError, type NatsInfo, parseInfo } from "./nats.js";

/** What a relay needs of TLS. */
export type UpstreamTls = Pick<TlsClient, "connect" | "prewarm">;

export interface UpstreamOptions {
  /** In the order in which they are tried; at least one. */
  readonly brokers: readonly Broker[];
  readonly dial: Dial;
  readonly tls: UpstreamTls;
  /** A broker answers that did not, or was not known to; or it failed. `broker` is printable. */
  changed(broker: string, state: "up" | "down", cause: TokenfwdError | null): void;
  /** Something is wrong on our own side: the token, its engine, the agent. */
  fault(error: TokenfwdError): void;
  /** Milliseconds that only grow; for tests. */
  readonly now?: () => number;
}

export interface Upstream {
  /** INFO of the broker that was spoken to last; null before the first. */
  readonly info: NatsInfo | null;
  /** A connection to the first broker that answers, for CONNECT and all after it. Rejects with the last one's TokenfwdError. */
  connect(signal: AbortSignal): Promise<Duplex>;
  /** Makes sure that the first broker that answers has accepted the token's key. Rejects as `connect` does. */
  prewarm(signal: AbortSignal): Promise<void>;
}

const INFO_MS = 5_000;
/** After a failure; twice as long after each further one. */
const PAUSE_MS = { first: 500, most: 15_000 } as const;
/** A client that gave up after so long has seen a broker that does not answer. */
const PATIENCE_MS = 1_500;

interface Seat {
  readonly broker: Broker;
  readonly name: string;
  state: "unknown" | "up" | "down";
  failures: number;
  /** Not tried before this. */
  untilMs: number;
  /** Dials that wait for it. */
  dialling: number;
}

/** No broker is spoken to before the first call. */
export function createUpstream({ brokers, dial, tls, changed, fault, now = () => performance.now() }: UpstreamOptions): Upstream {
  const seats: Seat[] = brokers.map((broker) => ({
    broker,
    name: printable(hostPort(broker), 300),
    state: "unknown",
    failures: 0,
    untilMs: 0,
    dialling: 0,
  }));
  let info: NatsInfo | null = null;
  /** What a dial failed of, whoever waited for it. */
  const ofDials = new WeakSet<Error>();

  async function open(seat: Seat, signal: AbortSignal): Promise<Duplex> {
    let stream: Duplex | null = null;
    seat.dialling += 1;
    try {
      stream = await dial(seat.broker.host, seat.broker.port, signal);
      info = await readInfo(stream, signal);
      return stream;
    } catch (thrown) {
      stream?.destroy();
      const error = asError(thrown, seat.name);
      ofDials.add(error);
      throw signal.aborted ? signal.reason : error;
    } finally {
      seat.dialling -= 1;
    }
  }

  const peerOf = (seat: Seat): TlsPeer => ({ ...seat.broker, open: (signal) => open(seat, signal) });

  function failed(seat: Seat, error: TokenfwdError): void {
    seat.untilMs = now() + Math.min(PAUSE_MS.most, PAUSE_MS.first * 2 ** Math.min(seat.failures, 16));
    seat.failures += 1;
    seat.state = "down";
    changed(seat.name, "down", error);
  }

  function answered(seat: Seat): void {
    const wasUp = seat.state === "up";
    Object.assign(seat, { state: "up", failures: 0, untilMs: 0 });
    if (!wasUp) changed(seat.name, "up", null);
  }

  /** Who is tried, in order: those that answered last, those that may be tried again; all, when there are none of these. */
  function candidates(): Seat[] {
    const at = now();
    const free = seats.filter(({ untilMs }) => untilMs <= at);
    const up = free.filter(({ state }) => state === "up");
    return free.length > 0 ? [...up, ...free.filter(({ state }) => state !== "up")] : seats;
  }

  async function first<T>(signal: AbortSignal, use: (peer: TlsPeer) => Promise<T>): Promise<T> {
    let last = new TokenfwdError("E_CHORIA_BROKER", "there is no broker to connect to", { hint: "name one with --broker HOST:PORT" });
    for (const seat of candidates()) {
      const begin = now();
      let wasDialling = false;
      const look = (): void => {
        wasDialling = seat.dialling > 0;
      };
      signal.addEventListener("abort", look, { once: true });
      try {
        const made = await use(peerOf(seat));
        answered(seat);
        return made;
      } catch (thrown) {
        if (signal.aborted) {
          if (wasDialling && now() - begin >= PATIENCE_MS)
            failed(seat, asError(new Error(`${seat.name} did not answer in time`), seat.name));
          throw signal.reason;
        }
        last = asError(thrown, seat.name);
        if (last.code !== "E_CHORIA_BROKER" && !ofDials.has(last)) {
          // What is wrong with the token is wrong with every broker.
          fault(last);
          throw last;
        }
        failed(seat, last);
      } finally {
        signal.removeEventListener("abort", look);
      }
    }
    throw last;
  }

  return {
    get info() {
      return info;
    },
    connect: (signal) => first(signal, (peer) => tls.connect(peer, { signal })),
    prewarm: (signal) => first(signal, (peer) => tls.prewarm(peer, { signal })),
  };
}

async function readInfo(stream: Duplex, signal: AbortSignal): Promise<NatsInfo> {
  const seen = parseInfo(await readLine(stream, { maxBytes: MAX_INFO_BYTES, timeoutMs: INFO_MS, signal }));
  if (seen.tls_required === true || seen["tls_available"] === true) return seen;
  throw new NatsError("it speaks NATS without TLS, and is given nothing");
}

function asError(thrown: unknown, name: string): TokenfwdError {
  if (thrown instanceof TokenfwdError) return thrown;
  const text = printable(thrown instanceof Error ? thrown.message : String(thrown), 300);
  if (thrown instanceof LineError || thrown instanceof NatsError) {
    return new TokenfwdError("E_CHORIA_BROKER", `no broker answers at ${name}: ${text}`, {
      hint: "is that the port for clients, 4222 as a rule?",
      cause: thrown,
    });
  }
  return new TokenfwdError("E_CHORIA_BROKER", `the broker ${text}`, {
    hint: "is the broker running, and are its name and port right?",
    cause: thrown,
  });
}
