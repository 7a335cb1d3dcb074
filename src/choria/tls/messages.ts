/*
 * What the process that makes a handshake and the one that started it say to one another on descriptor 4: JSON, one object a
 * line. Types and the reading of lines; no I/O.
 */

/** The first line to the child. The second is an empty object: the broker's stream is there, begin. */
export interface HandshakeOrder {
  readonly caPem: string;
  readonly certificatePem: string;
  /** `pkcs11:` URI of the private key. */
  readonly keyUri: string;
  /** Whether the PIN waits on descriptor 5. */
  readonly hasPin: boolean;
  /** The broker's name or address: what its certificate must be for. */
  readonly host: string;
}

/** A failure as Node has it. */
export interface TlsFailure {
  readonly code: string;
  readonly message: string;
}

export type HandshakeReport =
  /** The token's key can be used: a log-in has been made where one was needed. */
  | { readonly kind: "loaded" }
  /** The broker is the right one, and the key is about to be asked for a signature. */
  | { readonly kind: "verified" }
  /** The broker is not; the key was not asked. */
  | ({ readonly kind: "stranger" } & TlsFailure)
  /** Our half of the handshake is done. */
  | { readonly kind: "secure" }
  /** The broker has accepted us: a session to resume, base64 of its DER, and the end of its certificate as OpenSSL writes it. */
  | { readonly kind: "ticket"; readonly session: string; readonly validTo: string }
  | ({ readonly kind: "failed" } & TlsFailure);

/** Splits what comes in pieces into lines. Throws on a line of more than `maxBytes`. */
export function createLineSplitter(maxBytes: number): (chunk: Buffer) => string[] {
  let pending = "";
  return (chunk) => {
    const lines = (pending + chunk.toString("utf8")).split("\n");
    pending = lines.pop() ?? "";
    if (pending.length > maxBytes) throw new Error("a line has no end");
    return lines;
  };
}
