/*
 * One full handshake with a broker, made by a process of its own: the key is made ready first, for that may take a question at
 * the workstation; then the broker is dialled, whose own time begins; then the key signs, once. What comes back is a session.
 */
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import type { Log } from "../../base/log.js";
import { brokerRefusal, keyFault, noTicketError, signFault, strangerError } from "./causes.js";
import { type HandshakeProcess, silentEnd, startHandshakeProcess } from "./child-process.js";
import type { EnginePlaces } from "./engine.js";
import type { HandshakeReport } from "./messages.js";

/** A broker, as TLS sees it. */
export interface TlsPeer {
  /** What its certificate must be for: a DNS name or an IP address. */
  readonly host: string;
  readonly port: number;
  /** A fresh connection on which the broker waits for a ClientHello. Rejects with what a person can read. */
  open(signal: AbortSignal): Promise<Duplex>;
}

export interface HandshakeOptions {
  readonly program: readonly string[];
  readonly engine: EnginePlaces;
  readonly address: string;
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyUri: string;
  readonly pin: Buffer | null;
  readonly log: Log;
}

/** How it ended where nobody said no. `brokerUntil`: when the broker's certificate expires, in milliseconds since 1970. `cut`: the broker hung up while the token was signing. */
export type HandshakeOutcome =
  | { readonly kind: "ticket"; readonly session: Buffer; readonly signMs: number; readonly brokerUntil: number }
  | { readonly kind: "cut"; readonly signMs: number; readonly brokerMs: number };

/** As long as a person may look for the token, on top of what the agent itself gives. */
const LOAD_MS = 180_000;
const SIGN_MS = 180_000;
/** For a broker to answer what is computed and not waited for. */
const ANSWER_MS = 10_000;
/** For it to give a session, which comes with its last words of the handshake. */
const SESSION_MS = 5_000;

/**
 * Makes the handshake. `signing` is called when the key is about to be asked. Rejects with a TokenfwdError that says who said no,
 * or with the signal's reason.
 */
export async function makeHandshake(
  options: HandshakeOptions,
  peer: TlsPeer,
  signal: AbortSignal,
  signing: () => void,
): Promise<HandshakeOutcome> {
  const child = startHandshakeProcess(options);
  let broker: Duplex | null = null;
  try {
    const { caPem, certificatePem, keyUri, pin } = options;
    child.send({ caPem, certificatePem, keyUri, hasPin: pin !== null, host: peer.host });
    const loaded = await nextWithin(child, LOAD_MS, signal);
    if (loaded.kind === "failed") throw keyFault(loaded, options);
    broker = await peer.open(signal);
    return await talk(child, broker, peer, signal, signing);
  } finally {
    broker?.destroy();
    await child.end();
  }
}

async function talk(
  child: HandshakeProcess,
  broker: Duplex,
  peer: TlsPeer,
  signal: AbortSignal,
  signing: () => void,
): Promise<HandshakeOutcome> {
  const begin = performance.now();
  let brokerMs: number | null = null;
  const hungUp = (): void => {
    brokerMs ??= performance.now() - begin;
  };
  broker.on("error", hungUp);
  broker.once("end", hungUp);
  broker.once("close", hungUp);
  broker.pipe(child.cipher).pipe(broker);
  child.send({});
  let report = await nextWithin(child, ANSWER_MS, signal);
  if (report.kind === "stranger") throw strangerError(report, peer);
  if (report.kind !== "verified") throw report.kind === "failed" ? brokerRefusal(report, peer, false) : silentEnd(null);
  signing();
  const asked = performance.now();
  report = await nextWithin(child, SIGN_MS, signal);
  const signMs = performance.now() - asked;
  // A broker that hung up meanwhile is seen only now: the process was waiting for the token.
  const wasSecure = report.kind === "secure";
  if (wasSecure) report = await nextWithin(child, SESSION_MS, signal, () => noTicketError(peer));
  if (report.kind === "ticket") {
    return { kind: "ticket", session: Buffer.from(report.session, "base64"), signMs, brokerUntil: Date.parse(report.validTo) };
  }
  if (report.kind !== "failed") throw silentEnd(null);
  if (!wasSecure && report.code !== "ECONNRESET") throw signFault(report);
  if (/ALERT/.test(report.code)) throw brokerRefusal(report, peer, true);
  return { kind: "cut", signMs, brokerMs: brokerMs ?? performance.now() - begin };
}

const silent = (ms: number): TokenfwdError =>
  new TokenfwdError("E_CHORIA_BROKER", `the TLS handshake did not go on for ${ms / 1000} s`, {
    hint: "look at the workstation, which may be asking, and at the broker's log",
  });

/** The next report. Rejects when the process ends, with `late` when it says nothing for so long, and with the signal's reason. */
async function nextWithin(child: HandshakeProcess, ms: number, signal: AbortSignal, late = () => silent(ms)): Promise<HandshakeReport> {
  signal.throwIfAborted();
  let stop = (): void => {};
  const over = new Promise<never>((_resolve, reject) => {
    const timer = setTimeout(() => reject(late()), ms);
    const aborted = (): void => reject(signal.reason);
    signal.addEventListener("abort", aborted, { once: true });
    stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    };
  });
  try {
    const report = await Promise.race([child.next(), over]);
    if (report === null) throw silentEnd(await child.end());
    return report;
  } finally {
    stop();
  }
}
