/*
 * Attributes and attribute queries on the p11-kit wire, all kinds, and what keeps an answer within what was asked for.
 * In memory an attribute is native (little-endian, see cryptoki/types.ts); the kind decides its wire form.
 * Recursion is bounded by the depth cap before it happens. See protocol/p11kit-rpc.md, "Attributes".
 */
import type { Reader, Writer } from "../../base/bytes.js";
import { type AttributeKind, attributeKind, unavailableAttribute } from "../../cryptoki/attributes.js";
import { CKR } from "../../cryptoki/rv.js";
import type { Attribute, AttributeQuery } from "../../cryptoki/types.js";
import { type Budget, Refusal } from "./limits.js";
import { readByteArray, writeByteArray } from "./values.js";

/** sizeof (CK_ATTRIBUTE) and sizeof (CK_ULONG) on the machines whose lengths we speak. */
const ATTRIBUTE_BYTES = 24;
const ULONG_BYTES = 8;
/** The least that an attribute takes on the wire (type and validity byte), and a query (type and room). */
const MIN_ATTRIBUTE_WIRE_BYTES = 5;
const QUERY_WIRE_BYTES = 8;
/** How deep we write templates; the depth that stock peers read. */
const MAX_WRITTEN_DEPTH = 8;

/** Writes an `aA`. An attribute whose value does not fit its kind (a number of 4 bytes, say) is written as unavailable. */
export function writeAttributes(writer: Writer, attributes: readonly Attribute[], depth = 0): void {
  writer.u32(attributes.length);
  for (const attribute of attributes) writeAttribute(writer, attribute, depth);
}

function writeAttribute(writer: Writer, { type, value, length }: Attribute, depth: number): void {
  const kind = attributeKind(type);
  writer.u32(type);
  const available = length >= 0 && fitsKind(kind, value, length) && depth <= MAX_WRITTEN_DEPTH;
  writer.u8(available ? 1 : 0);
  if (!available) return;
  writer.u32(length);
  const bytes = Buffer.isBuffer(value) ? value : null;
  switch (kind) {
    case "bool":
      writer.u8(bytes?.[0] ?? 0);
      break;
    case "ulong":
      writer.u64(bytes?.readBigUInt64LE() ?? 0n);
      break;
    case "template":
      writeAttributes(writer, value === null ? [] : (value as readonly Attribute[]), depth + 1);
      break;
    case "mechanisms": {
      // A length answer carries no elements, so it must not announce any: stock servers do, and stock clients then fail.
      const count = (bytes?.length ?? 0) / ULONG_BYTES;
      writer.u32(count);
      for (let index = 0; index < count; index++) writer.u64(bytes?.readBigUInt64LE(index * ULONG_BYTES) ?? 0n);
      break;
    }
    case "date":
    case "bytes":
      writeByteArray(writer, bytes);
      break;
  }
}

function fitsKind(kind: AttributeKind, value: Attribute["value"], length: number): boolean {
  if (kind === "template") {
    return length % ATTRIBUTE_BYTES === 0 && (value === null || (Array.isArray(value) && length === value.length * ATTRIBUTE_BYTES));
  }
  if (value !== null && (!Buffer.isBuffer(value) || value.length !== length)) return false;
  switch (kind) {
    case "bool":
      return length === 1;
    case "ulong":
      return length === ULONG_BYTES;
    case "mechanisms":
      return length % ULONG_BYTES === 0;
    case "date":
      return length === 8 || length === 0;
    case "bytes":
      return true;
  }
}

/** What the reader of an `aA` knows beforehand. */
export interface AttributeReading {
  readonly budget: Budget;
  /** The queries that are being answered; absent for a template that a caller sends. */
  readonly queries?: readonly AttributeQuery[] | undefined;
}

/**
 * Reads an `aA`. Throws Refusal CKR_DEVICE_ERROR for a length that contradicts the value (a peer with another
 * CK_ULONG) and for too deep a nesting, CKR_DEVICE_MEMORY above the cap on their number.
 */
export function readAttributes(reader: Reader, reading: AttributeReading, depth = 0): Attribute[] {
  if (depth > reading.budget.maxDepth) throw new Refusal(CKR.CKR_DEVICE_ERROR, `templates nested deeper than ${reading.budget.maxDepth}`);
  const count = reader.u32("attribute count");
  reading.budget.attributes(count);
  if (count * MIN_ATTRIBUTE_WIRE_BYTES > reader.remaining) throw reader.malformed("attribute count above the bytes that follow");
  const attributes: Attribute[] = [];
  for (let index = 0; index < count; index++) attributes.push(readAttribute(reader, reading, depth, reading.queries?.[index]));
  return attributes;
}

function readAttribute(reader: Reader, reading: AttributeReading, depth: number, query: AttributeQuery | undefined): Attribute {
  const type = reader.u32("attribute type");
  const validity = reader.u8("attribute validity");
  if (validity > 1) throw reader.malformed(`attribute validity ${validity}`);
  if (validity === 0) return unavailableAttribute(type);
  const length = reader.u32("attribute length");
  const kind = attributeKind(type);
  const value = readValue(reader, reading, kind, depth, query, length);
  if (!fitsKind(kind, value, length)) throw new Refusal(CKR.CKR_DEVICE_ERROR, "attribute length that contradicts its value");
  // The answer to a length query holds zeros in place of a boolean or a number: they are not a value.
  if (query?.room === null) return { type, value: null, length };
  return { type, value, length };
}

function readValue(
  reader: Reader,
  reading: AttributeReading,
  kind: AttributeKind,
  depth: number,
  query: AttributeQuery | undefined,
  length: number,
): Attribute["value"] {
  switch (kind) {
    case "bool":
      return reader.take(1, "attribute byte");
    case "ulong": {
      const native = Buffer.alloc(ULONG_BYTES);
      native.writeBigUInt64LE(reader.u64("attribute number"));
      return native;
    }
    case "template": {
      const nested = readAttributes(reader, { budget: reading.budget, queries: query?.nested }, depth + 1);
      return nested.length === 0 && length > 0 ? null : nested;
    }
    case "mechanisms": {
      const count = reader.u32("mechanism count");
      // Stock servers announce elements in a length answer and send none.
      if (query?.room === null || (count === 0 && length > 0)) return null;
      if (count > reader.remaining / ULONG_BYTES) throw reader.malformed("mechanism count above the bytes that follow");
      const native = Buffer.alloc(count * ULONG_BYTES);
      for (let index = 0; index < count; index++) native.writeBigUInt64LE(reader.u64("mechanism"), index * ULONG_BYTES);
      return native;
    }
    case "date":
    case "bytes":
      return readByteArray(reader, "attribute value");
  }
}

/** Writes an `fA`. `nestedQueries` false leaves out the rooms within templates (peers before 0.25.4). */
export function writeQueries(writer: Writer, queries: readonly AttributeQuery[], nestedQueries: boolean): void {
  writer.u32(queries.length);
  for (const { type, room, nested } of queries) {
    writer.u32(type);
    writer.u32(room ?? 0);
    if (nestedQueries && hasNestedQueries(type, room)) writeQueries(writer, nested ?? [], nestedQueries);
  }
}

/** Reads an `fA`; `nestedQueries` as in writeQueries. A room of 0 is a length query, null in memory. */
export function readQueries(reader: Reader, budget: Budget, nestedQueries: boolean, depth = 0): AttributeQuery[] {
  if (depth > budget.maxDepth) throw new Refusal(CKR.CKR_DEVICE_ERROR, `templates nested deeper than ${budget.maxDepth}`);
  const count = reader.u32("attribute query count");
  budget.attributes(count);
  if (count * QUERY_WIRE_BYTES > reader.remaining) throw reader.malformed("attribute query count above the bytes that follow");
  const queries: AttributeQuery[] = [];
  for (let index = 0; index < count; index++) {
    const type = reader.u32("attribute type");
    const room = reader.u32("attribute room");
    budget.room(room);
    if (nestedQueries && hasNestedQueries(type, room)) {
      queries.push({ type, room, nested: readQueries(reader, budget, nestedQueries, depth + 1) });
    } else {
      queries.push({ type, room: room === 0 ? null : room });
    }
  }
  return queries;
}

function hasNestedQueries(type: number, room: number | null): boolean {
  return room !== null && room > 0 && attributeKind(type) === "template";
}

/** An answer to queries that holds nothing beyond what each asked for. */
export interface FittedAnswer {
  readonly attributes: readonly Attribute[];
  /** True where a value was dropped because it is longer than its room. */
  readonly tooSmall: boolean;
}

/**
 * Fits attributes to the queries they answer: a value only where there was room for it, a length where the length was
 * asked. Returns null when they do not answer these queries (another number or other types).
 */
export function fitAnswer(queries: readonly AttributeQuery[], attributes: readonly Attribute[]): FittedAnswer | null {
  if (queries.length !== attributes.length) return null;
  let tooSmall = false;
  const fitted: Attribute[] = [];
  for (const [index, attribute] of attributes.entries()) {
    const query = queries[index];
    if (query?.type !== attribute.type) return null;
    const { type, value, length } = attribute;
    if (length < 0) fitted.push(unavailableAttribute(type));
    else if (query.room === null) fitted.push({ type, value: null, length });
    else if (length > query.room) {
      tooSmall = true;
      fitted.push(unavailableAttribute(type));
    } else if (value === null && length === 0 && attributeKind(type) !== "template") {
      fitted.push({ type, value: Buffer.alloc(0), length });
    } else if (value !== null && !Buffer.isBuffer(value)) {
      const elements = value as readonly Attribute[];
      // Without rooms for the elements (clients before 0.25.4) only their lengths can be told.
      const nested = fitAnswer(query.nested ?? elements.map((element) => ({ type: element.type, room: null })), elements);
      if (nested === null) return null;
      tooSmall ||= nested.tooSmall;
      fitted.push({ type, value: nested.attributes, length });
    } else fitted.push(attribute);
  }
  return { attributes: fitted, tooSmall };
}
