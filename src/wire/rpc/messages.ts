/*
 * The messages of tokenfwd RPC as values: what a validator has let through and what an encoder takes. Types, names and
 * limits only; protocol/tokenfwd-rpc.md is the same in words and binding for other languages.
 */
import type { CallName } from "../../cryptoki/calls.js";
import type { KeyEntry, TokenEntry } from "../../cryptoki/keys/types.js";
import type { AnyArgs, MechanismParameter } from "../../cryptoki/types.js";

/** What either side sends first. The first byte is no version of p11-kit's, whose versions are small; the last is the framing's. */
export const MAGIC = Buffer.from([0xf4, 0x74, 0x6f, 0x6b, 0x66, 0x77, 0x64, 0x01]);
/** The versions this side speaks, the best one last. */
export const VERSIONS: readonly number[] = [1];

/** Caps on what a peer may send. Sizes in bytes. Above the first four: the connection ends. */
export interface RpcLimits {
  /** A frame's body. */
  readonly maxFrameBytes: number;
  /** Maps and arrays within one another, the message itself included. */
  readonly maxDepth: number;
  /** Values in one message, keys included. */
  readonly maxValues: number;
  /** Bytes of one text. */
  readonly maxTextBytes: number;
  /** Requests of one connection that are not answered yet. Above: that request is answered `busy`. */
  readonly maxInFlight: number;
}

export const DEFAULT_RPC_LIMITS: RpcLimits = {
  maxFrameBytes: 1024 * 1024,
  maxDepth: 16,
  maxValues: 32_768,
  maxTextBytes: 4096,
  maxInFlight: 64,
};

/** The longest time a request may be given, in milliseconds. */
export const MAX_DEADLINE_MS = 600_000;

/** Why a request failed. The codes are the protocol's own; an unknown one is to be treated as `internal`. */
export const RPC_ERROR_CODES = [
  /** The peer broke the protocol; the connection ends after this. */
  "protocol",
  /** No version in common; the connection ends after this. */
  "version",
  /** A request of a type that this side does not know. */
  "unknown-request",
  /** The request is understood and cannot be carried out as it is written. */
  "bad-request",
  /** As many requests as the limit allows are running. */
  "busy",
  /** The asker took it back. */
  "cancelled",
  /** The asker's deadline has passed. */
  "deadline",
  /** A Cryptoki call said no: `rv` and `call` say which. */
  "cryptoki",
  "key-not-found",
  "key-ambiguous",
  /** The token's public key is not the expected one, or the token cannot show it. Nothing was signed. */
  "key-mismatch",
  /** The key cannot be used with this mechanism, or the token does not have it. */
  "mechanism",
  "internal",
] as const;
export type RpcErrorCode = (typeof RPC_ERROR_CODES)[number];

/** A failed request, on both sides of the wire. `message` and `hint` are printable and carry no secret. */
export class RpcError extends Error {
  readonly code: RpcErrorCode;
  /** With `cryptoki`: the CK_RV, and the call that answered it. */
  readonly rv: number | null;
  readonly call: string | null;
  readonly hint: string | null;

  constructor(code: RpcErrorCode, message: string, more: { readonly rv?: number; readonly call?: string; readonly hint?: string } = {}) {
    super(message);
    this.code = code;
    this.rv = more.rv ?? null;
    this.call = more.call ?? null;
    this.hint = more.hint ?? null;
  }
}
RpcError.prototype.name = "RpcError";

/** Events a client may subscribe to. Each tells of this client's own stream or of slots it may see, never of other clients. */
export const RPC_EVENTS = ["touch", "token-in", "token-gone", "locked", "epoch"] as const;
export type RpcEventName = (typeof RPC_EVENTS)[number];

/** An event. `slot` null with `epoch`; `waiting` is of `touch`, `epoch` of `epoch`. */
export interface RpcEvent {
  readonly event: RpcEventName;
  readonly slot: bigint | null;
  readonly waiting?: boolean;
  readonly epoch?: number;
}

/** One private key that a client can use, as the token's public objects tell of it; its slot is the token's. */
export type KeyEntryMessage = Omit<KeyEntry, "slot">;

/** One token with the keys on it. Mechanisms are those that this client may use. */
export interface TokenMessage extends Omit<TokenEntry, "keys"> {
  readonly keys: readonly KeyEntryMessage[];
}

/** What does not change while `epoch` stays: every token this client may see. */
export interface Snapshot {
  readonly epoch: number;
  readonly tokens: readonly TokenMessage[];
}

/** `versions` offered; `client` is printable text for the workstation's log, not believed. */
export interface HelloRequest {
  readonly versions: readonly number[];
  readonly client: string;
  readonly snapshot: boolean;
}
export interface HelloResult {
  readonly version: number;
  /** What answers, `tokenfwd 0.1.0`. */
  readonly agent: string;
  readonly snapshot: Snapshot | null;
}

/** Exactly one of the two: `uri` a pkcs11: URI without query attributes, `spki` the SHA-256 of the DER SubjectPublicKeyInfo. */
export interface KeyChoice {
  readonly uri: string | null;
  readonly spki: Buffer | null;
}

export interface SignMessage {
  readonly key: KeyChoice;
  /** CKM number; null: the key's usual one. */
  readonly mechanism: number | null;
  readonly parameter: MechanismParameter | null;
  /** The whole document (hashed by the token, or by the agent where the mechanism takes a digest), or the digest itself. */
  readonly data: Buffer;
  readonly isDigest: boolean;
  /** What is signed, `[a-z][a-z0-9-]{0,31}`: shown at the workstation. `data` when nothing more is known. */
  readonly purpose: string;
  /** DER SubjectPublicKeyInfo that the token's key must have; null: any. */
  readonly expect: Buffer | null;
}
export interface SignResult {
  /** As the mechanism gives it: ECDSA r and s, each as long as the curve's order. */
  readonly signature: Buffer;
  readonly mechanism: number;
  readonly uri: string;
  /** DER SubjectPublicKeyInfo of the key that signed, null where the token does not show it. */
  readonly spki: Buffer | null;
}

/** `args` and `outs` as the calls table names and types them. */
export interface CallMessage {
  readonly name: CallName;
  readonly args: AnyArgs;
}
export interface CallOutcome {
  readonly rv: number;
  readonly outs: AnyArgs;
}

/** Of the asking stream only. */
export interface StatusResult {
  readonly client: string;
  readonly origin: { readonly kind: string; readonly destination: string | null };
  readonly connectId: string;
  readonly policy: string;
  readonly pin: "ask" | "client";
  /** Slots this client is logged in to. */
  readonly loggedIn: readonly bigint[];
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly inFlight: number;
}

export interface SubscribeRequest {
  readonly events: readonly RpcEventName[];
}

/** Requests by type, and what answers each. */
export interface RpcRequests {
  hello: { readonly request: HelloRequest; readonly result: HelloResult };
  sign: { readonly request: SignMessage; readonly result: SignResult };
  call: { readonly request: CallMessage; readonly result: CallOutcome };
  status: { readonly request: Record<never, never>; readonly result: StatusResult };
  subscribe: { readonly request: SubscribeRequest; readonly result: Record<never, never> };
  ping: { readonly request: Record<never, never>; readonly result: Record<never, never> };
}
export type RpcRequestType = keyof RpcRequests;
