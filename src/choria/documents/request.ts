/*
 * choria:request:1, the document that is signed (protocol/choria-request.md). Whoever parses one here has seen all that a server
 * reads of it: nothing that is not known, nothing that could be read in two ways. It must never let a document through whose
 * action it cannot name.
 */
import { MIN_TTL_SECONDS } from "../limits.js";
import { checkProtocol, checkText, type Fields, readObject } from "./fields.js";
import { DocumentError, goJson, type JsonValue, parseJson, quoted } from "./json.js";

export interface FactFilter {
  readonly fact: string;
  readonly operator: string;
  readonly value: string;
}

/** Which nodes run it; the names are those of the document. All lists empty: every node that it reaches. */
export interface RequestFilter {
  readonly fact: readonly FactFilter[];
  readonly cf_class: readonly string[];
  readonly agent: readonly string[];
  readonly identity: readonly string[];
  readonly compound: readonly (readonly { readonly expr: string }[])[];
}

export interface RequestEnvelope {
  /** 32 letters and digits. */
  readonly requestid: string;
  readonly senderid: string;
  readonly callerid: string;
  readonly collective: string;
  readonly agent: string;
  /** Seconds from `time` for which a server runs it. */
  readonly ttl: number;
  /** Unix time in seconds. */
  readonly time: number;
  readonly filter: RequestFilter;
}

/** The document, member by member. */
export interface ChoriaRequest {
  /** What the agent is told, as JSON in a string; see `parseBody`. */
  readonly message: string;
  readonly envelope: RequestEnvelope;
}

/** What the message asks for. */
export type RequestBody =
  /** An action of an RPC agent. */
  | { readonly kind: "rpc"; readonly action: string }
  /** The discovery agent's question whether a node is there. */
  | { readonly kind: "discovery" };

const REQUEST_PROTOCOL = "choria:request:1";
/** The most that fits into a signing request of 256 KiB as base64. */
export const MAX_REQUEST_BYTES = 192 * 1024;
/** Of a `ttl`: ten years, beyond which nobody means a time. */
const MAX_TTL_SECONDS = 315_360_000;
const MAX_TIME = 253_402_300_799;

const LIMITS = { maxBytes: MAX_REQUEST_BYTES, maxDepth: 8, maxValues: 50_000 };
const BODY_LIMITS = { maxBytes: MAX_REQUEST_BYTES, maxDepth: 32, maxValues: 50_000 };
const MAX_IDENTITIES = 10_000;
const MAX_FILTERS = 1_000;

const NAME = { most: 128, pattern: /^[A-Za-z0-9_.-]+$/, says: "letters, digits, _, - and ." };
const REQUEST_ID = { least: 32, most: 32, pattern: /^[0-9A-Za-z]+$/, says: "letters and digits" };
const OPERATORS: readonly string[] = [">=", "<=", "<", ">", "!=", "==", "=~"];
const OPERATOR = { most: 2, pattern: /^(?:>=|<=|<|>|!=|==|=~)$/, says: `one of ${OPERATORS.join(" ")}` };
const TERM = { most: 4_096 };

const DISCOVERY_AGENT = "discovery";
const DISCOVERY_PING = "cGluZw==";

/**
 * Parses a whole document. Throws DocumentError. The callerid may be anything of at most 512 characters: whoever signs sets it,
 * and whoever shows it asks `isCallerId` first.
 */
export function parseRequest(document: Buffer): ChoriaRequest {
  const value = parseJson(document, LIMITS, "the request");
  checkProtocol(value, REQUEST_PROTOCOL, "the request");
  const fields = readObject(value, "the request", { required: ["protocol", "message", "envelope"] });
  const envelope = fields.object("envelope", {
    required: ["requestid", "senderid", "callerid", "collective", "agent", "ttl", "time", "filter"],
  });
  const agent = envelope.text("agent", NAME);
  const message = fields.text("message", { most: MAX_REQUEST_BYTES });
  parseBody(agent, message);
  return {
    message,
    envelope: {
      requestid: envelope.text("requestid", REQUEST_ID),
      senderid: envelope.text("senderid", { least: 0, most: 512 }),
      callerid: envelope.text("callerid", { most: 512 }),
      collective: envelope.text("collective", NAME),
      agent,
      ttl: envelope.integer("ttl", MIN_TTL_SECONDS, MAX_TTL_SECONDS),
      time: envelope.integer("time", 0, MAX_TIME),
      filter: parseFilter(envelope),
    },
  };
}

function parseFilter(envelope: Fields): RequestFilter {
  const filter = envelope.object("filter", { required: ["fact", "cf_class", "identity", "compound"], optional: ["agent"] });
  const term = (item: JsonValue, where: string): string => checkText(item, where, TERM);
  return {
    fact: filter.list("fact", MAX_FILTERS, (item, where) => {
      const fact = readObject(item, where, { required: ["fact", "operator", "value"] });
      return { fact: fact.text("fact", TERM), operator: fact.text("operator", OPERATOR), value: fact.text("value", TERM) };
    }),
    cf_class: filter.list("cf_class", MAX_FILTERS, term),
    agent: filter.has("agent") ? filter.list("agent", MAX_FILTERS, term) : [],
    identity: filter.list("identity", MAX_IDENTITIES, term),
    compound: filter.list("compound", MAX_FILTERS, (item, where) => {
      if (!Array.isArray(item)) throw new DocumentError("type", `${where} must be a list`);
      return (item as readonly JsonValue[]).map((part, index) => ({
        expr: readObject(part, `${where}[${index}]`, { required: ["expr"] }).text("expr", TERM),
      }));
    }),
  };
}

/**
 * What the message of a request to `agent` asks for. An RPC message is `{"agent","action","data"}` and nothing else, for the same
 * agent; the discovery agent's is the base64 of `ping`. Throws DocumentError `body`.
 */
export function parseBody(agent: string, message: string): RequestBody {
  if (agent === DISCOVERY_AGENT && message === DISCOVERY_PING) return { kind: "discovery" };
  if (!message.trimStart().startsWith("{"))
    throw new DocumentError(
      "body",
      "its message is neither an RPC request nor the ping of a discovery, and nobody could be shown what it does",
    );
  const fields = readObject(parseJson(message, BODY_LIMITS, "its message"), "its message", { required: ["agent", "action", "data"] });
  const named = fields.text("agent", NAME);
  if (named !== agent)
    throw new DocumentError("body", `its message is for the agent ${quoted(named)}, and its envelope for ${quoted(agent)}`);
  return { kind: "rpc", action: fields.text("action", NAME) };
}

/** Whether servers read all of a callerid: what comes behind another character they pass over. No CN is longer than 64 characters. */
export function isCallerId(callerid: string): boolean {
  return /^choria=[\w.-]{1,64}$/.test(callerid);
}

/** The document as stock Choria writes it, byte for byte: these are the bytes that are signed. */
export function formatRequest({ message, envelope }: ChoriaRequest): string {
  const { requestid, senderid, callerid, collective, agent, ttl, time, filter } = envelope;
  const { fact, cf_class, agent: agents, identity, compound } = filter;
  return goJson({
    protocol: REQUEST_PROTOCOL,
    message,
    envelope: {
      requestid,
      senderid,
      callerid,
      collective,
      agent,
      ttl,
      time,
      filter: {
        fact: fact.map(({ fact: name, operator, value }) => ({ fact: name, operator, value })),
        cf_class,
        agent: agents,
        identity,
        compound: compound.map((terms) => terms.map(({ expr }) => ({ expr }))),
      },
    },
  });
}
