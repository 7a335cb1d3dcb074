/*
 * Whether a signature that a token made over a whole document, by its key's usual mechanism, fits the public key. Pure.
 */
import { createPublicKey, verify } from "node:crypto";

/** `spki` is the DER SubjectPublicKeyInfo. Null for a kind of key that cannot be verified here. */
export function signatureFits(document: Buffer, signature: Buffer, spki: Buffer): boolean | null {
  const key = createPublicKey({ key: spki, format: "der", type: "spki" });
  switch (key.asymmetricKeyType) {
    case "rsa":
      return verify("sha256", document, key, signature);
    case "ec":
      // CKM_ECDSA_SHA256, as PKCS#11 has it: r and s one after the other.
      return verify("sha256", document, { key, dsaEncoding: "ieee-p1363" }, signature);
    case "ed25519":
    case "ed448":
      return verify(null, document, key, signature);
    default:
      return null;
  }
}
