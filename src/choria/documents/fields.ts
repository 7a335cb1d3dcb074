/*
 * Reads members of a JSON object by rule: which names there may be, of which type and how long. Names and order of Go's structs,
 * which match names without regard to case: a name that is not known is refused where a document will be signed, for a server
 * could take `TTL` for `ttl`.
 */
import { DocumentError, type JsonObject, type JsonValue, quoted } from "./json.js";

export interface TextRule {
  /** In UTF-16 units; default 1. */
  readonly least?: number;
  readonly most: number;
  /** With `says`, which ends the sentence "NAME must be ...". */
  readonly pattern?: RegExp;
  readonly says?: string;
}

export interface KeyRule {
  readonly required: readonly string[];
  readonly optional?: readonly string[];
  /** Names that are not known are passed over; else they are refused. */
  readonly open?: boolean;
}

/** The members of one object. All methods throw DocumentError, which names the place. */
export interface Fields {
  has(name: string): boolean;
  text(name: string, rule: TextRule): string;
  /** A plain integer between the two. */
  integer(name: string, least: number, most: number): number;
  /** An array of at most `most` items, each read by `read`, which gets the item's place too. */
  list<T>(name: string, most: number, read: (item: JsonValue, where: string) => T): readonly T[];
  object(name: string, keys: KeyRule): Fields;
}

/** The members of `value`, which stands at `where`: the document's name for the whole, else as `envelope.filter`. */
export function readObject(value: JsonValue, where: string, keys: KeyRule): Fields {
  const members = asObject(value, where);
  for (const name of keys.required) {
    if (!members.has(name)) throw new DocumentError("missing-key", `${where} has no ${quoted(name)}`);
  }
  const known = [...keys.required, ...(keys.optional ?? [])];
  const unknown = keys.open === true ? undefined : [...members.keys()].find((name) => !known.includes(name));
  if (unknown !== undefined) throw new DocumentError("unknown-key", `${where} has ${quoted(unknown)}, which is not known here`);
  return fieldsOf(members, where);
}

/** The object at `where`, whatever its members are called. */
function asObject(value: JsonValue | undefined, where: string): JsonObject {
  if (value instanceof Map) return value;
  throw new DocumentError("type", `${where} must be an object`);
}

/** Checks a text that is no member. */
export function checkText(value: JsonValue | undefined, where: string, rule: TextRule): string {
  const { least = 1, most, pattern, says } = rule;
  if (typeof value !== "string") throw new DocumentError("type", `${where} must be a string`);
  if (value.length < least || value.length > most) {
    const range = least === most ? `${least}` : `${least} to ${most}`;
    throw new DocumentError("value", `${where} must have ${range} characters, and has ${value.length}`);
  }
  if (pattern !== undefined && !pattern.test(value)) throw new DocumentError("value", `${where} must be ${says}, and is ${quoted(value)}`);
  return value;
}

function fieldsOf(members: JsonObject, where: string): Fields {
  const place = (name: string): string => `${where}.${name}`;
  return {
    has: (name) => members.has(name),
    text: (name, rule) => checkText(members.get(name), place(name), rule),
    integer(name, least, most) {
      const value = members.get(name);
      if (typeof value !== "number") throw new DocumentError("type", `${place(name)} must be a whole number`);
      if (value < least || value > most)
        throw new DocumentError("value", `${place(name)} must be from ${least} to ${most}, and is ${value}`);
      return value;
    },
    list(name, most, read) {
      const value = members.get(name);
      if (!Array.isArray(value)) throw new DocumentError("type", `${place(name)} must be a list`);
      if (value.length > most) throw new DocumentError("size", `${place(name)} has ${value.length} items, and ${most} are the most`);
      return (value as readonly JsonValue[]).map((item, index) => read(item, `${place(name)}[${index}]`));
    },
    object: (name, keys) => readObject(members.get(name) ?? null, place(name), keys),
  };
}

/** Checks the name of the protocol, the first thing that is looked at. `what` names the document. */
export function checkProtocol(value: JsonValue, protocol: string, what: string): void {
  const given = asObject(value, what).get("protocol");
  if (given === protocol) return;
  if (typeof given === "string" && given.startsWith("io.choria.protocol.v2.")) {
    throw new DocumentError("protocol", `it is a document of protocol v2 (${quoted(given)}), and here is ${protocol} alone`);
  }
  if (given === undefined) throw new DocumentError("protocol", `${what} has no "protocol", which must be ${quoted(protocol)}`);
  const shown = typeof given === "string" ? quoted(given) : "no string";
  throw new DocumentError("protocol", `${what} must have the protocol ${quoted(protocol)}, and has ${shown}`);
}

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Standard base64 with padding, in one line and with no bit set that does not count. Throws DocumentError `base64`. */
export function decodeBase64(text: string, where: string): Buffer {
  const bytes = BASE64.test(text) ? Buffer.from(text, "base64") : null;
  if (bytes === null || bytes.toString("base64") !== text) throw new DocumentError("base64", `${where} is not base64`);
  return bytes;
}
