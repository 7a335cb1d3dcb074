/*
 * A list of keys as JSON (pinned, version 1) and as lines for a person. Labels and names come from a token through somebody's
 * hands and are made printable here. It must never fail because one certificate cannot be read.
 */
import { createHash, X509Certificate } from "node:crypto";
import { printable } from "../base/printable.js";
import type { KeyEntry } from "../bastion/client/index.js";
import { mechanismName } from "../cryptoki/mechanisms.js";

/** What a certificate says, names in one line as RFC 4514 writes them, `notAfter` RFC 3339 UTC. */
export interface CertificateSummary {
  readonly subject: string;
  readonly issuer: string;
  readonly notAfter: string;
}

/** One key as `keys --json` has it: `bits` of an RSA key, `curve` of the others, `spki` lower-case hex SHA-256 or null. */
export interface KeySummary {
  readonly uri: string;
  readonly label: string;
  readonly id: string;
  readonly type: KeyEntry["type"];
  readonly bits?: number | null;
  readonly curve?: string | null;
  readonly spki: string | null;
  readonly certificate: CertificateSummary | null;
  readonly mechanisms: readonly string[];
}

const DAY_MS = 86_400_000;
const SOON_DAYS = 14;
const MAX_NAME = 1000;

/**
 * The name that node:crypto gives as lines in the certificate's order, as RFC 4514 wants it: last first, with commas. An
 * empty name is undefined there, whatever its type says. A plus sign within a value is escaped.
 */
function oneLine(name: string | undefined): string {
  return printable((name ?? "").replaceAll(" + ", "+").split("\n").reverse().join(","), MAX_NAME);
}

function summarizeCertificate(der: Buffer): CertificateSummary | null {
  try {
    const { subject, issuer, validTo } = new X509Certificate(der);
    const notAfter = new Date(validTo).toISOString().replace(/\.\d+Z$/, "Z");
    return { subject: oneLine(subject), issuer: oneLine(issuer), notAfter };
  } catch {
    return null;
  }
}

/** One key as the JSON document has it. */
export function summarizeKey(key: KeyEntry): KeySummary {
  return {
    uri: printable(key.uri, 4096),
    label: printable(key.label),
    id: key.id.toString("hex"),
    type: key.type,
    ...(key.type === "RSA" ? { bits: key.bits } : { curve: key.curve === null ? null : printable(key.curve) }),
    spki: key.spki === null ? null : createHash("sha256").update(key.spki).digest("hex"),
    certificate: key.certificate === null ? null : summarizeCertificate(key.certificate),
    mechanisms: key.mechanisms.map(mechanismName),
  };
}

/** The document of `keys --json`, with its line end. */
export function keysDocument(keys: readonly KeySummary[]): string {
  return `${JSON.stringify({ v: 1, keys }, null, 2)}\n`;
}

/** A block for each key, for a person; `now` in milliseconds decides what is marked as expired. */
export function keysText(keys: readonly KeySummary[], now: number): string {
  return keys.map((key) => keyBlock(key, now)).join("\n");
}

function keyBlock(key: KeySummary, now: number): string {
  const kind = [key.type, key.type === "RSA" ? key.bits : key.curve].filter((part) => part !== null && part !== undefined).join(" ");
  const lines = [
    `${key.label === "" ? "(no label)" : key.label}`,
    `  key    ${kind}${key.id === "" ? "" : `, id ${key.id}`}`,
    `  uri    '${key.uri.replaceAll("'", "'\\''")}'`,
    `  spki   ${key.spki ?? "not shown by the token"}`,
  ];
  if (key.certificate !== null) {
    const { subject, issuer, notAfter } = key.certificate;
    lines.push(
      `  cert   ${subject || "(no name)"}`,
      `  from   ${issuer || "(no name)"}`,
      `  until  ${notAfter}${expiryMark(notAfter, now)}`,
    );
  }
  return `${lines.join("\n")}\n`;
}

function expiryMark(notAfter: string, now: number): string {
  const days = Math.floor((Date.parse(notAfter) - now) / DAY_MS);
  if (days < 0) return "  ! has expired";
  if (days < SOON_DAYS) return `  ! expires in ${days === 0 ? "less than a day" : days === 1 ? "1 day" : `${days} days`}`;
  return "";
}
