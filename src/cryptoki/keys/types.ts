/*
 * Tokens, keys and signatures as values, and the one interface over them. Types only. The shapes equal those of
 * tokenfwd RPC, so that an agent hands them on as they are.
 */
import type { CallContext, Cryptoki, MechanismParameter } from "../types.js";

export type KeyType = "RSA" | "EC" | "EdDSA" | "other";

/** One private key, as its token's objects tell of it; the private key itself may be invisible before a log-in. */
export interface KeyEntry {
  readonly slot: bigint;
  /** Of the private key, printable. */
  readonly uri: string;
  /** CKA_LABEL and CKA_ID as they are: bytes from the token, to be made printable before they are shown. */
  readonly label: Buffer;
  readonly id: Buffer;
  readonly type: KeyType;
  /** RSA: the modulus in bits. */
  readonly bits: number | null;
  /** EC and EdDSA: `P-256`, `P-384`, `P-521`, `secp256k1`, `Ed25519`, `Ed448`, or the OID in dots. */
  readonly curve: string | null;
  /** DER SubjectPublicKeyInfo; null where the token does not show it (before a log-in, or at all). */
  readonly spki: Buffer | null;
  /** DER of the certificate whose public key is this key's. */
  readonly certificate: Buffer | null;
  /** CKM numbers of the token that sign with a key of this type, as the token lists them. */
  readonly mechanisms: readonly number[];
}

/** One initialised token. The texts are printable, without padding. */
export interface TokenEntry {
  readonly slot: bigint;
  readonly uri: string;
  readonly label: string;
  readonly manufacturer: string;
  readonly model: string;
  readonly serial: string;
  /** CKF flags of C_GetTokenInfo. */
  readonly flags: bigint;
  /** All CKM numbers of the token. */
  readonly mechanisms: readonly number[];
  readonly keys: readonly KeyEntry[];
}

/** What to sign with what. */
export interface KeySignRequest {
  /** Exactly one of the two: a pkcs11: URI without query attributes, or the SHA-256 of the DER SubjectPublicKeyInfo. */
  readonly key: { readonly uri: string | null; readonly spki: Buffer | null };
  /** CKM number; null: the key's usual one (see mechanism-choice.ts). */
  readonly mechanism: number | null;
  readonly parameter: MechanismParameter | null;
  /** The whole document, or with `isDigest` its digest. Not kept, not changed. */
  readonly data: Buffer;
  readonly isDigest: boolean;
  /** Goes into the context of every call, unless that has a purpose already. */
  readonly purpose?: string;
  /** DER SubjectPublicKeyInfo that the token's key must have; null: any. */
  readonly expect: Buffer | null;
  /** Asked of the key that would sign, before any log-in where its public objects tell enough; what it throws is the answer. */
  readonly accept?: (key: KeyEntry) => void;
}

export interface KeySignature {
  /** As PKCS#11 gives it: ECDSA is r and s, each as long as the curve's order. */
  readonly signature: Buffer;
  /** The mechanism asked for, or chosen; also where it was made of a hash and a raw mechanism. */
  readonly mechanism: number;
  readonly key: KeyEntry;
}

/** Keys over one Cryptoki and one client of it. All methods throw KeyError and nothing else that is expected. */
export interface KeyRing {
  /**
   * The tokens and their keys: public keys and certificates, and private keys where this client sees them. What has been
   * read is kept until `forget`. Logs in nowhere but on the tokens that show no key and that `loginWhereEmpty` says yes to.
   */
  tokens(ctx: CallContext, how?: { readonly loginWhereEmpty?: (token: TokenEntry) => boolean }): Promise<readonly TokenEntry[]>;
  /** Signs. Logs in only when the request is sound: key, mechanism and `expect` are checked before, where they can be. */
  sign(request: KeySignRequest, ctx: CallContext): Promise<KeySignature>;
  /** Drops what was read, so that it is read again. Signatures that run go on. */
  forget(): void;
  /** The token may be another one now, or its objects: forgets, and throws away a signature under way that had to be by a certain key. */
  tokenChanged(): void;
  /** Closes its sessions; signatures that wait for one fail. Safe to call twice. */
  close(ctx: CallContext): Promise<void>;
}

export interface KeyRingOptions {
  readonly cryptoki: Cryptoki;
  /** C_Login(CKU_USER) of this client on this session, with whatever asks for the PIN. Answers the CK_RV; CKR_OK and CKR_USER_ALREADY_LOGGED_IN go on. */
  readonly login: (slot: bigint, session: bigint, ctx: CallContext) => Promise<number>;
  /** The log-in of a key that wants one for every signature (CKA_ALWAYS_AUTHENTICATE). Default: C_Login(CKU_CONTEXT_SPECIFIC) without a PIN, which our agent answers itself. */
  readonly loginForOperation?: (slot: bigint, session: bigint, ctx: CallContext) => Promise<number>;
  /** Sessions per token, so that signatures overlap; default 16. Fewer where the token allows fewer. */
  readonly maxSessions?: number;
}
