/*
 * What Choria's servers want of the certificate that a request is signed with, looked at before one is sent: they tell a client
 * nothing when they drop a request, and an EC certificate ends them. The same for a token's certificate and for one in a file. The
 * signer's own rules decide; here is what comes on top.
 */
import { X509Certificate } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { spkiFingerprint, spkiOfCertificate } from "../../cryptoki/keys/spki.js";
import { identityOf } from "../signer/certificate.js";
import type { Findings, Where } from "./finding.js";

/** The allow list of a server that was told nothing. */
const DEFAULT_LIST = /\.(mcollective|choria)$/;
const SOON_MS = 14 * 86_400_000;

/** What stands between BEGIN and END CERTIFICATE in a PEM file, these lines included, whether it is one or not. */
export function pemBlocks(text: string): readonly string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
}

/** The certificates of a PEM file; [] when there is none. */
export function pemCertificates(text: Buffer): X509Certificate[] {
  return pemBlocks(text.toString("latin1")).flatMap((block) => {
    try {
      return new X509Certificate(block);
    } catch {
      return [];
    }
  });
}

/** Whether servers that were told nothing take requests of this name. */
export const isAllowedByDefault = (name: string): boolean => DEFAULT_LIST.test(name);

/** The line for every server's configuration that lets a name in. */
export function allowLine(name: string): string {
  return `plugin.choria.security.certname_whitelist = ^${name.replaceAll(".", "\\.")}$`;
}

export interface CertificateToCheck {
  /** What it is called in the texts. */
  readonly what: string;
  readonly der: Buffer;
  /** Fingerprint of the key's own SubjectPublicKeyInfo; null: that the certificate is the key's is not looked at. */
  readonly spki: Buffer | null;
}

/** Answers the common name, null when no server would take the certificate. `authorities` of the CA file, null when not looked at. */
export function checkCertificate(
  { what, der, spki }: CertificateToCheck,
  authorities: readonly X509Certificate[] | null,
  now: number,
  findings: Findings,
  where: Where = {},
): string | null {
  const own = spki ?? spkiFingerprint(spkiOfCertificate(der) ?? Buffer.alloc(0));
  let name: string;
  try {
    name = identityOf(der, { uri: "pkcs11:", spki: own }, now).commonName;
  } catch (error) {
    const { message, hint = "have a new one issued" } = TokenfwdError.from(error);
    findings.add("certificate", "error", message.replace("the token's certificate", what), hint, where);
    return null;
  }
  const certificate = new X509Certificate(der);
  if (!isAllowedByDefault(name)) {
    const text = `servers take requests of ${name} only when they were told: their default list has names that end in .mcollective or .choria`;
    findings.add("whitelist", "note", text, `on every server: ${allowLine(name)}`, where);
  }
  if (Date.parse(certificate.validTo) < now + SOON_MS) {
    findings.add("expires-soon", "warning", `${what} expires on ${certificate.validTo}`, "have a new one issued for the same key", where);
  }
  if (authorities !== null && !authorities.some((ca) => issued(ca, certificate))) {
    const text = `${what} was not issued by a certificate of the CA file, so servers that have the same one refuse it`;
    const mend = "have it issued by Choria's CA, or name the right file; an intermediate CA must be in it, because choria sends none";
    findings.add("issuer", "error", text, mend, where);
  }
  return name;
}

function issued(ca: X509Certificate, certificate: X509Certificate): boolean {
  try {
    return certificate.checkIssued(ca) && certificate.verify(ca.publicKey);
  } catch {
    return false;
  }
}
