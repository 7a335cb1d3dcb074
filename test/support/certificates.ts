/*
 * Self-signed certificates of every kind that a token could hold, made by openssl. For tests only: their keys protect nothing.
 */
import { execFileSync } from "node:child_process";
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spkiFingerprint, spkiOfCertificate } from "../../src/cryptoki/keys/spki.js";

export interface TestCertificate {
  /** DER. */
  readonly certificate: Buffer;
  readonly spki: Buffer;
  readonly key: KeyObject;
}

export interface CertificateOptions {
  /** As openssl takes it, default `/CN=ptittle`. */
  readonly subject?: string;
  readonly algorithm?: readonly string[];
  /** Default 10. */
  readonly days?: number;
  /** As -addext takes them. */
  readonly extensions?: readonly string[];
}

export const RSA = ["rsa:2048"];
export const EC = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
export const ED25519 = ["ed25519"];
export const RSA_PSS = ["rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"];

/** Valid from now on. */
export function makeCertificate(options: CertificateOptions = {}): TestCertificate {
  const { subject = "/CN=ptittle", algorithm = RSA, days = 10, extensions = [] } = options;
  const dir = mkdtempSync(join(tmpdir(), "tfwd-cert-"));
  try {
    const file = (name: string): string => join(dir, name);
    execFileSync(
      "openssl",
      [
        ...["req", "-x509", "-nodes", "-days", String(days), "-sha256", "-utf8", "-subj", subject, "-newkey", ...algorithm],
        ...extensions.flatMap((extension) => ["-addext", extension]),
        ...["-keyout", file("key.pem"), "-out", file("cert.pem")],
      ],
      { stdio: "pipe" },
    );
    const certificate = new X509Certificate(readFileSync(file("cert.pem"))).raw;
    const spki = spkiFingerprint(spkiOfCertificate(certificate) ?? Buffer.alloc(0));
    return { certificate, spki, key: createPrivateKey(readFileSync(file("key.pem"))) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
