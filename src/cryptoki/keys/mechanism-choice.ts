/*
 * Which mechanism signs a request, and what bytes it is given. The rules, for a person as for a program:
 *
 *   no mechanism, document   RSA: CKM_SHA256_RSA_PKCS. EC: CKM_ECDSA_SHA256. EdDSA: CKM_EDDSA.
 *   no mechanism, digest     RSA: CKM_RSA_PKCS over the DigestInfo that the digest's length names. EC: CKM_ECDSA.
 *   one that hashes          as named; where the token lacks it, it is made of a hash here and the raw mechanism. Given a
 *                            digest, that digest must be the hash's own, and goes to the raw mechanism.
 *   a raw one, digest        CKM_ECDSA as it is; CKM_RSA_PKCS as for no mechanism, a whole DigestInfo as it is;
 *                            CKM_RSA_PKCS_PSS with the parameter of that hash.
 *   a raw one, document      refused: it does not say which hash is meant, and a signature over a cut or unhashed document
 *                            would look like one over the document. CKM_RSA_PKCS_PSS with a parameter names its hash.
 *   any other                as named, with the data as it is, where the token lists it.
 *
 * PSS without a parameter takes MGF1 of the same hash and a salt as long as the hash, as TLS and X.509 do.
 * It must never choose a weaker hash than SHA-256 by itself.
 */
import { CKM, mechanismName } from "../mechanisms.js";
import type { Mechanism, MechanismParameter } from "../types.js";
import { DIGEST_LENGTHS, digestBytes, digestInfo, digestOf, type HashName, hashOfLength, isDigestInfo } from "./digest-info.js";
import { KeyError } from "./key-error.js";
import { coordinateBytes } from "./spki.js";
import type { KeyEntry, KeySignRequest, KeyType } from "./types.js";

/** What goes to the token, and the mechanism that a verifier is told. */
export interface SigningPlan {
  readonly mechanism: Mechanism;
  readonly data: Buffer;
  readonly reported: number;
}

interface HashingRow {
  readonly hash: HashName;
  readonly raw: number;
}

/** Mechanisms that hash, and what each is made of. */
const HASHING: ReadonlyMap<number, HashingRow> = new Map([
  [CKM.CKM_SHA1_RSA_PKCS, { hash: "sha1", raw: CKM.CKM_RSA_PKCS }],
  [CKM.CKM_SHA224_RSA_PKCS, { hash: "sha224", raw: CKM.CKM_RSA_PKCS }],
  [CKM.CKM_SHA256_RSA_PKCS, { hash: "sha256", raw: CKM.CKM_RSA_PKCS }],
  [CKM.CKM_SHA384_RSA_PKCS, { hash: "sha384", raw: CKM.CKM_RSA_PKCS }],
  [CKM.CKM_SHA512_RSA_PKCS, { hash: "sha512", raw: CKM.CKM_RSA_PKCS }],
  [CKM.CKM_SHA1_RSA_PKCS_PSS, { hash: "sha1", raw: CKM.CKM_RSA_PKCS_PSS }],
  [CKM.CKM_SHA224_RSA_PKCS_PSS, { hash: "sha224", raw: CKM.CKM_RSA_PKCS_PSS }],
  [CKM.CKM_SHA256_RSA_PKCS_PSS, { hash: "sha256", raw: CKM.CKM_RSA_PKCS_PSS }],
  [CKM.CKM_SHA384_RSA_PKCS_PSS, { hash: "sha384", raw: CKM.CKM_RSA_PKCS_PSS }],
  [CKM.CKM_SHA512_RSA_PKCS_PSS, { hash: "sha512", raw: CKM.CKM_RSA_PKCS_PSS }],
  [CKM.CKM_ECDSA_SHA1, { hash: "sha1", raw: CKM.CKM_ECDSA }],
  [CKM.CKM_ECDSA_SHA224, { hash: "sha224", raw: CKM.CKM_ECDSA }],
  [CKM.CKM_ECDSA_SHA256, { hash: "sha256", raw: CKM.CKM_ECDSA }],
  [CKM.CKM_ECDSA_SHA384, { hash: "sha384", raw: CKM.CKM_ECDSA }],
  [CKM.CKM_ECDSA_SHA512, { hash: "sha512", raw: CKM.CKM_ECDSA }],
]);

/** The hash of a mechanism that hashes the document itself, and takes that hash's digest in the document's place; null for every other. */
export function hashOfMechanism(type: number): HashName | null {
  return HASHING.get(type)?.hash ?? null;
}

/** CKM and CKG_MGF1 numbers of each hash. */
const PSS: Readonly<Record<HashName, { readonly hashAlg: number; readonly mgf: bigint }>> = {
  sha1: { hashAlg: CKM.CKM_SHA_1, mgf: 1n },
  sha256: { hashAlg: CKM.CKM_SHA256, mgf: 2n },
  sha384: { hashAlg: CKM.CKM_SHA384, mgf: 3n },
  sha512: { hashAlg: CKM.CKM_SHA512, mgf: 4n },
  sha224: { hashAlg: CKM.CKM_SHA224, mgf: 5n },
};

/** Mechanisms that sign with a key of a type; what is not here is nobody's and is let through for `other` keys only. */
const SIGNERS: Readonly<Record<Exclude<KeyType, "other">, ReadonlySet<number>>> = {
  RSA: new Set([
    CKM.CKM_RSA_PKCS,
    CKM.CKM_RSA_9796,
    CKM.CKM_RSA_X_509,
    CKM.CKM_MD2_RSA_PKCS,
    CKM.CKM_MD5_RSA_PKCS,
    CKM.CKM_RIPEMD128_RSA_PKCS,
    CKM.CKM_RIPEMD160_RSA_PKCS,
    CKM.CKM_RSA_X9_31,
    CKM.CKM_SHA1_RSA_X9_31,
    CKM.CKM_RSA_PKCS_PSS,
    CKM.CKM_SHA3_256_RSA_PKCS,
    ...[...HASHING].filter(([, { raw }]) => raw !== CKM.CKM_ECDSA).map(([type]) => type),
  ]),
  EC: new Set([
    CKM.CKM_ECDSA,
    CKM.CKM_ECDSA_SHA3_256,
    ...[...HASHING].filter(([, { raw }]) => raw === CKM.CKM_ECDSA).map(([type]) => type),
  ]),
  EdDSA: new Set([CKM.CKM_EDDSA]),
};
const ALL_SIGNERS: ReadonlySet<number> = new Set(Object.values(SIGNERS).flatMap((each) => [...each]));
const USUAL: Readonly<Record<Exclude<KeyType, "other">, { readonly document: number; readonly digest: number | null }>> = {
  RSA: { document: CKM.CKM_SHA256_RSA_PKCS, digest: CKM.CKM_RSA_PKCS },
  EC: { document: CKM.CKM_ECDSA_SHA256, digest: CKM.CKM_ECDSA },
  EdDSA: { document: CKM.CKM_EDDSA, digest: null },
};

/** The token's mechanisms that sign with a key of this type. For `other`: none that we could name. */
export function signingMechanisms(type: KeyType, ofToken: readonly number[]): readonly number[] {
  return type === "other" ? [] : ofToken.filter((each) => SIGNERS[type].has(each));
}

function pssParameter(hash: HashName): MechanismParameter {
  const { hashAlg, mgf } = PSS[hash];
  return { kind: "rsa-pss", hashAlg: BigInt(hashAlg), mgf, saltLength: BigInt(digestBytes(hash)) };
}

function pssHash(parameter: MechanismParameter): HashName | null {
  if (parameter.kind !== "rsa-pss") return null;
  return (Object.keys(PSS) as HashName[]).find((name) => BigInt(PSS[name].hashAlg) === parameter.hashAlg) ?? null;
}

function wrongLength(bytes: number, wanted: string): KeyError {
  return new KeyError("bad-input", `the digest is ${bytes} bytes long, which is not ${wanted}`, {
    hint: "send the digest as bytes, not as hex, or send the document and let it be hashed",
  });
}

/** A digest as the raw mechanism wants it, with the parameter it goes with. */
function rawPlan(raw: number, hash: HashName, digest: Buffer, key: KeyEntry, request: KeySignRequest): Omit<SigningPlan, "reported"> {
  if (raw === CKM.CKM_RSA_PKCS) return { mechanism: { type: raw, parameter: null }, data: digestInfo(hash, digest) };
  if (raw === CKM.CKM_RSA_PKCS_PSS) return { mechanism: { type: raw, parameter: request.parameter ?? pssParameter(hash) }, data: digest };
  return { mechanism: { type: raw, parameter: request.parameter }, data: cut(digest, key) };
}

/** ECDSA uses the leftmost bits of a long digest; tokens are of two minds about who cuts. */
function cut(digest: Buffer, key: KeyEntry): Buffer {
  const most = coordinateBytes(key.curve);
  return most === null ? digest : digest.subarray(0, most);
}

function requireListed(type: number, key: KeyEntry, ofToken: readonly number[]): void {
  if (ofToken.includes(type)) return;
  const names = key.mechanisms.map(mechanismName).join(" ");
  throw new KeyError("mechanism", `the token has no ${mechanismName(type)}, or it is not allowed here`, {
    hint: names === "" ? "the token lists no mechanism that signs with this key" : `with this key it can do: ${names}`,
  });
}

function planRaw(type: number, request: KeySignRequest, key: KeyEntry): SigningPlan {
  const { data, isDigest, parameter } = request;
  const named = type === CKM.CKM_RSA_PKCS_PSS && parameter !== null ? pssHash(parameter) : null;
  if (!isDigest) {
    if (named !== null) return { ...rawPlan(type, named, digestOf(named, data), key, request), reported: type };
    const example =
      type === CKM.CKM_ECDSA ? "CKM_ECDSA_SHA256" : type === CKM.CKM_RSA_PKCS ? "CKM_SHA256_RSA_PKCS" : "CKM_SHA256_RSA_PKCS_PSS";
    throw new KeyError("mechanism", `${mechanismName(type)} signs a digest, and a whole document was given`, {
      hint: `name ${example}, or leave the mechanism out, to have the document hashed; or send its digest and say so (--digest)`,
    });
  }
  if (type === CKM.CKM_RSA_PKCS && isDigestInfo(data)) return { mechanism: { type, parameter: null }, data, reported: type };
  const hash = hashOfLength(data.length);
  if (hash === null) throw wrongLength(data.length, DIGEST_LENGTHS);
  if (named !== null && named !== hash) throw wrongLength(data.length, `a digest of the parameter's hash (${named})`);
  const { mechanism, data: given } = rawPlan(type, hash, data, key, request);
  return { mechanism, data: given, reported: type };
}

const RAW: ReadonlySet<number> = new Set([CKM.CKM_RSA_PKCS, CKM.CKM_RSA_PKCS_PSS, CKM.CKM_ECDSA]);

/**
 * What to send for this request with this key, whose token has these mechanisms. Throws KeyError `mechanism` when the key
 * or the token cannot do it, `bad-input` when the digest is not one.
 */
export function planSignature(request: KeySignRequest, key: KeyEntry, ofToken: readonly number[]): SigningPlan {
  const { data, isDigest, parameter } = request;
  let type = request.mechanism;
  if (type === null) {
    const usual = key.type === "other" ? null : USUAL[key.type];
    if (usual === null) throw new KeyError("mechanism", "the key is of a type that has no usual mechanism", { hint: "name the mechanism" });
    type = isDigest ? usual.digest : usual.document;
    if (type === null) {
      throw new KeyError("mechanism", `an ${key.curve ?? key.type} key signs whole documents, not digests`, { hint: "send the document" });
    }
  }
  if (key.type !== "other" && ALL_SIGNERS.has(type) && !SIGNERS[key.type].has(type)) {
    throw new KeyError("mechanism", `${mechanismName(type)} does not sign with an ${key.type} key`, {
      hint: `with this key the token can do: ${key.mechanisms.map(mechanismName).join(" ")}`,
    });
  }
  if (type === CKM.CKM_EDDSA && isDigest) {
    throw new KeyError("mechanism", "CKM_EDDSA signs whole documents, not digests", { hint: "send the document" });
  }
  const hashing = HASHING.get(type);
  if (hashing !== undefined) {
    const { hash, raw } = hashing;
    const pss = raw === CKM.CKM_RSA_PKCS_PSS;
    if (pss && parameter !== null && pssHash(parameter) !== hash) {
      throw new KeyError("bad-input", `the parameter of ${mechanismName(type)} is not of its hash, ${hash}`);
    }
    if (isDigest && data.length !== digestBytes(hash))
      throw wrongLength(data.length, `the ${digestBytes(hash)} bytes of ${mechanismName(type)}`);
    if (!isDigest && ofToken.includes(type)) {
      return { mechanism: { type, parameter: pss ? (parameter ?? pssParameter(hash)) : parameter }, data, reported: type };
    }
    requireListed(ofToken.includes(raw) ? raw : type, key, ofToken);
    return { ...rawPlan(raw, hash, isDigest ? data : digestOf(hash, data), key, request), reported: type };
  }
  requireListed(type, key, ofToken);
  if (RAW.has(type)) return planRaw(type, request, key);
  return { mechanism: { type, parameter }, data, reported: type };
}
