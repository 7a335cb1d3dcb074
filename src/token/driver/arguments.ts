/*
 * Checks and converts every value before pkcs11js sees it, because pkcs11js ends the process on a malformed template
 * or mechanism and cuts numbers to 32 bits without a word. What cannot be passed is refused here with the CK_RV that
 * PKCS#11 has for it. Pure: it calls nothing.
 */
import { attributeKind } from "../../cryptoki/attributes.js";
import { CK_UNAVAILABLE_INFORMATION } from "../../cryptoki/constants.js";
import { CKM, MECHANISMS } from "../../cryptoki/mechanisms.js";
import { CKR } from "../../cryptoki/rv.js";
import type { Attribute, Mechanism, MechanismParameter } from "../../cryptoki/types.js";

/** Thrown inside the driver only: the call is answered with this CK_RV and the module never hears of it. */
export class Refusal extends Error {
  readonly rv: number;
  constructor(rv: number) {
    super("refused");
    this.rv = rv;
  }
}

const MAX_ULONG = 0xffffffffffffffffn;
const MAX_U32 = 0xffffffffn;
const MAX_ATTRIBUTES = 1024;
/** Output buffers are never larger than this, whatever room a caller claims to have. */
export const MAX_OUTPUT_BYTES = 1024 * 1024;

/** An empty Buffer reaches the module as a NULL pointer ... */
const NULL_BUFFER = Buffer.alloc(0);
/** ... and an empty view of memory that exists as a pointer to no bytes. */
const EMPTY_BUFFER = Buffer.alloc(1).subarray(0, 0);

/** A handle or slot id as the 8 bytes pkcs11js wants. */
export function handleBytes(value: unknown, rv: number = CKR.CKR_ARGUMENTS_BAD): Buffer {
  if (typeof value !== "bigint" || value < 0n || value > MAX_ULONG) throw new Refusal(rv);
  // From the pool: one of its own would be moved out of V8's heap when the native side asks for its address.
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** The bigint in 8 bytes that pkcs11js gave. */
export function handleValue(value: unknown): bigint {
  if (!Buffer.isBuffer(value) || value.length !== 8) throw new Refusal(CKR.CKR_GENERAL_ERROR);
  return value.readBigUInt64LE();
}

/** A CK_ULONG argument that pkcs11js takes as a 32-bit number; larger ones are refused with `rv`. */
export function u32(value: unknown, rv: number = CKR.CKR_ARGUMENTS_BAD): number {
  if (typeof value !== "bigint" || value < 0n || value > MAX_U32) throw new Refusal(rv);
  return Number(value);
}

/** A CK_ULONG result; all ones in 32 bits is how pkcs11js shows CK_UNAVAILABLE_INFORMATION. */
export function ulong(value: unknown): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value !== "number") throw new Refusal(CKR.CKR_GENERAL_ERROR);
  return value === 0xffffffff ? CK_UNAVAILABLE_INFORMATION : BigInt(value);
}

/** Input bytes: null as a NULL pointer, no bytes as a pointer to nothing. */
export function inputBytes(value: unknown): Buffer {
  if (value === null) return NULL_BUFFER;
  if (!Buffer.isBuffer(value)) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  return value.length === 0 ? EMPTY_BUFFER : value;
}

/** A zeroed output buffer for this room: null as a NULL pointer (length query). */
export function outputBuffer(room: unknown): Buffer {
  if (room === null) return NULL_BUFFER;
  if (typeof room !== "number" || !Number.isInteger(room) || room < 0) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  return room === 0 ? EMPTY_BUFFER : Buffer.alloc(Math.min(room, MAX_OUTPUT_BYTES));
}

/**
 * A PIN as the string pkcs11js demands. A NULL PIN cannot be passed (CKR_ARGUMENTS_BAD); bytes that are not UTF-8
 * would reach the token as something else, so they are refused without spending a try (CKR_PIN_INVALID).
 */
export function pinText(value: unknown): string {
  if (!Buffer.isBuffer(value)) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
  } catch {
    throw new Refusal(CKR.CKR_PIN_INVALID);
  }
}

/** A token label: text that is exactly 32 bytes of UTF-8, because the module reads 32 bytes whatever it is given. */
export function labelText(value: unknown): string {
  if (!Buffer.isBuffer(value) || value.length > 32) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  const padded = Buffer.alloc(32, " ");
  value.copy(padded);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(padded);
  } catch {
    throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  }
}

/** A template for pkcs11js. Nested templates, and dates that are not 8 bytes, cannot be passed. */
export function templateArgument(value: unknown): { type: number; value: Buffer | undefined }[] {
  if (!Array.isArray(value) || value.length > MAX_ATTRIBUTES) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  return (value as readonly Attribute[]).map((attribute) => {
    const type = attributeType(attribute?.type);
    if (attributeKind(type) === "template" || Array.isArray(attribute.value)) throw new Refusal(CKR.CKR_ATTRIBUTE_TYPE_INVALID);
    if (attribute.value === null) {
      if (attribute.length !== 0) throw new Refusal(CKR.CKR_ATTRIBUTE_VALUE_INVALID);
      return { type, value: undefined };
    }
    if (!Buffer.isBuffer(attribute.value)) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
    if (attribute.value.length === 0) return { type, value: undefined };
    if (attributeKind(type) === "date" && attribute.value.length !== 8) throw new Refusal(CKR.CKR_ATTRIBUTE_VALUE_INVALID);
    return { type, value: attribute.value };
  });
}

/** An attribute type: a 32-bit number. */
export function attributeType(value: unknown): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 0xffffffff) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  return value;
}

/** pkcs11js's numbers for the parameter structs that hold pointers (its common.h). */
const PARAMS = { rsaOaep: 4, ecdh1: 6, gcm: 7 } as const;

/**
 * Mechanisms whose parameter is bytes and nothing else: those that the wire carries as such, and RFC 3394's key wraps.
 * Of any other the parameter may be a C struct, and flat bytes would make the module follow addresses that a client
 * chose, in the process that holds the PIN, or take another client's handle.
 */
const FLAT: ReadonlySet<number> = new Set([
  ...[...MECHANISMS.values()].filter(({ shape }) => shape === "bytes" || shape === "iv8" || shape === "iv16").map(({ type }) => type),
  CKM.CKM_AES_KEY_WRAP,
  CKM.CKM_AES_KEY_WRAP_PAD,
  CKM.CKM_AES_KEY_WRAP_KWP,
]);

/** A mechanism for pkcs11js. A NULL mechanism (cancel, v3.0) cannot be passed: CKR_ARGUMENTS_BAD. */
export function mechanismArgument(value: unknown): { mechanism: number; parameter: unknown } {
  const given = value as Mechanism | null | undefined;
  if (given === null || given === undefined || typeof given !== "object") throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  if (typeof given.type !== "number" || !Number.isInteger(given.type) || given.type < 0 || given.type > 0xffffffff)
    throw new Refusal(CKR.CKR_MECHANISM_INVALID);
  return { mechanism: given.type, parameter: given.parameter === null ? undefined : parameterArgument(given.type, given.parameter) };
}

function parameterArgument(type: number, parameter: MechanismParameter): unknown {
  switch (parameter.kind) {
    case "bytes": {
      if (!Buffer.isBuffer(parameter.bytes)) throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
      if (parameter.bytes.length === 0) return undefined;
      if (!FLAT.has(type)) throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
      return parameter.bytes;
    }
    case "rsa-pss":
      return ulongs(parameter.hashAlg, parameter.mgf, parameter.saltLength);
    case "mac-general":
      return ulongs(parameter.length);
    case "aes-ctr":
      if (!Buffer.isBuffer(parameter.counterBlock) || parameter.counterBlock.length !== 16)
        throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
      return Buffer.concat([ulongs(parameter.counterBits), parameter.counterBlock]);
    case "rsa-oaep":
      return {
        type: PARAMS.rsaOaep,
        hashAlg: safe(parameter.hashAlg),
        mgf: safe(parameter.mgf),
        source: safe(parameter.source),
        sourceData: parameterBytes(parameter.sourceData),
      };
    case "ecdh1":
      return {
        type: PARAMS.ecdh1,
        kdf: safe(parameter.kdf),
        sharedData: parameterBytes(parameter.sharedData),
        publicData: parameterBytes(parameter.publicData),
      };
    case "gcm":
      return {
        type: PARAMS.gcm,
        iv: parameterBytes(parameter.iv),
        ivBits: safe(parameter.ivBits),
        aad: parameterBytes(parameter.aad),
        tagBits: safe(parameter.tagBits),
      };
    case "ibm": {
      // Only those without pointers: numbers side by side.
      const numbers = parameter.fields.filter((field): field is bigint => typeof field === "bigint");
      if (numbers.length !== parameter.fields.length) throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
      return ulongs(...numbers);
    }
    default:
      throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
  }
}

function parameterBytes(value: unknown): Buffer {
  if (value !== null && !Buffer.isBuffer(value)) throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
  return inputBytes(value);
}

/** CK_ULONGs side by side, as a C struct has them on a 64-bit little-endian machine. */
function ulongs(...values: readonly unknown[]): Buffer {
  return Buffer.concat(values.map((value) => handleBytes(value, CKR.CKR_MECHANISM_PARAM_INVALID)));
}

/** pkcs11js reads these through a double. */
function safe(value: unknown): number {
  if (typeof value !== "bigint" || value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID);
  return Number(value);
}
