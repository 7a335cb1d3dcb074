/*
 * The answers and events of tokenfwd RPC between their values and their fields: what an agent writes and what a client lets
 * through. Everything that is read is checked; a field that does not fit throws RpcError `protocol`, which names it.
 * See protocol/tokenfwd-rpc.md, "Requests", "Errors" and "Events".
 */
import { printable } from "../../base/printable.js";
import type { AnyArgs } from "../../cryptoki/types.js";
import { decodeOutcome, encodeOutcome } from "./call-values.js";
import { type Fields, integer } from "./codec.js";
import { asArray, asBool, asBytes, asMap, asNumber, asText, asU64, asWord, orNull } from "./fields.js";
import {
  type CallMessage,
  DEFAULT_RPC_LIMITS,
  type HelloResult,
  type KeyEntryMessage,
  RPC_ERROR_CODES,
  RPC_EVENTS,
  RpcError,
  type RpcEvent,
  type RpcRequests,
  type RpcRequestType,
  type SignResult,
  type Snapshot,
  type StatusResult,
  type TokenMessage,
} from "./messages.js";

type Codec<T extends RpcRequestType> = {
  encode(result: RpcRequests[T]["result"], request: RpcRequests[T]["request"]): Fields;
  decode(fields: Fields, request: RpcRequests[T]["request"]): RpcRequests[T]["result"];
};

const EMPTY = { encode: () => ({}), decode: () => ({}) };
const KEY_TYPES = ["RSA", "EC", "EdDSA", "other"] as const;

const CODECS: { readonly [T in RpcRequestType]: Codec<T> } = {
  hello: { encode: encodeHello, decode: decodeHello },
  sign: { encode: encodeSign, decode: decodeSign },
  call: {
    encode: (outcome, { name, args }: CallMessage) => encodeOutcome(name, args, outcome),
    decode: (fields, { name, args }: { name: CallMessage["name"]; args: AnyArgs }) => decodeOutcome(name, args, fields),
  },
  status: { encode: encodeStatus, decode: decodeStatus },
  subscribe: EMPTY,
  ping: EMPTY,
};

/** The fields of an answer, without `type` and `id`. */
export function encodeResult<T extends RpcRequestType>(
  type: T,
  result: RpcRequests[T]["result"],
  request: RpcRequests[T]["request"],
): Fields {
  return CODECS[type].encode(result, request);
}

/** An answer from its fields; byte strings are those of `fields`. Throws RpcError `protocol`. */
export function decodeResult<T extends RpcRequestType>(
  type: T,
  fields: Fields,
  request: RpcRequests[T]["request"],
): RpcRequests[T]["result"] {
  return CODECS[type].decode(fields, request);
}

/** The fields of an error message, without `type`; its texts must be printable already. */
export function encodeError(id: number | null, error: RpcError): Fields {
  const fields: Record<string, unknown> = { id, code: error.code, message: error.message };
  if (error.rv !== null) fields["rv"] = integer(error.rv);
  if (error.call !== null) fields["call"] = error.call;
  if (error.hint !== null) fields["hint"] = error.hint;
  return fields;
}

/** The error that a message tells of, its texts printable whoever sent it. A code that we do not know is `internal`. */
export function decodeError(fields: Fields): RpcError {
  const given = asText(fields["code"], "error.code");
  const rv = orNull(fields["rv"], "error.rv", asNumber);
  const call = orNull(fields["call"], "error.call", asPrintable);
  const hint = orNull(fields["hint"], "error.hint", asPrintable);
  return new RpcError(RPC_ERROR_CODES.find((code) => code === given) ?? "internal", asPrintable(fields["message"], "error.message"), {
    ...(rv === null ? {} : { rv }),
    ...(call === null ? {} : { call }),
    ...(hint === null ? {} : { hint }),
  });
}

/** The fields of an event, without `type`. */
export function encodeEvent({ event, slot, waiting, epoch }: RpcEvent): Fields {
  const fields: Record<string, unknown> = { event, slot: slot === null ? null : integer(slot) };
  if (waiting !== undefined) fields["waiting"] = waiting;
  if (epoch !== undefined) fields["epoch"] = integer(epoch);
  return fields;
}

/** An event from its fields, or null for one that we do not know. Throws RpcError `protocol`. */
export function decodeEvent(fields: Fields): RpcEvent | null {
  const event = RPC_EVENTS.find((name) => name === fields["event"]);
  if (event === undefined) return null;
  const waiting = orNull(fields["waiting"], "event.waiting", asBool);
  const epoch = orNull(fields["epoch"], "event.epoch", asCount);
  return {
    event,
    slot: orNull(fields["slot"], "event.slot", asU64),
    ...(waiting === null ? {} : { waiting }),
    ...(epoch === null ? {} : { epoch }),
  };
}

function asPrintable(value: unknown, where: string): string {
  return printable(asText(value, where), DEFAULT_RPC_LIMITS.maxTextBytes);
}

function asCount(value: unknown, where: string): number {
  return asNumber(value, where, Number.MAX_SAFE_INTEGER);
}

function encodeHello({ version, agent, snapshot }: HelloResult): Fields {
  return {
    version,
    agent,
    snapshot: snapshot === null ? null : { epoch: integer(snapshot.epoch), tokens: snapshot.tokens.map(encodeToken) },
  };
}

function decodeHello(fields: Fields): HelloResult {
  return {
    version: asNumber(fields["version"], "hello.version"),
    agent: asText(fields["agent"], "hello.agent"),
    snapshot: orNull(fields["snapshot"], "hello.snapshot", decodeSnapshot),
  };
}

function decodeSnapshot(value: unknown, where: string): Snapshot {
  const { epoch, tokens } = asMap(value, where);
  return { epoch: asCount(epoch, `${where}.epoch`), tokens: asArray(tokens, `${where}.tokens`).map(decodeToken) };
}

function encodeToken({ slot, uri, label, manufacturer, model, serial, flags, mechanisms, keys }: TokenMessage): Fields {
  return {
    slot: integer(slot),
    uri,
    label,
    manufacturer,
    model,
    serial,
    flags: integer(flags),
    mechanisms: mechanisms.map(integer),
    keys: keys.map((key) => ({
      uri: key.uri,
      label: key.label,
      id: key.id,
      type: key.type,
      bits: key.bits,
      curve: key.curve,
      spki: key.spki,
      certificate: key.certificate,
      mechanisms: key.mechanisms.map(integer),
    })),
  };
}

function decodeToken(value: unknown): TokenMessage {
  const fields = asMap(value, "token");
  return {
    slot: asU64(fields["slot"], "token.slot"),
    uri: asText(fields["uri"], "token.uri"),
    label: asText(fields["label"], "token.label"),
    manufacturer: asText(fields["manufacturer"], "token.manufacturer"),
    model: asText(fields["model"], "token.model"),
    serial: asText(fields["serial"], "token.serial"),
    flags: asU64(fields["flags"], "token.flags"),
    mechanisms: decodeMechanisms(fields["mechanisms"], "token.mechanisms"),
    keys: asArray(fields["keys"], "token.keys").map(decodeKey),
  };
}

function decodeKey(value: unknown): KeyEntryMessage {
  const fields = asMap(value, "key");
  const type = asText(fields["type"], "key.type");
  return {
    uri: asText(fields["uri"], "key.uri"),
    label: asBytes(fields["label"], "key.label"),
    id: asBytes(fields["id"], "key.id"),
    // A type that a newer agent knows is, for us, one of the others.
    type: KEY_TYPES.find((one) => one === type) ?? "other",
    bits: orNull(fields["bits"], "key.bits", asNumber),
    curve: orNull(fields["curve"], "key.curve", asText),
    spki: orNull(fields["spki"], "key.spki", asBytes),
    certificate: orNull(fields["certificate"], "key.certificate", asBytes),
    mechanisms: decodeMechanisms(fields["mechanisms"], "key.mechanisms"),
  };
}

function decodeMechanisms(value: unknown, where: string): readonly number[] {
  return asArray(value, where).map((one) => asNumber(one, where));
}

function encodeSign({ signature, mechanism, uri, spki }: SignResult): Fields {
  // ASCII, so its length is its bytes. The signature has been made: a key with an endless label must not lose it.
  return { signature, mechanism: integer(mechanism), uri: uri.length > DEFAULT_RPC_LIMITS.maxTextBytes ? "" : uri, spki };
}

function decodeSign(fields: Fields): SignResult {
  return {
    signature: asBytes(fields["signature"], "sign.signature"),
    mechanism: asNumber(fields["mechanism"], "sign.mechanism"),
    uri: asText(fields["uri"], "sign.uri"),
    spki: orNull(fields["spki"], "sign.spki", asBytes),
  };
}

function encodeStatus(status: StatusResult): Fields {
  const { client, origin, connectId, policy, pin, loggedIn, bytesIn, bytesOut, inFlight } = status;
  return {
    client,
    origin: { kind: origin.kind, destination: origin.destination },
    connectId,
    policy,
    pin,
    loggedIn: loggedIn.map(integer),
    bytesIn: integer(bytesIn),
    bytesOut: integer(bytesOut),
    inFlight,
  };
}

function decodeStatus(fields: Fields): StatusResult {
  const origin = asMap(fields["origin"], "status.origin");
  return {
    client: asText(fields["client"], "status.client"),
    origin: {
      kind: asText(origin["kind"], "status.origin.kind"),
      destination: orNull(origin["destination"], "status.origin.destination", asText),
    },
    connectId: asText(fields["connectId"], "status.connectId"),
    policy: asText(fields["policy"], "status.policy"),
    pin: asWord(fields["pin"], "status.pin", ["ask", "client"]),
    loggedIn: asArray(fields["loggedIn"], "status.loggedIn").map((one) => asU64(one, "status.loggedIn")),
    bytesIn: asCount(fields["bytesIn"], "status.bytesIn"),
    bytesOut: asCount(fields["bytesOut"], "status.bytesOut"),
    inFlight: asNumber(fields["inFlight"], "status.inFlight"),
  };
}
