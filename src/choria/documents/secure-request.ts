/*
 * choria:secure:request:1: a request as text, the signature over exactly its bytes, and the certificate of who signed. Nothing
 * here verifies a signature; it must never change a byte of the message.
 */
import { checkProtocol, decodeBase64, readObject } from "./fields.js";
import { goJson, parseJson } from "./json.js";
import { MAX_REQUEST_BYTES } from "./request.js";

export interface SecureRequest {
  /** The request as it was signed. */
  readonly message: string;
  /** RSASSA-PKCS1-v1_5 with SHA-256 over the UTF-8 bytes of `message`. */
  readonly signature: Buffer;
  /** PEM, the signer's certificate first. */
  readonly pubcert: string;
}

const SECURE_REQUEST_PROTOCOL = "choria:secure:request:1";
/** A request whose every character was escaped, and a certificate with its chain. */
const MAX_SECURE_REQUEST_BYTES = 512 * 1024;
const MAX_SIGNATURE_CHARACTERS = 4_096;
const MAX_PEM_CHARACTERS = 64 * 1024;
const LIMITS = { maxBytes: MAX_SECURE_REQUEST_BYTES, maxDepth: 8, maxValues: 64 };

/** Parses one. Throws DocumentError. The message is not looked into. */
export function parseSecureRequest(document: Buffer): SecureRequest {
  const value = parseJson(document, LIMITS, "the secure request");
  checkProtocol(value, SECURE_REQUEST_PROTOCOL, "the secure request");
  const fields = readObject(value, "the secure request", { required: ["protocol", "message", "signature", "pubcert"] });
  const signature = fields.text("signature", { most: MAX_SIGNATURE_CHARACTERS });
  return {
    message: fields.text("message", { most: MAX_REQUEST_BYTES }),
    signature: decodeBase64(signature, "the secure request.signature"),
    pubcert: fields.text("pubcert", {
      most: MAX_PEM_CHARACTERS,
      pattern: /^-----BEGIN CERTIFICATE-----\n/,
      says: "certificates in PEM",
    }),
  };
}

/** The document as stock Choria writes it, byte for byte. */
export function formatSecureRequest({ message, signature, pubcert }: SecureRequest): string {
  return goJson({ protocol: SECURE_REQUEST_PROTOCOL, message, signature: signature.toString("base64"), pubcert });
}
