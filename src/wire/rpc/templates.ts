/*
 * Mechanisms, templates and attribute queries as msgpack: the values of Cryptoki calls that have a structure. In memory an
 * attribute is native (see cryptoki/types.ts) and it travels as it is, whatever its kind. Every count is taken from the
 * budget before anything is kept. See protocol/tokenfwd-rpc.md, "Values of calls".
 */
import type { Attribute, AttributeQuery, Mechanism, MechanismParameter, MechanismUpdate, Version } from "../../cryptoki/types.js";
import type { Budget } from "../p11kit/limits.js";
import { type Fields, integer } from "./codec.js";
import { asArray, asBytes, asMap, asNumber, asU64, asWord, orNull, unfit } from "./fields.js";

/** sizeof (CK_ATTRIBUTE) on the machines whose lengths we speak. */
const ATTRIBUTE_BYTES = 24;
const COUNTER_BLOCK_BYTES = 16;

type FieldKind = "u64" | "bytes" | "bytes?";

/** The fields of each parameter, in the order in which they are written; `ibm` is a list and stands apart. */
const PARAMETERS: Readonly<Record<Exclude<MechanismParameter["kind"], "ibm">, Readonly<Record<string, FieldKind>>>> = {
  bytes: { bytes: "bytes" },
  "rsa-pss": { hashAlg: "u64", mgf: "u64", saltLength: "u64" },
  "rsa-oaep": { hashAlg: "u64", mgf: "u64", source: "u64", sourceData: "bytes?" },
  ecdh1: { kdf: "u64", sharedData: "bytes?", publicData: "bytes?" },
  "aes-ctr": { counterBits: "u64", counterBlock: "bytes" },
  gcm: { iv: "bytes?", ivBits: "u64", aad: "bytes?", tagBits: "u64" },
  "mac-general": { length: "u64" },
};
const KINDS: readonly MechanismParameter["kind"][] = [...(Object.keys(PARAMETERS) as (keyof typeof PARAMETERS)[]), "ibm"];
/** Above what any of the vendor's structs has. */
const MAX_IBM_FIELDS = 16;

export function writeVersion({ major, minor }: Version): Fields {
  return { major, minor };
}

export function readVersion(value: unknown, where: string): Version {
  const { major, minor } = asMap(value, where);
  return { major: asNumber(major, `${where}.major`, 255), minor: asNumber(minor, `${where}.minor`, 255) };
}

export function writeMechanism(mechanism: Mechanism | null): Fields | null {
  if (mechanism === null) return null;
  const { type, parameter } = mechanism;
  return { type: integer(type), parameter: parameter === null ? null : writeParameter(parameter) };
}

export function readMechanism(value: unknown, where: string): Mechanism {
  const { type, parameter } = asMap(value, where);
  return { type: asNumber(type, `${where}.type`), parameter: orNull(parameter, `${where}.parameter`, readParameter) };
}

export function writeParameter(parameter: MechanismParameter): Fields {
  if (parameter.kind === "ibm") return { kind: "ibm", fields: parameter.fields.map(writeIbmField) };
  const values = parameter as unknown as Fields;
  const fields: Record<string, unknown> = { kind: parameter.kind };
  for (const [name, kind] of Object.entries(PARAMETERS[parameter.kind]))
    fields[name] = kind === "u64" ? integer(values[name] as bigint) : values[name];
  return fields;
}

/** Reads a mechanism's parameter. Throws RpcError `protocol`. */
export function readParameter(value: unknown, where: string): MechanismParameter {
  const fields = asMap(value, where);
  const kind = asWord(fields["kind"], `${where}.kind`, KINDS);
  if (kind === "ibm") {
    const list = asArray(fields["fields"], `${where}.fields`);
    if (list.length > MAX_IBM_FIELDS) throw unfit(`${where}.fields`, `a list of at most ${MAX_IBM_FIELDS}`);
    return { kind, fields: list.map((field) => readIbmField(field, `${where}.fields`)) };
  }
  const read: Record<string, unknown> = { kind };
  for (const [name, fieldKind] of Object.entries(PARAMETERS[kind])) {
    const at = `${where}.${name}`;
    if (fieldKind === "u64") read[name] = asU64(fields[name], at);
    else read[name] = fieldKind === "bytes" ? asBytes(fields[name], at) : orNull(fields[name], at, asBytes);
  }
  if (kind === "aes-ctr" && (read["counterBlock"] as Buffer).length !== COUNTER_BLOCK_BYTES)
    throw unfit(`${where}.counterBlock`, `of ${COUNTER_BLOCK_BYTES} bytes`);
  return read as unknown as MechanismParameter;
}

/** A single byte of a vendor's struct is told from a CK_ULONG by a map around it. */
function writeIbmField(field: bigint | number | Buffer | null): unknown {
  if (typeof field === "bigint") return integer(field);
  return typeof field === "number" ? { byte: field } : field;
}

function readIbmField(value: unknown, where: string): bigint | number | Buffer | null {
  if (value === null || Buffer.isBuffer(value)) return value;
  if (typeof value === "number" || typeof value === "bigint") return BigInt(value);
  return asNumber(asMap(value, where)["byte"], where, 255);
}

export function writeUpdate(update: MechanismUpdate | null): Fields | null {
  return update === null ? null : { type: integer(update.type), bytes: update.bytes };
}

export function readUpdate(value: unknown, where: string): MechanismUpdate {
  const { type, bytes } = asMap(value, where);
  return { type: asNumber(type, `${where}.type`), bytes: orNull(bytes, `${where}.bytes`, asBytes) };
}

/** `value` alone where its size is its length; `length` alone for a length answer; neither where it is unavailable. */
export function writeAttributes(attributes: readonly Attribute[]): Fields[] {
  return attributes.map(({ type, value, length }) => {
    if (length < 0) return { type: integer(type) };
    if (value === null) return { type: integer(type), length };
    return { type: integer(type), value: Buffer.isBuffer(value) ? value : writeAttributes(value as readonly Attribute[]) };
  });
}

export function readAttributes(value: unknown, where: string, budget: Budget): Attribute[] {
  const list = asArray(value, where);
  budget.attributes(list.length);
  return list.map((one) => {
    const fields = asMap(one, where);
    const type = asNumber(fields["type"], `${where}.type`);
    const given = fields["value"];
    if (Buffer.isBuffer(given)) return { type, value: given, length: given.length };
    if (given !== undefined && given !== null) {
      const nested = readAttributes(given, `${where}.value`, budget);
      return { type, value: nested, length: ATTRIBUTE_BYTES * nested.length };
    }
    return { type, value: null, length: orNull(fields["length"], `${where}.length`, asNumber) ?? -1 };
  });
}

export function writeQueries(queries: readonly AttributeQuery[]): Fields[] {
  return queries.map(({ type, room, nested }) => ({
    type: integer(type),
    room,
    ...(nested === undefined ? {} : { nested: writeQueries(nested) }),
  }));
}

export function readQueries(value: unknown, where: string, budget: Budget): AttributeQuery[] {
  const list = asArray(value, where);
  budget.attributes(list.length);
  return list.map((one) => {
    const { type, room, nested } = asMap(one, where);
    const query = { type: asNumber(type, `${where}.type`), room: orNull(room, `${where}.room`, asNumber) };
    budget.room(query.room ?? 0);
    if (nested === undefined || nested === null) return query;
    return { ...query, nested: readQueries(nested, `${where}.nested`, budget) };
  });
}
