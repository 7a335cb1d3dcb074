/*
 * The values that Cryptoki calls take and give, and the one interface every layer implements.
 * Types only, no I/O. In memory a value is what PKCS#11 v2.40 calls native: attribute values are the bytes a C program
 * on a 64-bit little-endian machine would see (CK_ULONG 8 bytes LE, CK_BBOOL 1 byte), whatever the wire does.
 */
import type { Emitter } from "../base/events.js";
import type { CallName, CallRow } from "./calls.js";

/** CK_VERSION. */
export interface Version {
  readonly major: number;
  readonly minor: number;
}

/**
 * CK_ATTRIBUTE. `length` is ulValueLen in bytes: -1 when the value is unavailable (CK_UNAVAILABLE_INFORMATION), then
 * `value` is null. `value` null with `length >= 0` is a NULL pValue: a length answer, or an empty value.
 * Nested templates (CKA_WRAP_TEMPLATE and its like) have an array as value and 24 bytes of length per element.
 */
export interface Attribute {
  readonly type: number;
  readonly value: Buffer | readonly Attribute[] | null;
  readonly length: number;
}

/** What a caller asks of C_GetAttributeValue: `room` in bytes, null for a NULL pValue (a length query). */
export interface AttributeQuery {
  readonly type: number;
  readonly room: number | null;
  readonly nested?: readonly AttributeQuery[];
}

/**
 * A mechanism parameter by shape. `bytes` is a flat parameter passed as it is (IVs, opaque structs).
 * Numbers are CK_ULONG. null Buffers are NULL pointers.
 */
export type MechanismParameter =
  | { readonly kind: "bytes"; readonly bytes: Buffer }
  | { readonly kind: "rsa-pss"; readonly hashAlg: bigint; readonly mgf: bigint; readonly saltLength: bigint }
  | {
      readonly kind: "rsa-oaep";
      readonly hashAlg: bigint;
      readonly mgf: bigint;
      readonly source: bigint;
      readonly sourceData: Buffer | null;
    }
  | { readonly kind: "ecdh1"; readonly kdf: bigint; readonly sharedData: Buffer | null; readonly publicData: Buffer | null }
  | { readonly kind: "aes-ctr"; readonly counterBits: bigint; readonly counterBlock: Buffer }
  | { readonly kind: "gcm"; readonly iv: Buffer | null; readonly ivBits: bigint; readonly aad: Buffer | null; readonly tagBits: bigint }
  | { readonly kind: "mac-general"; readonly length: bigint }
  | { readonly kind: "ibm"; readonly fields: readonly (bigint | number | Buffer | null)[] };

/** CK_MECHANISM. */
export interface Mechanism {
  readonly type: number;
  readonly parameter: MechanismParameter | null;
}

/** What a module wrote back into a mechanism parameter (C_DeriveKey2 only). */
export type MechanismUpdate = { readonly type: number; readonly bytes: Buffer | null };

interface Scalars {
  y: number;
  u: bigint;
  v: Version;
  s: Buffer;
  z: Buffer;
  M: Mechanism | null;
  P: MechanismUpdate | null;
}

/** Request elements. `ay` null is a NULL pointer; `fy` null is a NULL buffer, 0 a non-NULL buffer of no bytes. */
interface RequestElements extends Scalars {
  ay: Buffer | null;
  aA: readonly Attribute[];
  fy: number | null;
  fu: number | null;
  fA: readonly AttributeQuery[];
}

/** Response elements. A number in place of bytes or of a list is a length alone, with nothing written. */
interface ResponseElements extends Scalars {
  ay: Buffer | number;
  au: readonly bigint[] | number;
  aA: readonly Attribute[];
}

type Split<S extends string> = S extends `${infer H extends "a" | "f"}${infer C}${infer R}`
  ? [`${H}${C}`, ...Split<R>]
  : S extends `${infer C}${infer R}`
    ? [C, ...Split<R>]
    : [];

type Zip<Names extends readonly string[], Codes extends readonly string[], Elements> = {
  readonly [I in Exclude<keyof Names, keyof (readonly unknown[])> as Names[I] & string]: Codes[I & keyof Codes] extends infer C extends
    keyof Elements
    ? Elements[C]
    : never;
};

type RowOf<N extends CallName> = Extract<CallRow, { readonly name: N }>;

/** The named arguments of a call, derived from its row. */
export type CallArgs<N extends CallName = CallName> = Zip<RowOf<N>["args"], Split<RowOf<N>["request"]>, RequestElements>;
/** The named outputs of a call, derived from its row. */
export type CallOuts<N extends CallName = CallName> = Omit<Zip<RowOf<N>["outs"], Split<RowOf<N>["response"]>, ResponseElements>, "rv">;

/**
 * What a call answers: a CK_RV, always a value and never an exception, and the outputs when there are any.
 * Outputs are present with CKR_OK; a length alone also with CKR_BUFFER_TOO_SMALL; the attributes of C_GetAttributeValue
 * also with CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID and CKR_BUFFER_TOO_SMALL.
 */
export type CallResult<N extends CallName = CallName> = { readonly rv: number } & Partial<CallOuts<N>>;

/** Arguments and results for code that treats all calls alike. */
export type AnyArgs = Readonly<Record<string, unknown>>;
export type AnyResult = Readonly<Record<string, unknown>> & { readonly rv: number };

/** Where a stream comes from. Set by whoever owns the stream, frozen at attach, never taken from the peer. */
export interface Origin {
  readonly kind: "local" | "forward" | "openssh-forward";
  readonly destination: string | null;
  readonly user: string | null;
  readonly host: string | null;
  readonly port: number | null;
  /** `SHA256:...` as ssh prints it, null where no host key was seen. */
  readonly hostKeySha256: string | null;
  readonly connectId: string;
}

/** Who calls, from where, and until when. */
export interface CallContext {
  /** Unique per client connection, printable. */
  readonly client: string;
  readonly origin: Origin;
  /** Aborted when the client has gone or the agent stops: whoever waits for a person must stop waiting. */
  readonly signal: AbortSignal;
  readonly deadlineMs?: number;
  /** What the client says that it signs for: shown, never believed. */
  readonly purpose?: string;
  /** What the client handed over to be signed, where it said so. */
  readonly input?: "document" | "digest";
  /** What we have read in it ourselves, printable. Never the client's word. */
  readonly what?: string;
}

/** What a Cryptoki tells without being asked. */
export interface CryptokiEvents {
  "token-in": { readonly slot: bigint };
  "token-gone": { readonly slot: bigint };
  /** A call has been waiting for a person at the device; `client` is whose, where the teller knows. No client is told of another's. */
  touch: { readonly slot: bigint; readonly waiting: boolean; readonly client?: string };
  locked: { readonly slot: bigint };
  /** Handles of earlier epochs are void: the module was started again. */
  epoch: { readonly epoch: number };
}

/**
 * One PKCS#11 module, or anything that behaves like one. Layers take one and return one.
 * `call` never rejects for a CK_RV; a rejection is a bug or a closed instance.
 */
export interface Cryptoki {
  call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>>;
  readonly events: Emitter<CryptokiEvents>;
  /** Frees what this instance owns; it does not close what it was built on. Safe to call twice. */
  close(): Promise<void>;
}
