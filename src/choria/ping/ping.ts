/*
 * Asks every node of a collective whether it is there: one request to the discovery agent, signed once and sent to all, and the
 * answers looked at. Answers are not signed in protocol v1; that one is whole, is for this request and is its sender's first is all
 * that can be seen. It must never take an answer's text for true, and never ask twice.
 */
import { createHash, randomUUID } from "node:crypto";
import { performance } from "node:perf_hooks";
import { DocumentError } from "../documents/json.js";
import { parseReply, parseSecureReply } from "../documents/reply.js";
import { formatRequest, type RequestFilter } from "../documents/request.js";
import { formatTransport, parseTransport } from "../documents/transport.js";
import type { NatsLink } from "./nats.js";

/** An answer of a node. */
export interface PingReply {
  /** The node's identity, its own word. */
  readonly sender: string;
  /** From sending the request to the answer. */
  readonly ms: number;
}

export interface PingOptions {
  /** `choria=` and the name of the token's certificate. */
  readonly caller: string;
  /** What this machine calls itself. */
  readonly sender: string;
  readonly collective: string;
  readonly filter: RequestFilter;
  /** Seconds for which servers take the request. */
  readonly ttl: number;
  /** How long answers are waited for, from sending on. */
  readonly timeoutMs: number;
  /** Ends sooner when so many nodes have answered. */
  readonly expected: number | null;
  readonly link: NatsLink;
  /** choria:request:1 as choria:secure:request:1, as createRequestSigner has it. */
  sign(request: Buffer, options: { readonly signal: AbortSignal }): Promise<Buffer>;
  /** Called for each answer that counts. */
  answered(reply: PingReply): void;
}

export interface PingResult {
  readonly requestid: string;
  /** In the order in which they came. */
  readonly replies: readonly PingReply[];
  /** Answers that did not count, by what was wrong. */
  readonly refused: Readonly<Record<Refusal, number>>;
}

/** `broken`: no reply to a ping, or its hash is wrong. `foreign`: to another request. `again`: its sender has answered before. */
export type Refusal = "broken" | "foreign" | "again";

const AGENT = "discovery";
const PING = Buffer.from("ping").toString("base64");
const PONG = "pong";
/** More nodes than any collective has; beyond it nothing is kept. */
const MAX_NODES = 100_000;

/** Asks once. Rejects with what `sign` or the link reject with, when the connection is lost, or with the signal's reason. */
export async function ping(options: PingOptions, { signal }: { readonly signal: AbortSignal }): Promise<PingResult> {
  const { caller, collective, link, timeoutMs, expected } = options;
  signal.throwIfAborted();
  const requestid = randomUUID().replaceAll("-", "");
  const replyTo = `${collective}.reply.${createHash("md5").update(caller).digest("hex")}.${requestid}`;
  const secure = await options.sign(requestOf(options, requestid), { signal });
  const transport = Buffer.from(formatTransport({ data: secure, headers: { "reply-to": replyTo, mc_sender: options.sender } }));

  const replies = new Map<string, PingReply>();
  const refused: Record<Refusal, number> = { broken: 0, foreign: 0, again: 0 };
  const enough = new AbortController();
  let sent = Number.NaN;
  await link.subscribe(replyTo, (message) => {
    const read = readAnswer(message, requestid);
    if (typeof read === "string") refused[read] += 1;
    else if (replies.has(read.sender)) refused.again += 1;
    else if (replies.size < MAX_NODES) {
      const reply = { sender: read.sender, ms: performance.now() - sent };
      replies.set(read.sender, reply);
      options.answered(reply);
      if (replies.size === expected) enough.abort();
    }
  });
  sent = performance.now();
  await link.publish(`${collective}.broadcast.agent.${AGENT}`, transport);
  await waited(timeoutMs, enough.signal, link, signal);
  return { requestid, replies: [...replies.values()], refused };
}

function requestOf({ caller, sender, collective, filter, ttl }: PingOptions, requestid: string): Buffer {
  const time = Math.floor(Date.now() / 1000);
  const envelope = { requestid, senderid: sender, callerid: caller, collective, agent: AGENT, ttl, time, filter };
  return Buffer.from(formatRequest({ message: PING, envelope }));
}

/** Who answered, or why it does not count. */
function readAnswer(message: Buffer, requestid: string): { readonly sender: string } | Refusal {
  try {
    const { envelope, message: said } = parseReply(parseSecureReply(parseTransport(message).data));
    if (said !== PONG) return "broken";
    return envelope.requestid === requestid && envelope.agent === AGENT ? { sender: envelope.senderid } : "foreign";
  } catch (error) {
    if (error instanceof DocumentError) return "broken";
    throw error;
  }
}

/** Until the time is over or enough have answered. Rejects when the connection is lost, or nobody wants to know any more. */
function waited(timeoutMs: number, enough: AbortSignal, link: NatsLink, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settled = new AbortController();
    const settle = (then: () => void) => {
      clearTimeout(timer);
      settled.abort();
      then();
    };
    const timer = setTimeout(() => settle(resolve), timeoutMs);
    const once = { once: true, signal: settled.signal } as const;
    if (enough.aborted) settle(resolve);
    else enough.addEventListener("abort", () => settle(resolve), once);
    if (signal.aborted) settle(() => reject(signal.reason));
    else signal.addEventListener("abort", () => settle(() => reject(signal.reason)), once);
    void link.lost.then((why) => settle(() => reject(why)));
  });
}
