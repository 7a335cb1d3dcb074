/*
 * Signs Choria requests with the token's key, in the name of its certificate and of nobody else (protocol/choria-request.md). What
 * is signed is written anew from what was understood; it must never sign a byte that came from outside as it came, and nothing
 * that is no request.
 */
import { verify, X509Certificate } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { DocumentError } from "../documents/json.js";
import { type ChoriaRequest, formatRequest, parseRequest } from "../documents/request.js";
import { formatSecureRequest } from "../documents/secure-request.js";
import { DEFAULT_MAX_TTL_SECONDS, MAX_SKEW_SECONDS, MIN_TTL_SECONDS, MOST_TTL_SECONDS } from "../limits.js";
import type { ChoriaIdentity, DocumentSigner } from "../types.js";
import { identityOf } from "./certificate.js";
import { createSeenRequests } from "./seen-requests.js";

export interface RequestSignerOptions {
  readonly identity: ChoriaIdentity;
  readonly signer: DocumentSigner;
  /** The longest ttl that is signed, default 300; at most MOST_TTL_SECONDS. */
  readonly maxTtlSeconds?: number;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
  /** Of requests that are remembered; default 10,000. */
  readonly maxRemembered?: number;
}

export interface RequestSigner {
  /**
   * A choria:request:1 as the choria:secure:request:1 that carries it, signed, both as JSON. Rejects with E_CHORIA_REQUEST or
   * E_CHORIA_CERT before the token is asked for anything; with what the signer rejects with; or with the signal's reason.
   */
  sign(request: Buffer, options: { readonly signal: AbortSignal }): Promise<Buffer>;
}

/** A signer for one identity. Its certificate is looked at again for every request, since it may expire meanwhile. */
export function createRequestSigner(options: RequestSignerOptions): RequestSigner {
  const { identity, signer, maxTtlSeconds = DEFAULT_MAX_TTL_SECONDS, now = Date.now, maxRemembered = 10_000 } = options;
  const seen = createSeenRequests(maxRemembered, MAX_SKEW_SECONDS);
  return {
    async sign(given, { signal }) {
      signal.throwIfAborted();
      const { commonName, certificate, certificatePem } = identityOf(
        identity.certificate,
        { uri: identity.keyUri, spki: identity.spki },
        now(),
      );
      const asked = readRequest(given);
      const nowSeconds = Math.floor(now() / 1000);
      checkTimes(asked, nowSeconds, maxTtlSeconds);
      const request: ChoriaRequest = { ...asked, envelope: { ...asked.envelope, callerid: `choria=${commonName}` } };
      const takeBack = seen.note(request, nowSeconds);
      if (typeof takeBack === "string") throw takeBack === "again" ? signedAlready() : tooMany(maxRemembered);
      try {
        const message = formatRequest(request);
        const document = Buffer.from(message);
        const signature = await signer.sign(document, { signal });
        // A server of somebody else's may have signed with what it likes.
        if (!verify("sha256", document, new X509Certificate(certificate).publicKey, signature)) throw wrongSignature();
        return Buffer.from(formatSecureRequest({ message, signature, pubcert: certificatePem }));
      } catch (thrown) {
        takeBack();
        throw thrown;
      }
    },
  };
}

function refused(message: string, hint: string, cause?: unknown): TokenfwdError {
  return new TokenfwdError("E_CHORIA_REQUEST", message, { hint, cause });
}

function readRequest(given: Buffer): ChoriaRequest {
  try {
    return parseRequest(given);
  } catch (thrown) {
    if (!(thrown instanceof DocumentError)) throw thrown;
    const hint =
      thrown.fault === "protocol" && thrown.message.includes("protocol v2")
        ? "let the client use Choria's protocol v1: plugin.security.provider = file"
        : "only what stock Choria writes as choria:request:1 is signed; nothing else was done with it";
    throw refused(`not signed: ${thrown.message}`, hint, thrown);
  }
}

function checkTimes({ envelope: { time, ttl } }: ChoriaRequest, nowSeconds: number, maxTtlSeconds: number): void {
  const away = time - nowSeconds;
  if (Math.abs(away) > MAX_SKEW_SECONDS) {
    throw refused(
      `not signed: the request was made ${Math.abs(away)} s ${away < 0 ? "ago" : "in the future"}, and ${MAX_SKEW_SECONDS} s are the most`,
      "make it anew; if this comes again, set the clocks of this machine and of whoever makes the request",
    );
  }
  if (ttl > maxTtlSeconds) {
    throw refused(
      `not signed: the request's ttl is ${ttl} s, and ${maxTtlSeconds} s are the most here; whoever sees the request can send it again as long`,
      `a request in batches may need more: --max-ttl takes ${MIN_TTL_SECONDS} to ${MOST_TTL_SECONDS}`,
    );
  }
}

function signedAlready(): TokenfwdError {
  return refused(
    "not signed: a request with this requestid was signed already",
    "make a new request; a batch is signed again when its time is a later second (choria's --batch-sleep)",
  );
}

function tooMany(most: number): TokenfwdError {
  return refused(
    `not signed: ${most} requests were signed a short time ago, and no more can be remembered`,
    "wait until their ttl is over",
  );
}

function wrongSignature(): TokenfwdError {
  return new TokenfwdError("E_CHORIA_CERT", "the signature that came back does not belong to the token's certificate; it was thrown away", {
    hint: "is another token in the workstation now? run this again",
  });
}
