/*
 * One HTTP request to our signer, as stock Choria sends it, from its head to what is asked in it (protocol/choria-request.md). It
 * must never tell a stranger anything: what is not whole is 400 and what is not the right client 401, both with nothing in them.
 */
import { createHash, type KeyObject, timingSafeEqual, verify } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { decodeBase64, readObject } from "../documents/fields.js";
import { DocumentError, parseJson } from "../documents/json.js";

/** Why somebody got nothing. `reason` is ours, for the log: it holds nothing of what was sent. */
export interface Rejection {
  readonly status: 400 | 401;
  readonly reason: string;
}

/** What the client has to know. */
export interface Expected {
  readonly token: Buffer;
  readonly publicKey: KeyObject;
}

/** The path of the URL that we give out. */
export const SIGNING_PATH = "/choria/v1/sign";
export const MAX_BODY_BYTES = 256 * 1024;
const LIMITS = { maxBytes: MAX_BODY_BYTES, maxDepth: 2, maxValues: 32 };

const bad = (reason: string): Rejection => ({ status: 400, reason });
const stranger = (reason: string): Rejection => ({ status: 401, reason });

/** What is wrong with the head; null when the body may be read. A browser, whatever page runs in it, does not come through. */
export function checkHead({ method, url, headers, headersDistinct }: IncomingMessage, hosts: readonly string[]): Rejection | null {
  if (method !== "POST") return bad("not a POST");
  if (url !== SIGNING_PATH) return bad("another path");
  const host = headersDistinct["host"] ?? [];
  if (host.length !== 1 || host[0] === undefined || !hosts.includes(host[0])) return bad("another Host");
  const fromPage = Object.keys(headers).find((name) => name === "origin" || name.startsWith("sec-fetch-"));
  if (fromPage !== undefined) return bad("it came from a browser");
  if (headers["content-type"] !== "application/json") return bad("not application/json");
  if (headers["content-encoding"] !== undefined) return bad("an encoding");
  const length = headers["content-length"];
  if (length !== undefined && Number(length) > MAX_BODY_BYTES) return bad("a body over the limit");
  return null;
}

/** The request to be signed, of a body by who has token and seed; or why not. */
export function readCall(body: Buffer, { token, publicKey }: Expected): Buffer | Rejection {
  let request: Buffer;
  let signature: string;
  try {
    const fields = readObject(parseJson(body, LIMITS, "the body"), "the body", { required: ["token", "request", "signature"], open: true });
    const given = fields.text("token", { least: 0, most: MAX_BODY_BYTES });
    if (!isSame(Buffer.from(given), token)) return stranger("another token");
    request = decodeBase64(fields.text("request", { most: MAX_BODY_BYTES }), "the body.request");
    signature = fields.text("signature", { least: 0, most: 1_024 });
  } catch (thrown) {
    if (thrown instanceof DocumentError) return bad(`not a signing request: ${thrown.fault}`);
    throw thrown;
  }
  if (!/^[0-9a-f]{128}$/.test(signature)) return stranger("no signature");
  if (!verify(null, request, publicKey, Buffer.from(signature, "hex"))) return stranger("another seed");
  return request;
}

/** In a time that tells nothing of where they differ, nor of their lengths. */
function isSame(given: Buffer, wanted: Buffer): boolean {
  const hash = (bytes: Buffer): Buffer => createHash("sha256").update(bytes).digest();
  return timingSafeEqual(hash(given), hash(wanted));
}
