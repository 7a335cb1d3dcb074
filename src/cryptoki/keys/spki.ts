/*
 * Public keys as DER SubjectPublicKeyInfo: made of a token's attributes, taken from a certificate, described. Attributes
 * come from a token and certificates from anywhere: what does not make sense is null. It must never guess at a key.
 */
import { createHash, ECDH } from "node:crypto";
import { CKA, findBytes, findUlong } from "../attributes.js";
import { CKK } from "../constants.js";
import type { Attribute } from "../types.js";
import { der, derOid, derUnsigned, elements, firstElement, oidInDots, onlyElement, TAG, unsignedOf } from "./der.js";
import type { KeyType } from "./types.js";

const RSA_OID = "1.2.840.113549.1.1.1";
const RSA_PSS_OID = "1.2.840.113549.1.1.10";
const EC_OID = "1.2.840.10045.2.1";

/** Named curves: bytes of a coordinate, and the name OpenSSL has for it (null where it has none to convert with). */
interface Curve {
  readonly name: string;
  readonly bytes: number;
  readonly openssl: string;
}
const CURVES: ReadonlyMap<string, Curve> = new Map([
  ["1.2.840.10045.3.1.1", { name: "P-192", bytes: 24, openssl: "prime192v1" }],
  ["1.3.132.0.33", { name: "P-224", bytes: 28, openssl: "secp224r1" }],
  ["1.2.840.10045.3.1.7", { name: "P-256", bytes: 32, openssl: "prime256v1" }],
  ["1.3.132.0.34", { name: "P-384", bytes: 48, openssl: "secp384r1" }],
  ["1.3.132.0.35", { name: "P-521", bytes: 66, openssl: "secp521r1" }],
  ["1.3.132.0.10", { name: "secp256k1", bytes: 32, openssl: "secp256k1" }],
]);

interface Edwards {
  readonly name: string;
  readonly oid: string;
  readonly bytes: number;
}
const EDWARDS: readonly Edwards[] = [
  { name: "Ed25519", oid: "1.3.101.112", bytes: 32 },
  { name: "Ed448", oid: "1.3.101.113", bytes: 57 },
];
/** CKA_EC_PARAMS of Edwards keys, besides the OIDs of RFC 8410: names (PKCS#11 v3.0, 2.3.3) and GNU's OID. */
const EDWARDS_NAMES: ReadonlyMap<string, string> = new Map([
  ["edwards25519", "Ed25519"],
  ["Ed25519", "Ed25519"],
  ["edwards448", "Ed448"],
  ["Ed448", "Ed448"],
  ["1.3.6.1.4.1.11591.15.1", "Ed25519"],
]);

/** The bytes of one coordinate of a curve by its name, which is also how long r and s are; null for others. */
export function coordinateBytes(curve: string | null): number | null {
  return [...CURVES.values()].find(({ name }) => name === curve)?.bytes ?? null;
}

function bitString(content: Buffer): Buffer {
  return der(TAG.BIT_STRING, Buffer.alloc(1), content);
}

function rsaSpki(modulus: Buffer, exponent: Buffer): Buffer | null {
  if (modulus.every((byte) => byte === 0) || exponent.every((byte) => byte === 0)) return null;
  const algorithm = der(TAG.SEQUENCE, derOid(RSA_OID), der(TAG.NULL));
  return der(TAG.SEQUENCE, algorithm, bitString(der(TAG.SEQUENCE, derUnsigned(modulus), derUnsigned(exponent))));
}

/**
 * The point within CKA_EC_POINT: PKCS#11 wants a DER OCTET STRING, some tokens give the bare point. A bare point begins
 * with 04 as an OCTET STRING does, so where the curve is known its length decides.
 */
function ecPoint(value: Buffer, curve: Curve | undefined): Buffer | null {
  const wrapped = onlyElement(value, TAG.OCTET_STRING)?.content ?? null;
  const lengths = curve === undefined ? null : [curve.bytes * 2 + 1, curve.bytes + 1];
  const isPoint = (point: Buffer) =>
    lengths === null ? point.length % 2 === 1 && [2, 3, 4].includes(point[0] ?? 0) : lengths.includes(point.length);
  const point = [wrapped, value].find((each) => each !== null && isPoint(each)) ?? null;
  if (point === null || point[0] === 4 || curve === undefined) return point;
  try {
    // Certificates hold the uncompressed form, and keys are compared by their bytes.
    const whole = ECDH.convertKey(point, curve.openssl, undefined, undefined, "uncompressed");
    return Buffer.isBuffer(whole) ? whole : null;
  } catch {
    return null;
  }
}

function edwardsOf(params: Buffer | undefined, keyBytes: number): Edwards | undefined {
  const element = params === undefined ? null : firstElement(params);
  const text = element?.tag === TAG.OID ? oidInDots(element.content) : (element?.content.toString("latin1") ?? null);
  const name = text === null ? undefined : EDWARDS_NAMES.get(text);
  const known = EDWARDS.find((each) => each.oid === text || each.name === name);
  // Tokens that leave CKA_EC_PARAMS out exist; the two curves differ in the length of their keys.
  return known ?? (params === undefined ? EDWARDS.find(({ bytes }) => bytes === keyBytes) : undefined);
}

function edwardsSpki(params: Buffer | undefined, value: Buffer): Buffer | null {
  const octets = onlyElement(value, TAG.OCTET_STRING)?.content;
  const bits = onlyElement(value, TAG.BIT_STRING)?.content.subarray(1);
  for (const key of [value, octets, bits]) {
    const curve = key === undefined ? undefined : edwardsOf(params, key.length);
    if (key !== undefined && curve?.bytes === key.length) return der(TAG.SEQUENCE, der(TAG.SEQUENCE, derOid(curve.oid)), bitString(key));
  }
  return null;
}

/**
 * DER SubjectPublicKeyInfo of an object's attributes: CKA_KEY_TYPE and modulus and exponent (RSA, also of a private
 * key), or CKA_EC_PARAMS and CKA_EC_POINT (EC, Ed25519, Ed448), DER-wrapped or bare. null where they do not say.
 */
export function spkiFromAttributes(attributes: readonly Attribute[]): Buffer | null {
  const keyType = findUlong(attributes, CKA.CKA_KEY_TYPE);
  if (keyType === CKK.CKK_RSA) {
    const modulus = findBytes(attributes, CKA.CKA_MODULUS);
    const exponent = findBytes(attributes, CKA.CKA_PUBLIC_EXPONENT);
    return modulus === undefined || exponent === undefined ? null : rsaSpki(modulus, exponent);
  }
  const params = findBytes(attributes, CKA.CKA_EC_PARAMS);
  const value = findBytes(attributes, CKA.CKA_EC_POINT);
  if (value === undefined || value.length === 0) return null;
  const given = params === undefined || params.length === 0 ? undefined : params;
  if (keyType === CKK.CKK_EC_EDWARDS) return edwardsSpki(given, value);
  if (keyType !== CKK.CKK_EC || given === undefined) return null;
  const element = firstElement(given);
  if (element === null || element.whole.length !== given.length) return null;
  const oid = element.tag === TAG.OID ? oidInDots(element.content) : null;
  const point = ecPoint(value, oid === null ? undefined : CURVES.get(oid));
  return point === null ? null : der(TAG.SEQUENCE, der(TAG.SEQUENCE, derOid(EC_OID), given), bitString(point));
}

/** The SubjectPublicKeyInfo of a DER X.509 certificate as it stands there (a copy); null when it is none. */
export function spkiOfCertificate(certificate: Buffer): Buffer | null {
  const outer = firstElement(certificate);
  const tbs = outer?.tag === TAG.SEQUENCE ? firstElement(outer.content) : null;
  const fields = tbs?.tag === TAG.SEQUENCE ? elements(tbs.content) : null;
  if (fields === null) return null;
  // version [0] is optional; then serial number, signature, issuer, validity, subject, subjectPublicKeyInfo.
  const spki = fields[fields[0]?.tag === 0xa0 ? 6 : 5];
  return spki?.tag === TAG.SEQUENCE && describeParts(spki.whole) !== null ? Buffer.from(spki.whole) : null;
}

interface SpkiParts {
  readonly algorithm: string;
  readonly parameter: Buffer | null;
  readonly key: Buffer;
}

function describeParts(spki: Buffer): SpkiParts | null {
  const parts = elements(onlyElement(spki, TAG.SEQUENCE)?.content ?? Buffer.alloc(0));
  const algorithm = parts?.[0]?.tag === TAG.SEQUENCE ? elements(parts[0].content) : null;
  const key = parts?.[1];
  if (parts?.length !== 2 || key?.tag !== TAG.BIT_STRING || key.content[0] !== 0) return null;
  const oid = algorithm?.[0]?.tag === TAG.OID ? oidInDots(algorithm[0].content) : null;
  return oid === null ? null : { algorithm: oid, parameter: algorithm?.[1]?.whole ?? null, key: key.content.subarray(1) };
}

/** What kind of key it is. `bits` of an RSA modulus; `curve` as in KeyEntry. `other` for what is not understood. */
export function describeSpki(spki: Buffer): { readonly type: KeyType; readonly bits: number | null; readonly curve: string | null } {
  const parts = describeParts(spki);
  const edwards = EDWARDS.find(({ oid }) => oid === parts?.algorithm);
  if (edwards !== undefined) return { type: "EdDSA", bits: null, curve: edwards.name };
  if (parts?.algorithm === EC_OID) {
    const named = parts.parameter === null ? null : onlyElement(parts.parameter, TAG.OID);
    const oid = named === null ? null : oidInDots(named.content);
    return { type: "EC", bits: null, curve: oid === null ? null : (CURVES.get(oid)?.name ?? oid) };
  }
  if (parts?.algorithm === RSA_OID || parts?.algorithm === RSA_PSS_OID) {
    const modulus = rsaModulus(spki);
    const bits = modulus === null ? null : modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24;
    return { type: "RSA", bits, curve: null };
  }
  return { type: "other", bits: null, curve: null };
}

/** The modulus of an RSA key without leading zeros; null for every other key. */
export function rsaModulus(spki: Buffer): Buffer | null {
  const parts = describeParts(spki);
  if (parts?.algorithm !== RSA_OID && parts?.algorithm !== RSA_PSS_OID) return null;
  const numbers = elements(onlyElement(parts.key, TAG.SEQUENCE)?.content ?? Buffer.alloc(0));
  return unsignedOf(numbers?.[0]);
}

/** SHA-256 of the DER SubjectPublicKeyInfo: how a key is named on the wire and with --spki. */
export function spkiFingerprint(spki: Buffer): Buffer {
  return createHash("sha256").update(spki).digest();
}
