/*
 * What a trace is made of: one record for each thing that happened on a connection, fit to be written as a line of JSON. Types only.
 * No record holds a PIN, a byte of one, or anything from which one could be told, and data only where it was asked for.
 * See docs/trace-format.md.
 */
import type { CallClass } from "../../cryptoki/calls.js";

/** What a value is shown as: JSON, with byte strings as `{ bytes: length }` and a PIN as `{ pin: true }`. */
export type Shown = string | number | boolean | null | readonly Shown[] | { readonly [name: string]: Shown };
export type ShownFields = Readonly<Record<string, Shown>>;

interface Base {
  /** Milliseconds since the trace began, to the microsecond. */
  readonly t: number;
  /** Number of the connection, from 1. */
  readonly c: number;
}

/** A client has connected. `origin` says from where, as far as the tap knows. */
export interface OpenRecord extends Base {
  readonly kind: "open";
  readonly origin: ShownFields;
}

/** Both sides have said what they speak. `version` null: the server never answered. */
export interface ProtocolRecord extends Base {
  readonly kind: "protocol";
  readonly protocol: "p11-kit" | "tokenfwd" | "unknown";
  /** p11-kit: the byte that the client offered; tokenfwd: the versions of its hello. */
  readonly offered?: number | readonly number[];
  readonly version?: number | null;
  /** How the client writes mechanisms, by the byte it offered. */
  readonly dialect?: "legacy" | "new";
}

/** What the client calls itself: its own word, printable. */
export interface ClientRecord extends Base {
  readonly kind: "client";
  readonly name: string;
}

/** One request and its answer, written when the answer came; `t` is when the request was whole. */
export interface CallRecord extends Base {
  readonly kind: "call";
  /** Number of the request within its connection, from 1. */
  readonly n: number;
  /** Cryptoki name (`C_Sign`), or the type of a tokenfwd RPC request (`sign`). */
  readonly call: string;
  /** Null for a call that is not known. */
  readonly class: CallClass | null;
  readonly args: ShownFields;
  /** The CKR_ name; null where there was none: a request of tokenfwd RPC that is no call, no answer, or one that cannot be read. */
  readonly rv: string | null;
  readonly outs: ShownFields;
  /** From the whole request to the whole answer; null without an answer. */
  readonly ms: number | null;
  /** Bytes on the wire without those of a PIN; null where they would tell its length, and without an answer. */
  readonly sent: number | null;
  readonly received: number | null;
  /** False where the request, or its answer, is a failure. */
  readonly ok: boolean;
  /** The error of tokenfwd RPC. */
  readonly error?: ShownFields;
  /** What is wrong with the request or its answer. */
  readonly note?: string;
}

/** An event that the agent sent. */
export interface EventRecord extends Base {
  readonly kind: "event";
  readonly event: string;
  readonly fields: ShownFields;
}

/** The client took request `n` back. */
export interface CancelRecord extends Base {
  readonly kind: "cancel";
  readonly n: number | null;
}

/** Bytes that are no message, or something else to know: `broken` what broke the protocol, `lost` what could not be decoded here. */
export interface NoteRecord extends Base {
  readonly kind: "note";
  readonly level: "info" | "broken" | "lost";
  readonly from: "client" | "server" | null;
  readonly text: string;
}

/** The connection has ended. */
export interface CloseRecord extends Base {
  readonly kind: "close";
  /** Who ended it first; null: the tracing ended. */
  readonly by: "client" | "server" | null;
  readonly calls: number;
  readonly unanswered: number;
  /** How often the direction changed from the client to the server and back. */
  readonly trips: number;
  /** Bytes without those of PINs. */
  readonly sent: number;
  readonly received: number;
  /** How long it lived, and for how much of that at least one request had no answer yet. */
  readonly ms: number;
  readonly serverMs: number;
}

export type TraceRecord = OpenRecord | ProtocolRecord | ClientRecord | CallRecord | EventRecord | CancelRecord | NoteRecord | CloseRecord;

/** Which way bytes went. */
export type Direction = "client" | "server";

/** What looks at one stream as its owner reads and writes it; `connectId` and the like are in the origin of `StreamTap`'s maker. */
export interface StreamTap {
  /** Called with bytes as they pass, before anybody may change them; they stay the caller's and are copied. Never throws. */
  bytes(from: Direction, bytes: Buffer): void;
  /** The stream has ended. Safe to call twice. */
  closed(by: Direction | null): void;
}
