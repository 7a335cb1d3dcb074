/*
 * Whether a certificate can sign for Choria's protocol v1, and whom it names. Servers drop what they do not like without a word,
 * and end themselves at a certificate that is not RSA: so each rule of theirs is a text here. It must never let a key of another
 * kind through.
 */
import { X509Certificate } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { describeSpki, spkiFingerprint, spkiOfCertificate } from "../../cryptoki/keys/spki.js";
import { isCallerId } from "../documents/request.js";
import type { ChoriaIdentity } from "../types.js";

const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const ANY_USE = "2.5.29.37.0";

/** The key that the certificate has to be of. */
export interface KeyOfIdentity {
  /** `pkcs11:` URI of the private key. */
  readonly uri: string;
  /** SHA-256 of its DER SubjectPublicKeyInfo; null where the token does not show it. */
  readonly spki: Buffer | null;
}

/** `reason` is doctor's word for it (src/doctor/choria/identity.ts). */
function refused(reason: string, message: string, hint: string, cause?: unknown): TokenfwdError {
  return new TokenfwdError("E_CHORIA_CERT", printable(message, 600), { hint: printable(hint, 600), reason, cause });
}

/** The identity that a DER certificate gives to a key. `now` is in milliseconds since 1970. Throws E_CHORIA_CERT. */
export function identityOf(certificate: Buffer, key: KeyOfIdentity, now: number): ChoriaIdentity {
  const parsed = parse(certificate);
  const spki = checkKey(parsed, key);
  checkTime(parsed, now);
  checkUse(parsed);
  return {
    commonName: commonNameOf(parsed),
    certificate: Buffer.from(certificate),
    certificatePem: pemOf(certificate),
    keyUri: key.uri,
    spki,
  };
}

/** The caller that a DER certificate names, `choria=CN`; null where it names none. It is not looked at further. */
export function callerOf(certificate: Buffer): string | null {
  try {
    return `choria=${commonNameOf(parse(certificate))}`;
  } catch {
    return null;
  }
}

function parse(certificate: Buffer): X509Certificate {
  try {
    const parsed = new X509Certificate(certificate);
    if (parsed.raw.equals(certificate)) return parsed;
  } catch (cause) {
    throw refused("unreadable", "what the token has for a certificate is none", "load the key's certificate on the token anew", cause);
  }
  throw refused("unreadable", "what the token has for a certificate is none in DER", "load the key's certificate on the token anew");
}

/** The fingerprint of the certificate's key, which is RSA and the key's own. */
function checkKey(certificate: X509Certificate, key: KeyOfIdentity): Buffer {
  const spki = spkiOfCertificate(certificate.raw);
  // Of a key that is RSA for PSS alone Go makes no RSA key.
  if (spki === null || keyType(certificate) !== "rsa") {
    const kind = spki === null ? "unknown" : nameOf(describeSpki(spki));
    throw refused(
      "not-rsa",
      `the token's certificate has a key of type ${kind}, and Choria's protocol v1 takes plain RSA alone; a server that meets another ends itself`,
      "use an RSA key: tokenfwd keys lists them, and --key names one",
    );
  }
  const fingerprint = spkiFingerprint(spki);
  if (key.spki?.equals(fingerprint)) return fingerprint;
  throw refused(
    "of-another-key",
    `the certificate on the token is not the one of the key ${key.uri}`,
    "load the key's own certificate on the token, with the same id as the key",
  );
}

function keyType(certificate: X509Certificate): string | undefined {
  try {
    return certificate.publicKey.asymmetricKeyType;
  } catch {
    return undefined;
  }
}

function nameOf({ type, curve }: { readonly type: string; readonly curve: string | null }): string {
  if (type === "RSA") return "RSA-PSS";
  return curve === null ? type : `${type} (${curve})`;
}

/** Servers compare with their own clock; only a person can see that ours is wrong. */
function checkTime(certificate: X509Certificate, now: number): void {
  const until = Date.parse(certificate.validTo);
  const from = Date.parse(certificate.validFrom);
  if (!(now <= until))
    throw refused(
      "expired",
      `the token's certificate expired on ${certificate.validTo}`,
      "have a new one issued, and load it on the token",
    );
  if (!(now >= from)) {
    throw refused("not-yet", `the token's certificate is not valid before ${certificate.validFrom}`, "is the clock of this machine right?");
  }
}

function checkUse({ keyUsage }: X509Certificate): void {
  // Node's name for the extended key usage: the OIDs, or undefined.
  const uses = keyUsage as readonly string[] | undefined;
  if (uses === undefined || uses.includes(CLIENT_AUTH) || uses.includes(ANY_USE)) return;
  throw refused(
    "not-for-clients",
    "the token's certificate is not one for clients: its extended key usage does not hold clientAuth",
    "have one issued with clientAuth, or without an extended key usage",
  );
}

/** The only CN of the subject, of the characters of which servers read all. */
function commonNameOf(certificate: X509Certificate): string {
  const names = ([] as unknown[]).concat((certificate.toLegacyObject().subject as { readonly CN?: unknown } | undefined)?.CN ?? []);
  const name = names[0];
  if (typeof name !== "string" || names.length !== 1) {
    const found = names.length === 0 ? "no CN" : `${names.length} CNs`;
    throw refused("unfit-name", `the token's certificate has ${found} in its subject, and Choria takes its caller from the one`, CN_HINT);
  }
  if (!isCallerId(`choria=${name}`)) {
    throw refused("unfit-name", `the CN of the token's certificate is no Choria caller: "${printable(name, 100)}"`, CN_HINT);
  }
  return name;
}
const CN_HINT = "have one issued with a CN of letters, digits, _, . and - alone, such as ptittle";

function pemOf(certificate: Buffer): string {
  const lines = certificate.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
