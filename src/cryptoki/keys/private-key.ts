/*
 * Finds the private key that belongs to what was read of a key. It must never answer one that is known to be another's.
 */
import { mapSome } from "../../base/map-some.js";
import { bytesAttribute, CKA, findBool, findBytes, findUlong, ulongAttribute } from "../attributes.js";
import { CKK, CKO } from "../constants.js";
import { CKR } from "../rv.js";
import type { Attribute, CallContext, Cryptoki } from "../types.js";
import { trimZeros } from "./der.js";
import { findAll } from "./find.js";
import { cryptokiError, KeyError } from "./key-error.js";
import { signingMechanisms } from "./mechanism-choice.js";
import { describeSpki, rsaModulus, spkiFromAttributes } from "./spki.js";
import { readAttributes } from "./token-reader.js";
import type { KeyEntry, KeyType } from "./types.js";

export interface PrivateKey {
  readonly handle: bigint;
  /** The entry, with what only the private key could tell where nothing public did. */
  readonly entry: KeyEntry;
  /** CKA_ALWAYS_AUTHENTICATE: the token wants a log-in for every signature. */
  readonly alwaysAuthenticate: boolean;
}

const PARALLEL_READS = 8;
const PARTS = [
  CKA.CKA_LABEL,
  CKA.CKA_KEY_TYPE,
  CKA.CKA_MODULUS,
  CKA.CKA_PUBLIC_EXPONENT,
  CKA.CKA_EC_PARAMS,
  CKA.CKA_EC_POINT,
  CKA.CKA_ALWAYS_AUTHENTICATE,
];

const TYPES: ReadonlyMap<bigint, KeyType> = new Map([
  [CKK.CKK_RSA, "RSA"],
  [CKK.CKK_EC, "EC"],
  [CKK.CKK_EC_EDWARDS, "EdDSA"],
]);

/** False when the private key's own attributes say that it is not the entry's. */
function mayBe(entry: KeyEntry, attributes: readonly Attribute[]): boolean {
  const type = TYPES.get(findUlong(attributes, CKA.CKA_KEY_TYPE) ?? -1n);
  if (entry.type !== "other" && type !== undefined && type !== entry.type) return false;
  if (entry.spki === null) return true;
  const modulus = findBytes(attributes, CKA.CKA_MODULUS);
  const expected = rsaModulus(entry.spki);
  if (expected !== null && modulus !== undefined && modulus.length > 0) return trimZeros(modulus).equals(expected);
  return spkiFromAttributes(attributes)?.equals(entry.spki) ?? true;
}

function completed(entry: KeyEntry, attributes: readonly Attribute[], ofToken: readonly number[]): KeyEntry {
  if (entry.spki !== null) return entry;
  const spki = spkiFromAttributes(attributes);
  const type = TYPES.get(findUlong(attributes, CKA.CKA_KEY_TYPE) ?? -1n) ?? entry.type;
  const described = spki === null ? { type, bits: null, curve: null } : describeSpki(spki);
  return { ...entry, ...described, spki, mechanisms: signingMechanisms(described.type, ofToken) };
}

/**
 * The private key of an entry, in a session that is logged in where the token wants that. null when the token shows
 * none. Throws KeyError `ambiguous` when several could be it, and `cryptoki`.
 */
export async function findPrivateKey(
  cryptoki: Cryptoki,
  session: bigint,
  entry: KeyEntry,
  ofToken: readonly number[],
  ctx: CallContext,
): Promise<PrivateKey | null> {
  const which = entry.id.length > 0 ? bytesAttribute(CKA.CKA_ID, entry.id) : bytesAttribute(CKA.CKA_LABEL, entry.label);
  const { rv, objects } = await findAll(cryptoki, session, [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY), which], ctx);
  if (rv !== CKR.CKR_OK) throw cryptokiError("C_FindObjects", rv);
  const read = await mapSome(objects, PARALLEL_READS, async (handle) => ({
    handle,
    attributes: await readAttributes(cryptoki, session, handle, PARTS, ctx),
  }));
  const fitting = read.flatMap(({ handle, attributes }) =>
    attributes !== null && mayBe(entry, attributes) ? [{ handle, attributes }] : [],
  );
  const named = fitting.filter(({ attributes }) => findBytes(attributes, CKA.CKA_LABEL)?.equals(entry.label) === true);
  const chosen = fitting.length > 1 && named.length === 1 ? named : fitting;
  if (chosen.length > 1) {
    throw new KeyError("ambiguous", "several private keys of the token could be meant", {
      hint: `they share the id and cannot be told apart; give one of them another id: ${entry.uri}`,
    });
  }
  const only = chosen[0];
  if (only === undefined) return null;
  return {
    handle: only.handle,
    entry: completed(entry, only.attributes, ofToken),
    alwaysAuthenticate: findBool(only.attributes, CKA.CKA_ALWAYS_AUTHENTICATE) === true,
  };
}
