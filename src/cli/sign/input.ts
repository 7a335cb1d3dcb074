/*
 * What sign reads on stdin: a document, or its digest. A document that is longer than one message may be is hashed here and its
 * digest sent, so that no file is too long to be signed. It must never keep more of it than a message holds.
 */
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { hashOfMechanism } from "../../cryptoki/keys/mechanism-choice.js";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import { DEFAULT_RPC_LIMITS } from "../../wire/rpc/messages.js";
import { usage } from "../options.js";

/** Bytes of a document that go as they are. What is left of a frame holds the request around it. */
export const MAX_DOCUMENT_BYTES = DEFAULT_RPC_LIMITS.maxFrameBytes - 32 * 1024;

/** What a signature is asked for: the document itself, or its digest. */
export interface SignInput {
  readonly data: Buffer;
  readonly isDigest: boolean;
}

const DIGEST_BYTES: readonly number[] = [20, 28, 32, 48, 64];
/** A digest, or with a mechanism that takes one a DigestInfo, and no document by mistake. */
const MAX_DIGEST_BYTES = 1024;

/**
 * Reads the stream to its end. Throws E_USAGE for a digest that is none, for a document that is too long for a mechanism that
 * takes no digest, and for a stream that cannot be read or holds nothing: a signature over nothing is what a broken pipe, a
 * directory or a closed stdin would get otherwise.
 */
export async function readSignInput(
  stream: Readable,
  options: { readonly mechanism: number | null; readonly isDigest: boolean },
): Promise<SignInput> {
  const { mechanism, isDigest } = options;
  if (isDigest) return { data: checkDigest(await collect(stream, MAX_DIGEST_BYTES), mechanism), isDigest };

  const chunks: Buffer[] = [];
  let length = 0;
  let hash: ReturnType<typeof createHash> | null = null;
  for await (const chunk of bytesOf(stream)) {
    length += chunk.length;
    if (hash === null) chunks.push(chunk);
    else hash.update(chunk);
    if (hash !== null || length <= MAX_DOCUMENT_BYTES) continue;
    hash = createHash(hashFor(mechanism));
    for (const kept of chunks.splice(0)) hash.update(kept);
  }
  if (length === 0) throw usage("stdin holds nothing to sign", "give the document on stdin: tokenfwd sign ... < FILE");
  return hash === null ? { data: Buffer.concat(chunks, length), isDigest: false } : { data: hash.digest(), isDigest: true };
}

/** The hash that the mechanism would take of the document. The usual mechanism of a key takes SHA-256, or refuses a digest. */
function hashFor(mechanism: number | null): string {
  const hash = mechanism === null ? "sha256" : hashOfMechanism(mechanism);
  if (hash === null) throw tooLong(mechanism ?? 0);
  return hash;
}

function tooLong(mechanism: number): TokenfwdError {
  return usage(
    `the document is longer than ${MAX_DOCUMENT_BYTES} bytes, and ${mechanismName(mechanism)} takes no digest in its place`,
    "hash it and sign the hash, where whoever verifies expects that",
  );
}

function checkDigest(bytes: Buffer, mechanism: number | null): Buffer {
  if (/^[0-9a-fA-F]{32,}\r?\n?$/.test(bytes.toString("latin1")))
    throw usage("stdin holds hex digits, and --digest takes the digest's own bytes", "for example: openssl dgst -sha256 -binary FILE");
  // A named mechanism knows by itself what it takes.
  const fits = mechanism === null ? DIGEST_BYTES.includes(bytes.length) : bytes.length > 0 && bytes.length <= MAX_DIGEST_BYTES;
  if (fits) return bytes;
  const found = bytes.length > MAX_DIGEST_BYTES ? `more than ${MAX_DIGEST_BYTES}` : String(bytes.length);
  throw usage(
    `stdin holds ${found} bytes, which is no digest (${DIGEST_BYTES.join(", ")} bytes)`,
    "leave out --digest to sign the document itself",
  );
}

/** All of a stream's bytes, or where it has more than `most` at least one more; what comes after is not waited for. Throws E_USAGE. */
export async function collect(stream: Readable, most: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of bytesOf(stream)) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > most) break;
  }
  return Buffer.concat(chunks, length);
}

async function* bytesOf(stream: Readable): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of stream) yield Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk as string);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown";
    throw new TokenfwdError("E_USAGE", `stdin cannot be read (${code})`, {
      cause,
      hint: "give the document on stdin: tokenfwd sign ... < FILE",
    });
  }
}

/** Rejects at the first signal; a read of stdin may last for ever and cannot be taken back. */
export function interrupted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}
