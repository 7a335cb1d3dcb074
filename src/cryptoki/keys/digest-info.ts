/*
 * Hashes that signatures are made of, by name, and DigestInfo, what CKM_RSA_PKCS wants of a digest (RFC 8017, 9.2).
 */
import { createHash } from "node:crypto";
import { der, derOid, TAG } from "./der.js";

export type HashName = "sha1" | "sha224" | "sha256" | "sha384" | "sha512";

interface HashRow {
  readonly bytes: number;
  /** DER of the DigestInfo up to the digest. */
  readonly prefix: Buffer;
}

function row(bytes: number, oid: string): HashRow {
  const whole = der(TAG.SEQUENCE, der(TAG.SEQUENCE, derOid(oid), der(TAG.NULL)), der(TAG.OCTET_STRING, Buffer.alloc(bytes)));
  return { bytes, prefix: whole.subarray(0, whole.length - bytes) };
}

const HASHES: Readonly<Record<HashName, HashRow>> = {
  sha1: row(20, "1.3.14.3.2.26"),
  sha224: row(28, "2.16.840.1.101.3.4.2.4"),
  sha256: row(32, "2.16.840.1.101.3.4.2.1"),
  sha384: row(48, "2.16.840.1.101.3.4.2.2"),
  sha512: row(64, "2.16.840.1.101.3.4.2.3"),
};

/** The lengths that a digest can have, in bytes, for error texts. */
export const DIGEST_LENGTHS = "20, 28, 32, 48 or 64 bytes (SHA-1, SHA-224, SHA-256, SHA-384, SHA-512)";

/** How long a digest of this hash is, in bytes. */
export function digestBytes(hash: HashName): number {
  return HASHES[hash].bytes;
}

/** The hash whose digests are this long; null when there is none. */
export function hashOfLength(bytes: number): HashName | null {
  return (Object.keys(HASHES) as HashName[]).find((name) => HASHES[name].bytes === bytes) ?? null;
}

/** The digest of a document. */
export function digestOf(hash: HashName, data: Buffer): Buffer {
  return createHash(hash).update(data).digest();
}

/** DER DigestInfo of a digest, which must be as long as the hash's are. */
export function digestInfo(hash: HashName, digest: Buffer): Buffer {
  return Buffer.concat([HASHES[hash].prefix, digest]);
}

/** True when the bytes are exactly a DigestInfo of one of the hashes here. */
export function isDigestInfo(bytes: Buffer): boolean {
  return Object.values(HASHES).some(
    ({ bytes: length, prefix }) => bytes.length === prefix.length + length && bytes.subarray(0, prefix.length).equals(prefix),
  );
}
