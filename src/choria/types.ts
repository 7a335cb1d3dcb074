/*
 * What the parts of Choria's side know of the rest: a key that signs documents, and streams that somebody else makes. Types
 * only. With these handed in, signer and relay run on the bastion as well as at the workstation (design, section 10).
 */
import type { Duplex } from "node:stream";

/** The operator, as the certificate of the token's key names them. */
export interface ChoriaIdentity {
  /** The certificate's CN: `choria=` and this is the caller of every request that is signed. */
  readonly commonName: string;
  /** DER of the certificate, which is the key's own. */
  readonly certificate: Buffer;
  /** The same as PEM with lines of 64 characters and a newline at its end, as stock Choria sends it. */
  readonly certificatePem: string;
  /** `pkcs11:` URI of the private key, without query attributes. */
  readonly keyUri: string;
  /** SHA-256 of the DER SubjectPublicKeyInfo. */
  readonly spki: Buffer;
}

/** The token's key, for whole documents. */
export interface DocumentSigner {
  /**
   * RSASSA-PKCS1-v1_5 with SHA-256 over exactly these bytes, which whoever has the key is sent whole and hashes itself; up to
   * minutes, where a touch is waited for. Rejects with a TokenfwdError, or with the signal's reason.
   */
  sign(document: Buffer, options: { readonly signal: AbortSignal }): Promise<Buffer>;
}

/** Opens a plain TCP connection, from wherever the broker is reached. Rejects with an Error whose message is printable. */
export type Dial = (host: string, port: number, signal: AbortSignal) => Promise<Duplex>;
