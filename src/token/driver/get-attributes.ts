/*
 * C_GetAttributeValue with everything that pkcs11js throws away: partial results, lengths, rooms that are too small,
 * empty dates. Asks for all at once, and one by one only when that fails. It must never ask for a nested template:
 * pkcs11js hands the module uninitialised memory there.
 */
import { attributeKind, unavailableAttribute } from "../../cryptoki/attributes.js";
import { CKR } from "../../cryptoki/rv.js";
import type { Attribute, AttributeQuery } from "../../cryptoki/types.js";
import { attributeType, Refusal } from "./arguments.js";
import type { NativeModule } from "./native.js";

const MAX_QUERIES = 1024;

interface Read {
  readonly rv: number;
  /** undefined where the attribute could not be read. */
  readonly value: Buffer | undefined;
}

/** What the caller sees: attributes in the order of the query, and the CK_RV a module would have answered. */
export interface AttributesResult {
  readonly rv: number;
  readonly attributes: readonly Attribute[];
}

/** Throws Refusal with the module's CK_RV when it is one that carries no attributes. */
export function getAttributes(native: NativeModule, session: Buffer, object: Buffer, query: unknown): AttributesResult {
  if (!Array.isArray(query) || query.length > MAX_QUERIES) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  const asked = (query as readonly AttributeQuery[]).map((one) => ({ type: attributeType(one?.type), room: roomOf(one?.room) }));
  const readable = asked.filter(({ type }) => attributeKind(type) !== "template");
  const batch = readAll(native, session, object, readable);
  let next = 0;
  let worst: number = CKR.CKR_OK;
  const attributes = asked.map(({ type, room }): Attribute => {
    const read: Read =
      attributeKind(type) === "template"
        ? { rv: CKR.CKR_ATTRIBUTE_TYPE_INVALID, value: undefined }
        : (batch?.[next++] ?? readOne(native, session, object, type));
    const attribute = sizeToRoom(type, room, read.value);
    const rv = read.rv !== CKR.CKR_OK ? read.rv : attribute.length < 0 ? CKR.CKR_BUFFER_TOO_SMALL : CKR.CKR_OK;
    if (worst === CKR.CKR_OK) worst = rv;
    return attribute;
  });
  return { rv: worst, attributes };
}

function roomOf(room: unknown): number | null {
  if (room === null) return null;
  if (typeof room !== "number" || !Number.isInteger(room) || room < 0) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  return room;
}

/** All values in one call, or null when the module would not give all of them. */
function readAll(native: NativeModule, session: Buffer, object: Buffer, asked: readonly { type: number }[]): Read[] | null {
  const template = asked.map(({ type }) => ({ type }));
  const { rv, value, lost } = native.invoke("C_GetAttributeValue", session, object, template);
  if (rv === CKR.CKR_OK) return (value as { type: number; value?: Buffer }[]).map((one) => checked(one.type, one.value));
  if (lost || carriesAttributes(rv)) return null;
  throw new Refusal(rv);
}

function readOne(native: NativeModule, session: Buffer, object: Buffer, type: number): Read {
  const { rv, value, lost } = native.invoke("C_GetAttributeValue", session, object, [{ type }]);
  // pkcs11js throws on a date of no bytes, which is the normal case of a date.
  if (lost && attributeKind(type) === "date") return { rv: CKR.CKR_OK, value: Buffer.alloc(0) };
  if (rv === CKR.CKR_OK) return checked(type, (value as { value?: Buffer }[])[0]?.value);
  if (carriesAttributes(rv)) return { rv, value: undefined };
  throw new Refusal(rv);
}

function carriesAttributes(rv: number): boolean {
  return rv === CKR.CKR_ATTRIBUTE_SENSITIVE || rv === CKR.CKR_ATTRIBUTE_TYPE_INVALID || rv === CKR.CKR_BUFFER_TOO_SMALL;
}

/** pkcs11js reads a date through atoi on bytes without an end; one that is not 8 digits afterwards is not believed. */
function checked(type: number, value: Buffer | undefined): Read {
  const believed =
    value !== undefined && (attributeKind(type) !== "date" || value.length === 0 || /^\d{8}$/.test(value.toString("latin1")));
  return believed ? { rv: CKR.CKR_OK, value } : { rv: CKR.CKR_ATTRIBUTE_TYPE_INVALID, value: undefined };
}

/** PKCS#11 v2.40 section 4.4.7: no room asked is a length; too little room is length -1. */
function sizeToRoom(type: number, room: number | null, value: Buffer | undefined): Attribute {
  if (value === undefined) return unavailableAttribute(type);
  if (room === null) return { type, value: null, length: value.length };
  return room < value.length ? unavailableAttribute(type) : { type, value, length: value.length };
}
