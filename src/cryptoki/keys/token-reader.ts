/*
 * Reads what a token shows: what it says of itself, its mechanisms, and its public keys, certificates and visible private
 * keys, grouped into keys. It must never log in, and never ask for a value that could be a secret.
 */
import { X509Certificate } from "node:crypto";
import { mapSome } from "../../base/map-some.js";
import { paddedText } from "../../base/printable.js";
import { boolAttribute, CKA, findBytes, findUlong } from "../attributes.js";
import { CKF, CKK, CKO } from "../constants.js";
import { CKR } from "../rv.js";
import type { Attribute, CallContext, Cryptoki } from "../types.js";
import { objectUri, type TokenIdentity, tokenUri } from "../uri.js";
import { findAll } from "./find.js";
import { cryptokiError } from "./key-error.js";
import { signingMechanisms } from "./mechanism-choice.js";
import { describeSpki, spkiFromAttributes, spkiOfCertificate } from "./spki.js";
import type { KeyEntry, KeyType, TokenEntry } from "./types.js";

/** A key with what its objects are called: a URI may name it by any of them. */
export interface KeyRecord {
  readonly entry: KeyEntry;
  readonly labels: readonly Buffer[];
  /** True when the private key itself was among what the token showed. */
  readonly isVisible: boolean;
}

export interface TokenRecord {
  readonly entry: TokenEntry;
  readonly keys: readonly KeyRecord[];
}

/** Objects that are read at once: over a long link one by one would take a trip each. */
const PARALLEL_READS = 8;
const MAX_SLOTS = 1_024;
const MAX_MECHANISMS = 4_096;
const MAX_SMALL_BYTES = 4_096;
const MAX_CERTIFICATE_BYTES = 65_536;

const COMMON = [CKA.CKA_CLASS, CKA.CKA_LABEL, CKA.CKA_ID, CKA.CKA_KEY_TYPE];
/** Public parts only, also of a private key: no attribute that PKCS#11 lets be sensitive is among them. */
const KEY_PARTS = [CKA.CKA_KEY_TYPE, CKA.CKA_MODULUS, CKA.CKA_PUBLIC_EXPONENT, CKA.CKA_EC_PARAMS, CKA.CKA_EC_POINT];

/** Tokens that went while they were read are no error: they are not there. */
const GONE: ReadonlySet<number> = new Set([CKR.CKR_TOKEN_NOT_PRESENT, CKR.CKR_TOKEN_NOT_RECOGNIZED, CKR.CKR_SLOT_ID_INVALID]);

/** The slots with a token. Throws KeyError `cryptoki`. */
export async function listSlots(cryptoki: Cryptoki, ctx: CallContext): Promise<readonly bigint[]> {
  const { rv, slots } = await cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: MAX_SLOTS }, ctx);
  if (rv !== CKR.CKR_OK || !Array.isArray(slots)) throw cryptokiError("C_GetSlotList", rv === CKR.CKR_OK ? CKR.CKR_GENERAL_ERROR : rv);
  return slots as readonly bigint[];
}

type TokenFacts = Omit<TokenEntry, "keys">;

/** What the token in a slot says of itself; null where there is none that is initialised. Throws KeyError `cryptoki`. */
export async function readTokenFacts(cryptoki: Cryptoki, slot: bigint, ctx: CallContext): Promise<TokenFacts | null> {
  const [info, list] = await Promise.all([
    cryptoki.call("C_GetTokenInfo", { slot }, ctx),
    cryptoki.call("C_GetMechanismList", { slot, room: MAX_MECHANISMS }, ctx),
  ]);
  if (GONE.has(info.rv)) return null;
  const { label, manufacturer, model, serial, flags } = info;
  if (info.rv !== CKR.CKR_OK || !label || !manufacturer || !model || !serial || flags === undefined)
    throw cryptokiError("C_GetTokenInfo", info.rv);
  if ((flags & CKF.CKF_TOKEN_INITIALIZED) === 0n) return null;
  const identity: TokenIdentity = {
    label: paddedText(label),
    manufacturer: paddedText(manufacturer),
    model: paddedText(model),
    serial: paddedText(serial),
  };
  const mechanisms = list.rv === CKR.CKR_OK && Array.isArray(list.mechanisms) ? (list.mechanisms as readonly bigint[]).map(Number) : [];
  return { slot, uri: tokenUri(identity), ...identity, flags, mechanisms };
}

/** Attributes of an object; those the token does not give are absent. null when the object has gone. Throws KeyError. */
export async function readAttributes(
  cryptoki: Cryptoki,
  session: bigint,
  object: bigint,
  types: readonly number[],
  ctx: CallContext,
): Promise<readonly Attribute[] | null> {
  const query = types.map((type) => ({ type, room: type === CKA.CKA_VALUE ? MAX_CERTIFICATE_BYTES : MAX_SMALL_BYTES }));
  const { rv, attributes } = await cryptoki.call("C_GetAttributeValue", { session, object, query }, ctx);
  if (rv === CKR.CKR_OBJECT_HANDLE_INVALID) return null;
  if (attributes === undefined) throw cryptokiError("C_GetAttributeValue", rv);
  return attributes;
}

/** A public key, a certificate or a private key that is seen, with its public parts. */
export interface KeyPart {
  readonly class: bigint;
  readonly label: Buffer;
  readonly id: Buffer;
  readonly keyType: bigint | undefined;
  readonly spki: Buffer | null;
  /** DER, of a certificate. */
  readonly certificate: Buffer | null;
}

async function readPart(cryptoki: Cryptoki, session: bigint, object: bigint, ctx: CallContext): Promise<KeyPart | null> {
  const common = await readAttributes(cryptoki, session, object, COMMON, ctx);
  const cls = common === null ? undefined : findUlong(common, CKA.CKA_CLASS);
  const types =
    cls === CKO.CKO_CERTIFICATE ? [CKA.CKA_VALUE] : cls === CKO.CKO_PUBLIC_KEY || cls === CKO.CKO_PRIVATE_KEY ? KEY_PARTS : null;
  if (common === null || cls === undefined || types === null) return null;
  const parts = await readAttributes(cryptoki, session, object, types, ctx);
  if (parts === null) return null;
  // The wire's buffers are views of frames: what is kept is copied.
  const value = cls === CKO.CKO_CERTIFICATE ? Buffer.from(findBytes(parts, CKA.CKA_VALUE) ?? []) : null;
  return {
    class: cls,
    label: Buffer.from(findBytes(common, CKA.CKA_LABEL) ?? []),
    id: Buffer.from(findBytes(common, CKA.CKA_ID) ?? []),
    keyType: findUlong(common, CKA.CKA_KEY_TYPE),
    spki: value === null ? spkiFromAttributes(parts) : spkiOfCertificate(value),
    certificate: value,
  };
}

/** A CA's certificate is no sign of a key on the token. */
function isAuthority(certificate: Buffer): boolean {
  try {
    return new X509Certificate(certificate).ca;
  } catch {
    return false;
  }
}

function typeOf(part: KeyPart | undefined): KeyType {
  if (part?.keyType === CKK.CKK_RSA) return "RSA";
  if (part?.keyType === CKK.CKK_EC) return "EC";
  return part?.keyType === CKK.CKK_EC_EDWARDS ? "EdDSA" : "other";
}

/** The keys among objects that share a CKA_ID (or, without one, a label): as a rule one. */
function keysOfGroup(token: TokenFacts, parts: readonly KeyPart[], onlyVisible: boolean): KeyRecord[] {
  const of = (cls: bigint) => parts.filter((part) => part.class === cls);
  const privates = of(CKO.CKO_PRIVATE_KEY);
  const publics = of(CKO.CKO_PUBLIC_KEY);
  const all = of(CKO.CKO_CERTIFICATE);
  const leaves = all.filter(({ certificate }) => certificate !== null && !isAuthority(certificate));
  // A chain is often stored under the key's own id.
  const certificates = leaves.length > 0 ? leaves : all;
  if (onlyVisible && privates.length === 0) return [];
  // The public key object says best which key it is; then the certificate; then the private key's own public part.
  const told = [publics, certificates, privates].find((each) => each.some((part) => part.spki !== null)) ?? [];
  const owners = new Map(told.flatMap((part) => (part.spki === null ? [] : [[part.spki.toString("hex"), part] as const])));
  const named = owners.size > 0 ? [...owners.values()] : [...privates, ...publics].slice(0, 1);
  return named.flatMap((owner) => {
    const certificate = certificates.find((part) => owner.spki !== null && part.spki?.equals(owner.spki))?.certificate ?? null;
    if (privates.length + publics.length === 0 && leaves.length === 0) return [];
    const first = [...privates, owner][0] ?? owner;
    const label = named.length > 1 ? owner.label : first.label;
    const described = owner.spki === null ? { type: typeOf(first), bits: null, curve: null } : describeSpki(owner.spki);
    // An id alone names a key, unless two share it.
    const inUri = first.id.length > 0 && named.length === 1 ? Buffer.alloc(0) : label;
    const entry: KeyEntry = {
      slot: token.slot,
      uri: objectUri(token, { class: CKO.CKO_PRIVATE_KEY, label: inUri, id: first.id }),
      label,
      id: first.id,
      ...described,
      spki: owner.spki,
      certificate,
      mechanisms: signingMechanisms(described.type, token.mechanisms),
    };
    const labels = named.length > 1 ? [owner.label] : parts.map((part) => part.label);
    return [{ entry, labels, isVisible: privates.length > 0 }];
  });
}

/** The token objects that a session sees and that belong to keys. Throws KeyError `cryptoki`. */
export async function readKeyParts(cryptoki: Cryptoki, session: bigint, ctx: CallContext): Promise<KeyPart[]> {
  const { rv, objects } = await findAll(cryptoki, session, [boolAttribute(CKA.CKA_TOKEN, true)], ctx);
  if (rv !== CKR.CKR_OK) throw cryptokiError("C_FindObjects", rv);
  const parts = await mapSome(objects, PARALLEL_READS, (object) => readPart(cryptoki, session, object, ctx));
  return parts.filter((part) => part !== null);
}

/**
 * The keys that a session sees. `loggedIn`: it sees the private keys, so that what has none is no key of this token.
 * Throws KeyError `cryptoki`.
 */
export async function readKeys(
  cryptoki: Cryptoki,
  session: bigint,
  token: TokenFacts,
  loggedIn: boolean,
  ctx: CallContext,
): Promise<KeyRecord[]> {
  const parts = await readKeyParts(cryptoki, session, ctx);
  const groups = new Map<string, KeyPart[]>();
  for (const part of parts) {
    const name = part.id.length > 0 ? `id ${part.id.toString("hex")}` : `label ${part.label.toString("hex")}`;
    groups.set(name, [...(groups.get(name) ?? []), part]);
  }
  const keys = [...groups.values()].flatMap((group) => keysOfGroup(token, group, loggedIn));
  // Tokens list their objects in any order, another one each time; a list of keys has one.
  return keys.sort((a, b) => (a.entry.uri < b.entry.uri ? -1 : 1));
}
