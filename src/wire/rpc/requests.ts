/*
 * The requests of tokenfwd RPC between their values and their fields: what a client writes and what an agent lets through.
 * A field of the wrong type is `protocol`, a sound request that cannot be carried out is `bad-request`; neither text holds
 * a value. See protocol/tokenfwd-rpc.md, "Requests".
 */

import { decodeArgs, encodeArgs, isCallName } from "./call-values.js";
import type { Fields } from "./codec.js";
import { integer } from "./codec.js";
import { asArray, asBool, asBytes, asMap, asNumber, asText, orDefault, orNull, unfit } from "./fields.js";
import {
  type CallMessage,
  type HelloRequest,
  type KeyChoice,
  RPC_EVENTS,
  RpcError,
  type RpcEventName,
  type RpcRequests,
  type RpcRequestType,
  type SignMessage,
  type SubscribeRequest,
} from "./messages.js";
import { readParameter, writeParameter } from "./templates.js";

/** What a hello may offer at most. */
const MAX_VERSIONS = 32;
const PURPOSE = /^[a-z][a-z0-9-]{0,31}$/;
/** The purpose of a signature whose asker names none. */
const DEFAULT_PURPOSE = "data";
const SPKI_HASH_BYTES = 32;

type Codec<T extends RpcRequestType> = {
  encode(request: RpcRequests[T]["request"]): Fields;
  decode(fields: Fields): RpcRequests[T]["request"];
};

const EMPTY = { encode: () => ({}), decode: () => ({}) };

const CODECS: { readonly [T in RpcRequestType]: Codec<T> } = {
  hello: { encode: encodeHello, decode: decodeHello },
  sign: { encode: encodeSign, decode: decodeSign },
  call: { encode: encodeCall, decode: decodeCall },
  subscribe: { encode: ({ events }) => ({ events }), decode: decodeSubscribe },
  status: EMPTY,
  ping: EMPTY,
};

/** True for the types of requests that this side knows. */
export function isRequestType(type: string): type is RpcRequestType {
  return Object.hasOwn(CODECS, type);
}

/** The fields of a request, without `type` and `id`. */
export function encodeRequest<T extends RpcRequestType>(type: T, request: RpcRequests[T]["request"]): Fields {
  return CODECS[type].encode(request);
}

/**
 * A request from its fields. Byte strings are views of what was decoded, except those of a call that carries a PIN.
 * Throws RpcError `protocol` or `bad-request`, and for a call over a cap Refusal.
 */
export function decodeRequest<T extends RpcRequestType>(type: T, fields: Fields): RpcRequests[T]["request"] {
  return CODECS[type].decode(fields);
}

function encodeHello({ versions, client, snapshot }: HelloRequest): Fields {
  return { versions, client, snapshot };
}

function decodeHello(fields: Fields): HelloRequest {
  const versions = asArray(fields["versions"], "hello.versions").map((one) => asNumber(one, "hello.versions"));
  if (versions.length === 0 || versions.length > MAX_VERSIONS) throw unfit("hello.versions", `a list of 1 to ${MAX_VERSIONS}`);
  return {
    versions,
    client: orDefault(fields["client"], "hello.client", "", asText),
    snapshot: orDefault(fields["snapshot"], "hello.snapshot", false, asBool),
  };
}

function encodeSign(request: SignMessage): Fields {
  const { key, mechanism, parameter, data, isDigest, purpose, expect } = request;
  const fields: Record<string, unknown> = { key: key.uri !== null ? { uri: key.uri } : { spki: key.spki }, data };
  if (mechanism !== null) fields["mechanism"] = integer(mechanism);
  if (parameter !== null) fields["parameter"] = writeParameter(parameter);
  if (isDigest) fields["digest"] = true;
  if (purpose !== DEFAULT_PURPOSE) fields["purpose"] = purpose;
  if (expect !== null) fields["expect"] = expect;
  return fields;
}

function decodeSign(fields: Fields): SignMessage {
  const key = decodeKey(asMap(fields["key"], "sign.key"));
  const purpose = orDefault(fields["purpose"], "sign.purpose", DEFAULT_PURPOSE, asText);
  if (!PURPOSE.test(purpose)) throw new RpcError("bad-request", "sign.purpose is not a lower-case word of at most 32 characters");
  return {
    key,
    mechanism: orNull(fields["mechanism"], "sign.mechanism", asNumber),
    parameter: orNull(fields["parameter"], "sign.parameter", readParameter),
    data: asBytes(fields["data"], "sign.data"),
    isDigest: orDefault(fields["digest"], "sign.digest", false, asBool),
    purpose,
    expect: orNull(fields["expect"], "sign.expect", asBytes),
  };
}

function decodeKey(fields: Fields): KeyChoice {
  const uri = orNull(fields["uri"], "sign.key.uri", asText);
  const spki = orNull(fields["spki"], "sign.key.spki", asBytes);
  // RFC 7512 has no other use for a question mark: what follows names a module or a PIN.
  if (uri?.includes("?") === true) throw new RpcError("protocol", "sign.key.uri carries query attributes");
  if ((uri === null) === (spki === null)) throw new RpcError("bad-request", "sign.key has not exactly one of uri and spki");
  if (spki !== null && spki.length !== SPKI_HASH_BYTES) throw new RpcError("bad-request", "sign.key.spki is not a SHA-256");
  return { uri, spki };
}

function encodeCall({ name, args }: CallMessage): Fields {
  return { call: name, args: encodeArgs(name, args) };
}

function decodeCall(fields: Fields): CallMessage {
  const name = asText(fields["call"], "call.call");
  if (!isCallName(name)) throw new RpcError("bad-request", "call.call is no call of the table");
  return { name, args: decodeArgs(name, fields["args"]) };
}

/** Names of events that we do not know are left out: a newer client asks for more than we have. */
function decodeSubscribe(fields: Fields): SubscribeRequest {
  const names = asArray(fields["events"], "subscribe.events").map((one) => asText(one, "subscribe.events"));
  const known: readonly string[] = RPC_EVENTS;
  return { events: [...new Set(names)].filter((name): name is RpcEventName => known.includes(name)) };
}
