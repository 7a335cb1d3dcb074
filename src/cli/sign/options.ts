/*
 * The options of sign, checked before anything is read or connected. It must never echo the value of a URI that could hold a
 * PIN, and never touch a socket.
 */

import { X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { printable } from "../../base/printable.js";
import { CKM, MECHANISMS } from "../../cryptoki/mechanisms.js";
import { parseSelector } from "../../cryptoki/uri.js";
import type { KeyChoice } from "../../wire/rpc/messages.js";
import { type BastionPinSource, parseBastionPinSource } from "../bastion-pin.js";
import type { RawSignOptions } from "../bastion-program.js";
import { parseNumber, usage } from "../options.js";

/** How the signature is written: as the mechanism gives it, an ECDSA one as DER, either as one line of base64. */
export interface SignatureForm {
  readonly der: boolean;
  readonly base64: boolean;
}

export interface SignOptions {
  readonly key: KeyChoice;
  /** CKM number; null: the key's usual one. */
  readonly mechanism: number | null;
  readonly isDigest: boolean;
  readonly form: SignatureForm;
  /** DER SubjectPublicKeyInfo of the certificate that was named. */
  readonly expect: Buffer | null;
  readonly purpose: string;
  /** null: not given. */
  readonly pinSource: BastionPinSource | null;
  readonly socket: string | null;
  readonly deadlineMs: number | null;
}

const MAX_CERTIFICATE_BYTES = 256 * 1024;
const MAX_DEADLINE_S = 600;
const BY_NAME: ReadonlyMap<string, number> = new Map([...MECHANISMS.values()].map(({ name, type }) => [name, type]));

/** Checks them all. Throws E_USAGE. Reads nothing but the certificate of --expect-cert. */
export function checkSignOptions(raw: RawSignOptions): SignOptions {
  const key = checkKey(raw);
  const isDigest = raw.digest === true;
  const form = { der: raw.der === true, base64: raw.base64 === true };
  return {
    key,
    mechanism: chooseMechanism(raw.mechanism === undefined ? null : parseMechanism(raw.mechanism), form.der, isDigest),
    isDigest,
    form,
    expect: raw.expectCert === undefined ? null : readExpectedKey(raw.expectCert),
    purpose: checkPurpose(raw.purpose ?? "data"),
    pinSource: raw.pinSource === undefined ? null : parseBastionPinSource(raw.pinSource),
    socket: checkSocket(raw.socket),
    deadlineMs: raw.deadline === undefined ? null : parseNumber(raw.deadline, "--deadline", 1, MAX_DEADLINE_S) * 1000,
  };
}

function checkKey({ key, spki }: RawSignOptions): KeyChoice {
  if ((key === undefined) === (spki === undefined))
    throw usage("sign takes exactly one of --key and --spki", "tokenfwd keys lists the keys with both");
  if (spki !== undefined) {
    if (!/^[0-9a-f]{64}$/i.test(spki))
      throw usage("--spki takes 64 hex digits, the SHA-256 of the DER SubjectPublicKeyInfo", "tokenfwd keys shows it");
    return { uri: null, spki: Buffer.from(spki, "hex") };
  }
  // What was given is not shown: it may be a PIN.
  if (key === undefined || !/^pkcs11:/i.test(key))
    throw usage("--key takes a pkcs11: URI", "tokenfwd keys prints them, ready to be copied");
  parseSelector(key);
  return { uri: key, spki: null };
}

/** A CKM_ name or `0x` number as a number. Throws E_USAGE. */
export function parseMechanism(text: string): number {
  const known = BY_NAME.get(text.toUpperCase());
  if (known !== undefined) return known;
  if (/^0x[0-9a-f]{1,8}$/i.test(text)) return Number.parseInt(text, 16);
  throw usage(
    `--mechanism does not know ${printable(text, 60)}`,
    "a name such as CKM_SHA256_RSA_PKCS, CKM_ECDSA_SHA384 or CKM_EDDSA, or its number as 0x1041",
  );
}

/**
 * With --der the mechanism is an ECDSA one also when none was named: a key that cannot do it is refused by the agent before
 * anything is signed, where a signature that then cannot be written would have cost a touch.
 */
function chooseMechanism(given: number | null, der: boolean, isDigest: boolean): number | null {
  if (!der) return given;
  if (given === null) return isDigest ? CKM.CKM_ECDSA : CKM.CKM_ECDSA_SHA256;
  if (!isEcdsa(given)) throw usage("--der is for ECDSA signatures, and the mechanism is another one", "leave out --der");
  return given;
}

/** Whether the mechanism's signature is r and s one after the other. */
export function isEcdsa(mechanism: number): boolean {
  return MECHANISMS.get(mechanism)?.name.startsWith("CKM_ECDSA") === true;
}

function checkPurpose(text: string): string {
  if (/^[a-z][a-z0-9-]{0,31}$/.test(text)) return text;
  throw usage("--purpose takes a short name of a-z, 0-9 and -, beginning with a letter", "for example --purpose release");
}

/** A socket path as given. Throws E_USAGE when it is empty. */
export function checkSocket(path: string | undefined): string | null {
  if (path === "") throw usage("--socket is empty", "leave it out, or name the socket's path");
  return path ?? null;
}

/** The DER SubjectPublicKeyInfo of the first certificate in a PEM or DER file. Throws E_USAGE. */
export function readExpectedKey(path: string): Buffer {
  const shown = printable(path);
  const hint = "--expect-cert takes one certificate, PEM or DER";
  let bytes: Buffer;
  try {
    const found = statSync(path);
    if (!found.isFile() || found.size > MAX_CERTIFICATE_BYTES) throw usage(`${shown} is not a certificate`, hint);
    bytes = readFileSync(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (code.startsWith("E_")) throw error;
    throw usage(`the certificate ${shown} cannot be read (${printable(code)})`, "check the path of --expect-cert");
  }
  try {
    return new X509Certificate(bytes).publicKey.export({ type: "spki", format: "der" });
  } catch {
    throw usage(`${shown} is not a certificate`, hint);
  }
}
