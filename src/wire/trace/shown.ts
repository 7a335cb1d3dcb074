/*
 * Values of Cryptoki calls as a trace shows them: by the signatures of the calls table, with names where there are names. What is
 * secret is decided here and nowhere else: a PIN is never shown, nor how long it is; any other byte string is its length, unless
 * data was asked for or it is one of the few that only name a thing.
 */
import { printable } from "../../base/printable.js";
import { attributeKind, attributeName, CKA } from "../../cryptoki/attributes.js";
import { type AnyCall, CALLS, splitSignature } from "../../cryptoki/calls.js";
import { CKC, CKK, CKO, CKS, CKU } from "../../cryptoki/constants.js";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import type { AnyArgs, Attribute, AttributeQuery, Mechanism, MechanismParameter, Version } from "../../cryptoki/types.js";
import { isSecretName } from "../p11kit/requests.js";
import type { Shown, ShownFields } from "./records.js";

const MAX_TEXT = 500;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

const ELEMENTS: ReadonlyMap<number, { readonly request: readonly string[]; readonly response: readonly string[] }> = new Map(
  CALLS.map((call: AnyCall) => [call.id, { request: splitSignature(call.request), response: splitSignature(call.response) }]),
);

/** Attributes of bytes that name a thing and are no part of a key; the rest is shown by length. */
const TEXT_ATTRIBUTES: ReadonlySet<number> = new Set([CKA.CKA_LABEL, CKA.CKA_APPLICATION, CKA.CKA_URL]);
const HEX_ATTRIBUTES: ReadonlySet<number> = new Set([
  CKA.CKA_ID,
  CKA.CKA_OBJECT_ID,
  CKA.CKA_EC_PARAMS,
  CKA.CKA_PUBLIC_EXPONENT,
  CKA.CKA_SERIAL_NUMBER,
]);

const namesOf = (table: Readonly<Record<string, bigint>>): ReadonlyMap<bigint, string> =>
  new Map(Object.entries(table).map(([name, value]) => [value, name]));
const USER_TYPES = namesOf(CKU);
const STATES = namesOf(CKS);
const NUMBER_ATTRIBUTES: ReadonlyMap<number, ReadonlyMap<bigint, string>> = new Map([
  [CKA.CKA_CLASS, namesOf(CKO)],
  [CKA.CKA_KEY_TYPE, namesOf(CKK)],
  [CKA.CKA_CERTIFICATE_TYPE, namesOf(CKC)],
]);
const MECHANISM_ATTRIBUTES: ReadonlySet<number> = new Set([CKA.CKA_KEY_GEN_MECHANISM, CKA.CKA_MECHANISM_TYPE]);

/** The arguments of a call by name; `data` shows byte strings that are no PIN. */
export function showArgs(call: AnyCall, args: AnyArgs, data: boolean): ShownFields {
  return showFields(ELEMENTS.get(call.id)?.request ?? [], call.args, args, data);
}

/** The outputs of a call by name, without its CK_RV. */
export function showOuts(call: AnyCall, outs: AnyArgs, data: boolean): ShownFields {
  return showFields(ELEMENTS.get(call.id)?.response ?? [], call.outs, outs, data);
}

function showFields(elements: readonly string[], names: readonly string[], values: AnyArgs, data: boolean): ShownFields {
  const shown: Record<string, Shown> = {};
  for (const [index, element] of elements.entries()) {
    const name = names[index] ?? "";
    const value = values[name];
    if (value === undefined || name === "rv") continue;
    shown[name] = isSecretName(name) ? showPin(value) : showElement(element, name, value, data);
  }
  return shown;
}

/** Whether there was one is worth knowing: without, the token asks by itself. */
function showPin(value: unknown): Shown {
  return value === null ? null : { pin: true };
}

function showElement(element: string, name: string, value: unknown, data: boolean): Shown {
  if (value === null) return null;
  switch (element) {
    case "y":
      return value as number;
    case "u":
      return showNamed(name, value as bigint);
    case "v":
      return showVersion(value as Version);
    case "s":
    case "z":
      return printable((value as Buffer).toString("utf8").replace(/[\0 ]+$/, ""), MAX_TEXT);
    case "M":
      return showMechanism(value as Mechanism, data);
    case "ay":
      return typeof value === "number" ? { length: value } : showBytes(value as Buffer, data);
    case "au":
      if (typeof value === "number") return { length: value };
      return (value as readonly bigint[]).map((one) => (name === "mechanisms" ? mechanismName(Number(one)) : showNumber(one)));
    case "aA":
      return (value as readonly Attribute[]).map((one) => showAttribute(one, data));
    case "fA":
      return showQueries(value as readonly AttributeQuery[]);
    case "P":
      return showUpdate(value as { readonly type: number; readonly bytes: Buffer | null }, data);
    default:
      return value as number;
  }
}

/** A number, as hex text where JSON's would not be exact. */
export function showNumber(value: bigint): Shown {
  return value <= MAX_SAFE ? Number(value) : `0x${value.toString(16)}`;
}

function showNamed(name: string, value: bigint): Shown {
  if (name === "userType") return USER_TYPES.get(value) ?? showNumber(value);
  if (name === "state") return STATES.get(value) ?? showNumber(value);
  if (name === "mechanismType") return mechanismName(Number(value));
  if (name === "flags") return `0x${value.toString(16)}`;
  return showNumber(value);
}

/** A byte string by its length; with `data` as hex too. */
export function showBytes(bytes: Buffer, data: boolean): Shown {
  return data ? { bytes: bytes.length, hex: bytes.toString("hex") } : { bytes: bytes.length };
}

function showVersion({ major, minor }: Version): string {
  return `${major}.${minor}`;
}

/** A mechanism by name with the fields of its parameter. */
function showMechanism({ type, parameter }: Mechanism, data: boolean): Shown {
  return parameter === null ? { type: mechanismName(type) } : { type: mechanismName(type), parameter: showParameter(parameter, data) };
}

/** The fields of a mechanism's parameter. */
export function showParameter(parameter: MechanismParameter, data: boolean): Shown {
  if (parameter.kind === "ibm") return { kind: "ibm", fields: parameter.fields.map((field) => showField("", field, data)) };
  return Object.fromEntries(Object.entries(parameter).map(([name, value]) => [name, showField(name, value, data)]));
}

function showField(name: string, value: unknown, data: boolean): Shown {
  if (Buffer.isBuffer(value)) return showBytes(value, data);
  if (typeof value === "bigint") return name === "hashAlg" ? mechanismName(Number(value)) : showNumber(value);
  return value as string | number | null;
}

function showUpdate({ type, bytes }: { readonly type: number; readonly bytes: Buffer | null }, data: boolean): Shown {
  return { type: mechanismName(type), bytes: bytes === null ? null : showBytes(bytes, data) };
}

function showAttribute({ type, value, length }: Attribute, data: boolean): Shown {
  const shown: Record<string, Shown> = { type: attributeName(type) };
  if (length < 0) shown["unavailable"] = true;
  else if (value === null) shown["length"] = length;
  else if (Buffer.isBuffer(value)) shown["value"] = showValue(type, value, data);
  else shown["value"] = (value as readonly Attribute[]).map((one) => showAttribute(one, data));
  return shown;
}

function showValue(type: number, value: Buffer, data: boolean): Shown {
  switch (attributeKind(type)) {
    case "bool":
      return value[0] !== 0;
    case "ulong": {
      if (value.length !== 8) return showBytes(value, data);
      const number = value.readBigUInt64LE();
      if (MECHANISM_ATTRIBUTES.has(type) && number <= 0xffffffffn) return mechanismName(Number(number));
      return NUMBER_ATTRIBUTES.get(type)?.get(number) ?? showNumber(number);
    }
    case "date":
      return printable(value.toString("latin1"));
    case "mechanisms":
      return Array.from({ length: value.length >> 3 }, (_, index) => mechanismName(Number(value.readBigUInt64LE(index * 8))));
    default:
      if (TEXT_ATTRIBUTES.has(type)) return printable(value, MAX_TEXT);
      return HEX_ATTRIBUTES.has(type) && value.length <= 64 ? value.toString("hex") : showBytes(value, data);
  }
}

function showQueries(queries: readonly AttributeQuery[]): Shown {
  return queries.map(({ type, room, nested }) => ({
    type: attributeName(type),
    room,
    ...(nested === undefined ? {} : { nested: showQueries(nested) }),
  }));
}

/** The bytes of the PINs among decoded arguments, which no size may count. */
export function pinBytes(args: AnyArgs): number {
  let bytes = 0;
  for (const [name, value] of Object.entries(args)) if (isSecretName(name) && Buffer.isBuffer(value)) bytes += value.length;
  return bytes;
}

/** What of a request its answer needs: numbers, and no byte of what was sent. */
export function keptArgs(args: AnyArgs): AnyArgs {
  const mechanism = (args["mechanism"] ?? null) as Mechanism | null;
  return {
    query: args["query"],
    room: args["room"] ?? null,
    mechanism: mechanism === null ? null : { type: mechanism.type, parameter: null },
  };
}
