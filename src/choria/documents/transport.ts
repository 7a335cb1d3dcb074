/*
 * choria:transport:1, what goes over NATS: a secure request or a secure reply, and headers. Nothing of it is signed: whoever
 * carries it may have changed reply subject, sender and targets, and must never be believed.
 */
import { checkProtocol, checkText, decodeBase64, type Fields, readObject } from "./fields.js";
import { DocumentError, goJson, type JsonValue, parseJson } from "./json.js";

/** The headers by the names of the document; what was not there is undefined. */
export interface TransportHeaders {
  readonly "reply-to"?: string;
  readonly mc_sender?: string;
  /** The way it took: into, through, and out of. */
  readonly "seen-by"?: readonly (readonly [string, string, string])[];
  readonly federation?: { readonly req?: string; readonly "reply-to"?: string; readonly target?: readonly string[] };
}

export interface Transport {
  /** A secure request or secure reply. */
  readonly data: Buffer;
  readonly headers: TransportHeaders;
}

const TRANSPORT_PROTOCOL = "choria:transport:1";
/** What NATS carries in one message unless told otherwise. */
const MAX_TRANSPORT_BYTES = 1024 * 1024;
const LIMITS = { maxBytes: MAX_TRANSPORT_BYTES, maxDepth: 6, maxValues: 20_000 };
const SUBJECT = { most: 1_024 };
const HOP = { least: 0, most: 1_024 };
const MAX_HOPS = 100;
const MAX_TARGETS = 10_000;

/** Parses one. Names that are not known are passed over, as stock does. Throws DocumentError. */
export function parseTransport(document: Buffer): Transport {
  const value = parseJson(document, LIMITS, "the transport");
  checkProtocol(value, TRANSPORT_PROTOCOL, "the transport");
  const fields = readObject(value, "the transport", { required: ["protocol", "data", "headers"], open: true });
  const headers = fields.object("headers", { required: [], open: true });
  return {
    data: decodeBase64(fields.text("data", { most: MAX_TRANSPORT_BYTES }), "the transport.data"),
    headers: {
      ...optional(headers, "reply-to"),
      ...optional(headers, "mc_sender"),
      ...(headers.has("seen-by") ? { "seen-by": headers.list("seen-by", MAX_HOPS, readHop) } : {}),
      ...(headers.has("federation") ? { federation: readFederation(headers) } : {}),
    },
  };
}

function optional<N extends string>(fields: Fields, name: N): { readonly [K in N]?: string } {
  return (fields.has(name) ? { [name]: fields.text(name, SUBJECT) } : {}) as { readonly [K in N]?: string };
}

function readHop(item: JsonValue, where: string): readonly [string, string, string] {
  if (!Array.isArray(item) || item.length !== 3) throw new DocumentError("type", `${where} must be a list of three`);
  const [into, by, out] = (item as readonly JsonValue[]).map((part, index) => checkText(part, `${where}[${index}]`, HOP));
  return [into ?? "", by ?? "", out ?? ""];
}

function readFederation(headers: Fields): NonNullable<TransportHeaders["federation"]> {
  const fields = headers.object("federation", { required: [], open: true });
  return {
    ...optional(fields, "req"),
    ...optional(fields, "reply-to"),
    ...(fields.has("target") ? { target: fields.list("target", MAX_TARGETS, (item, where) => checkText(item, where, SUBJECT)) } : {}),
  };
}

/** The document as stock Choria writes it, byte for byte. */
export function formatTransport({ data, headers }: Transport): string {
  const { "reply-to": replyTo, mc_sender, "seen-by": seenBy, federation } = headers;
  return goJson({
    protocol: TRANSPORT_PROTOCOL,
    data: data.toString("base64"),
    headers: {
      "reply-to": replyTo,
      mc_sender,
      "seen-by": seenBy,
      federation: federation && { req: federation.req, "reply-to": federation["reply-to"], target: federation.target },
    },
  });
}
