/*
 * Arguments and outputs of Cryptoki calls as msgpack, by the signatures of the calls table alone: nothing here knows a
 * call. An answer never holds more than was asked for, on both sides. See protocol/tokenfwd-rpc.md, "call".
 */
import { wipeable } from "../../base/secret.js";
import { type AnyCall, CALLS, type CallName, splitSignature } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, AttributeQuery, Mechanism, MechanismUpdate, Version } from "../../cryptoki/types.js";
import { fitAnswer } from "../p11kit/attributes.js";
import { type Budget, createBudget, DEFAULT_LIMITS, Refusal } from "../p11kit/limits.js";
import { isSecretName, wipeSecrets } from "../p11kit/requests.js";
import { type Fields, integer } from "./codec.js";
import { asArray, asBytes, asMap, asNumber, asU64, orNull } from "./fields.js";
import { type CallOutcome, RpcError } from "./messages.js";
import * as templates from "./templates.js";

/** What is known of a call beforehand. */
interface CallLayout {
  readonly call: AnyCall;
  readonly request: readonly string[];
  readonly response: readonly string[];
  /** It carries a PIN. */
  readonly secret: boolean;
}

const LAYOUTS: ReadonlyMap<string, CallLayout> = new Map(
  CALLS.map((call: AnyCall) => [
    call.name,
    { call, request: splitSignature(call.request), response: splitSignature(call.response), secret: call.args.some(isSecretName) },
  ]),
);

/** The length that Cryptoki demands of a token label. */
const LABEL_BYTES = 32;
/** The most handles or mechanisms that one answer may hold, so that it stays below the limit of values. */
export const MAX_NUMBERS = 16_384;

/** True for the name of a call of the table. */
export function isCallName(name: string): name is CallName {
  return LAYOUTS.has(name);
}

/** True for a call that carries a PIN: its frame is wiped, and its decoded arguments are copies to be wiped after use. */
export function carriesSecret(name: CallName): boolean {
  return layoutOf(name).secret;
}

export function encodeArgs(name: CallName, args: AnyArgs): Fields {
  const { call, request } = layoutOf(name);
  const fields: Record<string, unknown> = {};
  for (const [index, element] of request.entries()) {
    const argument = call.args[index] ?? "";
    fields[argument] = writeArgument(element, args[argument]);
  }
  return fields;
}

function writeArgument(element: string, value: unknown): unknown {
  switch (element) {
    case "u":
      return integer(value as bigint);
    case "v":
      return templates.writeVersion(value as Version);
    case "M":
      return templates.writeMechanism(value as Mechanism | null);
    case "aA":
      return templates.writeAttributes(value as readonly Attribute[]);
    case "fA":
      return templates.writeQueries(value as readonly AttributeQuery[]);
    default:
      return value;
  }
}

/**
 * The arguments of a call. Byte strings are views of what was decoded, and copies for a call that carries a PIN. Throws
 * RpcError `protocol` for an argument that does not fit the table, Refusal for one over a cap.
 */
export function decodeArgs(name: CallName, value: unknown): AnyArgs {
  const { call, request, secret } = layoutOf(name);
  const fields = asMap(value ?? {}, `${name}.args`);
  const budget = createBudget(DEFAULT_LIMITS);
  const args: Record<string, unknown> = {};
  try {
    for (const [index, element] of request.entries()) {
      const argument = call.args[index] ?? "";
      const read = readArgument(element, fields[argument], `${name}.${argument}`, budget);
      args[argument] = secret && Buffer.isBuffer(read) ? ownCopy(read) : read;
    }
  } catch (thrown) {
    if (secret) wipeSecrets(args);
    throw thrown;
  }
  return args;
}

function readArgument(element: string, value: unknown, where: string, budget: Budget): unknown {
  switch (element) {
    case "y":
      return asNumber(value, where, 255);
    case "u":
      return asU64(value, where);
    case "v":
      return templates.readVersion(value, where);
    case "s":
    case "z": {
      const text = asBytes(value, where);
      // The only strings of requests are token labels, and C_InitToken reads 32 bytes whatever it is given.
      if (text.length !== LABEL_BYTES) throw new Refusal(CKR.CKR_ARGUMENTS_BAD, "token label that is not of 32 bytes");
      return text;
    }
    case "M":
      return orNull(value, where, templates.readMechanism);
    case "ay":
      return orNull(value, where, asBytes);
    case "aA":
      return templates.readAttributes(value, where, budget);
    case "fA":
      return templates.readQueries(value, where, budget);
    case "fy": {
      const room = orNull(value, where, asNumber);
      budget.room(room ?? 0);
      return room;
    }
    case "fu": {
      const room = orNull(value, where, asNumber);
      if (room !== null && room > MAX_NUMBERS) throw new Refusal(CKR.CKR_DEVICE_MEMORY, `more than ${MAX_NUMBERS} numbers`);
      return room;
    }
    default:
      throw new RpcError("internal", `no such request element: ${element}`);
  }
}

/** The answer to a call as fields `rv` and `outs`. What was not asked for is left out, lengths take the place of too long outputs. */
export function encodeOutcome(name: CallName, args: AnyArgs, outcome: CallOutcome): Fields {
  const { call, response } = layoutOf(name);
  const result = fitResult(call, response, args, { ...outcome.outs, rv: outcome.rv });
  const outs: Record<string, unknown> = {};
  for (const [index, element] of response.entries()) {
    const output = call.outs[index] ?? "";
    if (output === "rv" || result[output] === undefined) continue;
    outs[output] = writeOutput(element, result[output]);
  }
  return { rv: integer(result.rv), outs };
}

function writeOutput(element: string, value: unknown): unknown {
  switch (element) {
    case "u":
      return integer(value as bigint);
    case "v":
      return templates.writeVersion(value as Version);
    case "aA":
      return templates.writeAttributes(value as readonly Attribute[]);
    case "au":
      return typeof value === "number" ? value : (value as readonly bigint[]).map(integer);
    case "P":
      return templates.writeUpdate(value as MechanismUpdate | null);
    default:
      return value;
  }
}

/** The answer to a call made with `args`. Throws RpcError `protocol` for an answer that does not fit the call. */
export function decodeOutcome(name: CallName, args: AnyArgs, fields: Fields): CallOutcome {
  const { call, response } = layoutOf(name);
  const given = asMap(fields["outs"] ?? {}, `${name}.outs`);
  const read: Record<string, unknown> & { rv: number } = { rv: asNumber(fields["rv"], `${name}.rv`) };
  const budget = createBudget(DEFAULT_LIMITS);
  for (const [index, element] of response.entries()) {
    const output = call.outs[index] ?? "";
    if (output === "rv" || given[output] === undefined) continue;
    read[output] = readOutput(element, given[output], `${name}.${output}`, budget);
  }
  const { rv, ...outs } = fitResult(call, response, args, read);
  return { rv, outs };
}

function readOutput(element: string, value: unknown, where: string, budget: Budget): unknown {
  switch (element) {
    case "u":
      return asU64(value, where);
    case "v":
      return templates.readVersion(value, where);
    case "s":
      return asBytes(value, where);
    case "ay":
      return typeof value === "number" ? asNumber(value, where) : asBytes(value, where);
    case "au":
      return typeof value === "number" ? asNumber(value, where) : asArray(value, where).map((one) => asU64(one, where));
    case "aA":
      return templates.readAttributes(value, where, budget);
    case "P":
      return orNull(value, where, templates.readUpdate);
    default:
      throw new RpcError("internal", `no such response element: ${element}`);
  }
}

/** A result with nothing beyond what its call had room for; one that does not answer the call becomes CKR_GENERAL_ERROR. */
function fitResult(call: AnyCall, response: readonly string[], args: AnyArgs, result: AnyResult): AnyResult {
  const { rv } = result;
  if (response.includes("aA")) {
    const attributes = result["attributes"] as readonly Attribute[] | undefined;
    if (attributes === undefined) return { rv: rv === CKR.CKR_OK ? CKR.CKR_GENERAL_ERROR : rv };
    const fitted = fitAnswer(args["query"] as readonly AttributeQuery[], attributes);
    if (fitted === null) return { rv: CKR.CKR_GENERAL_ERROR };
    return { rv: rv === CKR.CKR_OK && fitted.tooSmall ? CKR.CKR_BUFFER_TOO_SMALL : rv, attributes: fitted.attributes };
  }
  const [element] = response;
  if (response.length === 1 && (element === "ay" || element === "au")) {
    const output = call.outs[0] ?? "";
    const room = args["room"] as number | null;
    const value = result[output];
    if (value === undefined || (rv !== CKR.CKR_OK && rv !== CKR.CKR_BUFFER_TOO_SMALL))
      return { rv: rv === CKR.CKR_OK ? CKR.CKR_GENERAL_ERROR : rv };
    if (typeof value === "number") return { rv, [output]: value };
    const { length } = value as Buffer | readonly bigint[];
    if (room === null) return { rv, [output]: length };
    if (length > room) return { rv: CKR.CKR_BUFFER_TOO_SMALL, [output]: length };
    return { rv, [output]: value };
  }
  if (rv !== CKR.CKR_OK) return response.includes("P") ? { ...result } : { rv };
  return call.outs.every((name) => name === "rv" || result[name] !== undefined) ? result : { rv: CKR.CKR_GENERAL_ERROR };
}

/** A copy that shares its memory with nothing, so that it can be overwritten. */
function ownCopy(bytes: Buffer): Buffer {
  const copy = wipeable(bytes.length);
  bytes.copy(copy);
  return copy;
}

function layoutOf(name: CallName): CallLayout {
  return LAYOUTS.get(name) as CallLayout;
}
