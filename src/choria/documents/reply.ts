/*
 * choria:secure:reply:1 and choria:reply:1, what a server answers. A reply carries the hash of its message and no signature:
 * that it parses says that it is whole, never who sent it.
 */
import { createHash } from "node:crypto";
import { checkProtocol, decodeBase64, readObject } from "./fields.js";
import { DocumentError, goJson, parseJson } from "./json.js";

export interface ReplyEnvelope {
  readonly requestid: string;
  /** The server's identity, its own word. */
  readonly senderid: string;
  readonly agent: string;
  /** Unix time in seconds. */
  readonly time: number;
}

/** The document, member by member. */
export interface ChoriaReply {
  /** What the agent answered: of an RPC agent JSON, see `parseRpcReply`. */
  readonly message: string;
  readonly envelope: ReplyEnvelope;
}

/** What an RPC agent answered. */
export interface RpcReply {
  readonly action: string | null;
  /** 0 ok, 1 aborted or denied, 2 unknown action, 3 missing data, 4 invalid data, 5 another error. */
  readonly statuscode: number;
  readonly statusmsg: string;
}

const SECURE_REPLY_PROTOCOL = "choria:secure:reply:1";
const REPLY_PROTOCOL = "choria:reply:1";
const MAX_BYTES = 1024 * 1024;
const SHALLOW = { maxBytes: MAX_BYTES, maxDepth: 8, maxValues: 1_000 };
const DEEP = { maxBytes: MAX_BYTES, maxDepth: 32, maxValues: 50_000 };
const NAME = { most: 512 };

/** The text of the reply in a secure reply, once its hash has been found right. Throws DocumentError, `hash` where it is not. */
export function parseSecureReply(document: Buffer): string {
  const value = parseJson(document, SHALLOW, "the secure reply");
  checkProtocol(value, SECURE_REPLY_PROTOCOL, "the secure reply");
  const fields = readObject(value, "the secure reply", { required: ["protocol", "message", "hash"], open: true });
  const message = fields.text("message", { most: MAX_BYTES });
  const hash = decodeBase64(fields.text("hash", { most: 64 }), "the secure reply.hash");
  if (!hash.equals(hashOf(message))) throw new DocumentError("hash", "the secure reply's hash is not its message's");
  return message;
}

function hashOf(message: string): Buffer {
  return createHash("sha256").update(message).digest();
}

/** Parses the reply in it. Names that are not known are passed over. Throws DocumentError. */
export function parseReply(document: string): ChoriaReply {
  const value = parseJson(document, SHALLOW, "the reply");
  checkProtocol(value, REPLY_PROTOCOL, "the reply");
  const fields = readObject(value, "the reply", { required: ["protocol", "message", "envelope"], open: true });
  const envelope = fields.object("envelope", { required: ["requestid", "senderid", "agent", "time"], open: true });
  return {
    message: fields.text("message", { least: 0, most: MAX_BYTES }),
    envelope: {
      requestid: envelope.text("requestid", NAME),
      senderid: envelope.text("senderid", NAME),
      agent: envelope.text("agent", NAME),
      time: envelope.integer("time", 0, Number.MAX_SAFE_INTEGER),
    },
  };
}

/** Parses an RPC agent's answer; its data is not looked into. Throws DocumentError. */
export function parseRpcReply(message: string): RpcReply {
  const fields = readObject(parseJson(message, DEEP, "the answer"), "the answer", { required: ["statuscode", "statusmsg"], open: true });
  return {
    action: fields.has("action") ? fields.text("action", { least: 0, most: 512 }) : null,
    statuscode: fields.integer("statuscode", 0, 255),
    statusmsg: fields.text("statusmsg", { least: 0, most: 64 * 1024 }),
  };
}

/** The documents as stock Choria writes them, byte for byte. */
export function formatReply({ message, envelope }: ChoriaReply): string {
  const { requestid, senderid, agent, time } = envelope;
  return goJson({ protocol: REPLY_PROTOCOL, message, envelope: { requestid, senderid, agent, time } });
}

/** A reply with its hash around it. */
export function formatSecureReply(message: string): string {
  return goJson({ protocol: SECURE_REPLY_PROTOCOL, message, hash: hashOf(message).toString("base64") });
}
