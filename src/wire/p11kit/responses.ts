/*
 * Response bodies of the p11-kit RPC, by the calls table: an answer never holds more than the request had room for, and
 * everything that is no answer is the ERROR message. See protocol/p11kit-rpc.md, "Answers".
 */
import { createReader, createWriter, type Reader, type Writer } from "../../base/bytes.js";
import { type AnyCall, CALLS, splitSignature } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, AttributeQuery, Mechanism, MechanismUpdate, Version } from "../../cryptoki/types.js";
import { fitAnswer, readAttributes, writeAttributes } from "./attributes.js";
import { createBudget, type P11KitLimits, Refusal } from "./limits.js";
import { readUpdate, writeUpdate } from "./mechanisms.js";
import * as values from "./values.js";

const ERROR_ID = 0;
const ERROR_SIGNATURE = "u";

/** CK_RV values that C_GetAttributeValue answers together with attributes. */
const PARTIAL_RVS: readonly number[] = [CKR.CKR_OK, CKR.CKR_ATTRIBUTE_SENSITIVE, CKR.CKR_ATTRIBUTE_TYPE_INVALID, CKR.CKR_BUFFER_TOO_SMALL];

/** Lengths of the padded strings, by output name; C_GetSlotInfo's description is the one that depends on its call. */
const STRING_BYTES: Readonly<Record<string, number>> = { model: 16, serial: 16, utcTime: 16 };

const LAYOUTS: ReadonlyMap<number, readonly string[]> = new Map(CALLS.map((call: AnyCall) => [call.id, splitSignature(call.response)]));
/** What each answer begins with: its call's id and signature. */
const HEADS: ReadonlyMap<number, Buffer> = new Map([
  [ERROR_ID, headOf(ERROR_ID, ERROR_SIGNATURE)],
  ...CALLS.map((call: AnyCall) => [call.id, headOf(call.id, call.response)] as const),
]);

/** The ERROR message: the only way for a CK_RV that is not OK. An `rv` that is no CK_RV becomes CKR_GENERAL_ERROR. */
export function encodeError(rv: number): Buffer {
  const writer = createWriter(24);
  writer.bytes(HEADS.get(ERROR_ID) as Buffer);
  writer.u64(BigInt(Number.isSafeInteger(rv) && rv > 0 ? rv : CKR.CKR_GENERAL_ERROR));
  return writer.finish();
}

/**
 * The answer to a call. Byte strings and lists longer than their room become a length, which tells the caller
 * CKR_BUFFER_TOO_SMALL. A result that does not answer the call (outputs missing) is a bug below and becomes
 * CKR_GENERAL_ERROR.
 */
export function encodeResponse(call: AnyCall, args: AnyArgs, result: AnyResult): Buffer {
  const shaped = shapeResult(call, args, result);
  if (typeof shaped === "number") return encodeError(shaped);
  const writer = createWriter();
  writer.bytes(HEADS.get(call.id) as Buffer);
  let index = 0;
  for (const element of layoutOf(call)) {
    const name = call.outs[index++] ?? "";
    writeOutput(writer, call, element, name, shaped[name], args);
  }
  return writer.finish();
}

/** The outputs to write, in-band `rv` included, or the CK_RV of an ERROR message. */
function shapeResult(call: AnyCall, args: AnyArgs, result: AnyResult): Readonly<Record<string, unknown>> | number {
  const { rv } = result;
  const elements = layoutOf(call);
  if (elements.includes("aA")) {
    if (!PARTIAL_RVS.includes(rv)) return rv;
    const attributes = result["attributes"] as readonly Attribute[] | undefined;
    if (attributes === undefined) return rv === CKR.CKR_OK ? CKR.CKR_GENERAL_ERROR : rv;
    const fitted = fitAnswer(args["query"] as readonly AttributeQuery[], attributes);
    if (fitted === null) return CKR.CKR_GENERAL_ERROR;
    return { attributes: fitted.attributes, rv: BigInt(rv === CKR.CKR_OK && fitted.tooSmall ? CKR.CKR_BUFFER_TOO_SMALL : rv) };
  }
  const tooSmall = rv === CKR.CKR_BUFFER_TOO_SMALL;
  if (elements.includes("P")) {
    if (rv !== CKR.CKR_OK && !tooSmall) return rv;
    if (!tooSmall && typeof result["key"] !== "bigint") return CKR.CKR_GENERAL_ERROR;
    return { rv: BigInt(rv), update: result["update"] ?? null, key: tooSmall ? undefined : result["key"] };
  }
  if (elements.length === 1 && (elements[0] === "ay" || elements[0] === "au")) {
    const name = call.outs[0] ?? "";
    const output = fitOutput(result[name], args["room"] as number | null);
    if (tooSmall) return typeof output === "number" ? { [name]: output } : rv;
    if (rv !== CKR.CKR_OK) return rv;
    return output === undefined ? CKR.CKR_GENERAL_ERROR : { [name]: output };
  }
  if (rv !== CKR.CKR_OK) return rv;
  return call.outs.every((name) => result[name] !== undefined) ? result : CKR.CKR_GENERAL_ERROR;
}

function fitOutput(output: unknown, room: number | null): Buffer | readonly bigint[] | number | undefined {
  if (typeof output === "number") return output;
  if (!Buffer.isBuffer(output) && !Array.isArray(output)) return undefined;
  return room === null || output.length > room ? output.length : output;
}

function writeOutput(writer: Writer, call: AnyCall, element: string, name: string, value: unknown, args: AnyArgs): void {
  switch (element) {
    case "u":
      if (value !== undefined) writer.u64(value as bigint);
      break;
    case "v":
      values.writeVersion(writer, value as Version);
      break;
    case "s":
      values.writeString(writer, value as Buffer, stringBytes(call, name));
      break;
    case "ay":
      values.writeBytes(writer, value as Buffer | number);
      break;
    case "au":
      values.writeNumbers(writer, value as readonly bigint[] | number);
      break;
    case "aA":
      writeAttributes(writer, value as readonly Attribute[]);
      break;
    case "P":
      writeUpdate(writer, value as MechanismUpdate | null, args["mechanism"] as Mechanism | null);
      break;
    default:
      throw new TypeError(`no such response element: ${element}`);
  }
}

function stringBytes(call: AnyCall, name: string): number {
  return call.name === "C_GetSlotInfo" && name === "description" ? 64 : (STRING_BYTES[name] ?? 32);
}

/** The CK_RV of an ERROR message, null for a body that is none. Throws DecodeError for one that cannot be read. */
export function decodeErrorRv(body: Buffer): number | null {
  const reader = createReader(body);
  if (reader.u32("call id") !== ERROR_ID) return null;
  return readErrorRv(reader, reader.take(reader.u32("signature length"), "signature").toString("latin1"));
}

/**
 * Reads the answer to a call made with `args`. Trailing bytes are ignored, and told to `onTrailing`. What is longer than its room becomes
 * CKR_BUFFER_TOO_SMALL with the length. Throws DecodeError or Refusal for an answer that does not fit the call.
 */
export function decodeResponse(
  body: Buffer,
  call: AnyCall,
  args: AnyArgs,
  limits: P11KitLimits,
  onTrailing?: (bytes: number) => void,
): AnyResult {
  const reader = createReader(body);
  const id = reader.u32("call id");
  const signature = reader.take(reader.u32("signature length"), "signature").toString("latin1");
  if (id === ERROR_ID) {
    const rv = readErrorRv(reader, signature);
    if (reader.remaining > 0) onTrailing?.(reader.remaining);
    return { rv };
  }
  if (id !== call.id) throw reader.malformed("answer to another call");
  if (signature !== call.response) throw reader.malformed("another signature");
  const result: Record<string, unknown> & { rv: number } = { rv: CKR.CKR_OK };
  for (const [index, element] of layoutOf(call).entries()) {
    const name = call.outs[index] ?? "";
    if (name === "key" && result.rv === CKR.CKR_BUFFER_TOO_SMALL) break;
    const value = readOutput(reader, element, name, args, limits);
    if (name === "rv") result.rv = Number(value);
    else result[name] = value;
  }
  if (reader.remaining > 0) onTrailing?.(reader.remaining);
  return fitResult(call, args, result);
}

function readErrorRv(reader: Reader, signature: string): number {
  if (signature !== ERROR_SIGNATURE) throw reader.malformed("ERROR with another signature");
  const rv = Number(reader.u64("rv"));
  if (rv === 0 || rv > 0xffffffff) throw reader.malformed("ERROR without an error");
  return rv;
}

function readOutput(reader: Reader, element: string, name: string, args: AnyArgs, limits: P11KitLimits): unknown {
  switch (element) {
    case "u":
      return reader.u64(name);
    case "v":
      return values.readVersion(reader, name);
    case "s":
      return values.readString(reader, name);
    case "ay":
      return values.readBytes(reader, name) ?? Buffer.alloc(0);
    case "au":
      return values.readNumbers(reader, name);
    case "aA": {
      const queries = args["query"] as readonly AttributeQuery[];
      return readAttributes(reader, { budget: createBudget(limits), queries });
    }
    case "P":
      return readUpdate(reader, args["mechanism"] as Mechanism | null);
    default:
      throw reader.malformed(`no such response element: ${element}`);
  }
}

/** Turns what came into what a caller of the call sees: a lone length is too small a buffer, or what was asked for. */
function fitResult(call: AnyCall, args: AnyArgs, result: Record<string, unknown> & { rv: number }): AnyResult {
  const elements = layoutOf(call);
  if (elements.includes("aA")) {
    const fitted = fitAnswer(args["query"] as readonly AttributeQuery[], result["attributes"] as readonly Attribute[]);
    if (fitted === null) throw new Refusal(CKR.CKR_DEVICE_ERROR, "attributes that were not asked for");
    const rv = result.rv === CKR.CKR_OK && fitted.tooSmall ? CKR.CKR_BUFFER_TOO_SMALL : result.rv;
    return { rv, attributes: fitted.attributes };
  }
  if (elements.length !== 1 || (elements[0] !== "ay" && elements[0] !== "au")) return result;
  const room = args["room"] as number | null;
  const name = call.outs[0] ?? "";
  const output = fitOutput(result[name], room);
  if (room === null || typeof output !== "number") return { rv: result.rv, [name]: output };
  // Stock servers answer an empty result with a length of 0, which is no buffer that was too small.
  if (output === 0) return { rv: result.rv, [name]: elements[0] === "ay" ? Buffer.alloc(0) : [] };
  return { rv: CKR.CKR_BUFFER_TOO_SMALL, [name]: output };
}

function headOf(id: number, signature: string): Buffer {
  const writer = createWriter();
  writer.u32(id);
  writer.u32(signature.length);
  writer.bytes(Buffer.from(signature, "latin1"));
  return writer.finish();
}

function layoutOf(call: AnyCall): readonly string[] {
  return LAYOUTS.get(call.id) as readonly string[];
}
