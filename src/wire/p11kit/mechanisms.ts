/*
 * Mechanisms and mechanism updates on the p11-kit wire, in both dialects. p11-kit 0.25.6 changed the form of a mechanism
 * without tying it to the version it negotiates; which dialect a peer speaks is told by its version byte.
 * See protocol/p11kit-rpc.md, "Mechanisms".
 */
import type { Reader, Writer } from "../../base/bytes.js";
import { MECHANISMS, type ParameterShape } from "../../cryptoki/mechanisms.js";
import { CKR } from "../../cryptoki/rv.js";
import type { Mechanism, MechanismParameter, MechanismUpdate } from "../../cryptoki/types.js";
import { Refusal } from "./limits.js";
import { readByteArray, readBytes, writeByteArray } from "./values.js";

/** How mechanisms are written: `legacy` up to p11-kit 0.25.5 (version byte 0 or 1), `new` from 0.25.6 on (2). */
export type Dialect = "legacy" | "new";

/** The dialect that goes with a version byte: the one a client offered, or the one a server answered. */
export function dialectOfVersion(version: number): Dialect {
  return version >= 2 ? "new" : "legacy";
}

/**
 * How a new-dialect mechanism outside our table is read: `flagged` has a parameter byte, `bare` has nothing at all (the
 * peer's release lists it as taking no parameter).
 */
export type UnlistedForm = "flagged" | "bare";

const NULL_MECHANISM = 0xffffffff;
const CTR_BLOCK_BYTES = 16;
const KYBER_ENCAPSULATE = 1;

type IbmField = "u64" | "u8" | "ba";
const IBM_FIELDS: ReadonlyMap<ParameterShape, readonly IbmField[]> = new Map<ParameterShape, readonly IbmField[]>([
  ["ibm-attrbound-wrap", ["u64"]],
  ["ibm-ecdsa-other", ["u64"]],
  ["ibm-btc-derive", ["u64", "u64", "ba", "u64"]],
  ["ibm-kyber", ["u64", "u64", "u64", "u8", "ba", "ba", "u64"]],
]);

function shapeOf(type: number, dialect: Dialect): ParameterShape {
  const row = MECHANISMS.get(type);
  if (row === undefined) return null;
  // No legacy release knows the mechanisms that came with the new dialect: there they are bytes like any unknown one.
  return dialect === "legacy" && row.stockSince === 2 ? null : row.shape;
}

/**
 * Writes an `M`; null is a NULL mechanism pointer. Throws Refusal CKR_MECHANISM_PARAM_INVALID for a parameter that this
 * dialect cannot carry for this mechanism.
 */
export function writeMechanism(writer: Writer, mechanism: Mechanism | null, dialect: Dialect): void {
  if (mechanism === null) {
    writer.u32(NULL_MECHANISM);
    return;
  }
  const { type, parameter } = mechanism;
  const shape = shapeOf(type, dialect);
  writer.u32(type);
  if (dialect === "new") {
    if (shape === "none") {
      if (parameter !== null) throw unfit();
      return;
    }
    writer.u8(parameter === null ? 0 : 1);
    if (parameter !== null) writeParameter(writer, shape, parameter);
  } else if (parameter !== null) writeParameter(writer, shape, parameter);
  else if (isByteShape(shape)) writeByteArray(writer, null);
  else throw unfit();
}

/** Reads an `M`. Throws Refusal CKR_MECHANISM_PARAM_INVALID for a counter block that is not of 16 bytes. */
export function readMechanism(reader: Reader, dialect: Dialect, unlisted: UnlistedForm): Mechanism | null {
  const type = reader.u32("mechanism type");
  if (type === NULL_MECHANISM) return null;
  const shape = shapeOf(type, dialect);
  if (dialect === "legacy") return { type, parameter: readParameter(reader, shape) };
  if (shape === "none" || (shape === null && unlisted === "bare")) return { type, parameter: null };
  return { type, parameter: readFlag(reader) ? readParameter(reader, shape) : null };
}

/** Writes a `P`, what the module wrote back into the parameter of the mechanism of the request. */
export function writeUpdate(writer: Writer, update: MechanismUpdate | null, mechanism: Mechanism | null): void {
  const shape = mechanism === null ? "none" : shapeOf(mechanism.type, "new");
  if (shape === "none") return;
  const carriesBytes = shape === "ibm-btc-derive" || shape === "ibm-kyber";
  const present = update !== null && (!carriesBytes || update.bytes !== null);
  writer.u8(present ? 1 : 0);
  if (present && carriesBytes && update.bytes !== null) writer.bytes(update.bytes);
}

/** Reads a `P`. `bytes` holds the update as it came, for the two mechanisms that have one. */
export function readUpdate(reader: Reader, mechanism: Mechanism | null): MechanismUpdate | null {
  const shape = mechanism === null ? "none" : shapeOf(mechanism.type, "new");
  if (mechanism === null || shape === "none" || !readFlag(reader)) return null;
  const { type } = mechanism;
  if (shape === "ibm-btc-derive") return { type, bytes: readRawUpdate(reader) };
  if (shape === "ibm-kyber") {
    const mode = reader.u8("update mode");
    const modeByte = Buffer.from([mode]);
    return { type, bytes: mode === KYBER_ENCAPSULATE ? Buffer.concat([modeByte, readRawUpdate(reader)]) : modeByte };
  }
  return { type, bytes: null };
}

function readRawUpdate(reader: Reader): Buffer {
  const value = readBytes(reader, "update");
  const head = Buffer.alloc(5);
  if (Buffer.isBuffer(value)) {
    head[0] = 1;
    head.writeUInt32BE(value.length, 1);
    return Buffer.concat([head, value]);
  }
  if (value === null) return Buffer.from([1, 0xff, 0xff, 0xff, 0xff]);
  head.writeUInt32BE(value, 1);
  return head;
}

function readFlag(reader: Reader): boolean {
  const flag = reader.u8("parameter flag");
  if (flag > 1) throw reader.malformed(`parameter flag ${flag}`);
  return flag === 1;
}

function isByteShape(shape: ParameterShape): boolean {
  return shape === null || shape === "none" || shape === "bytes" || shape === "iv8" || shape === "iv16";
}

function unfit(): Refusal {
  return new Refusal(CKR.CKR_MECHANISM_PARAM_INVALID, "mechanism parameter that the wire cannot carry");
}

function writeParameter(writer: Writer, shape: ParameterShape, parameter: MechanismParameter): void {
  if (isByteShape(shape)) {
    if (parameter.kind !== "bytes") throw unfit();
    const exact = shape === "iv8" ? 8 : shape === "iv16" ? 16 : parameter.bytes.length;
    if (parameter.bytes.length !== exact) throw unfit();
    writeByteArray(writer, parameter.bytes);
    return;
  }
  const fields = IBM_FIELDS.get(shape);
  if (fields !== undefined) {
    writeIbm(writer, fields, parameter);
    return;
  }
  if (parameter.kind !== shape) throw unfit();
  switch (parameter.kind) {
    case "rsa-pss":
      writer.u64(parameter.hashAlg);
      writer.u64(parameter.mgf);
      writer.u64(parameter.saltLength);
      break;
    case "rsa-oaep":
      writer.u64(parameter.hashAlg);
      writer.u64(parameter.mgf);
      writer.u64(parameter.source);
      writeByteArray(writer, parameter.sourceData);
      break;
    case "ecdh1":
      writer.u64(parameter.kdf);
      writeByteArray(writer, parameter.sharedData);
      writeByteArray(writer, parameter.publicData);
      break;
    case "aes-ctr":
      if (parameter.counterBlock.length !== CTR_BLOCK_BYTES) throw unfit();
      writer.u64(parameter.counterBits);
      writeByteArray(writer, parameter.counterBlock);
      break;
    case "gcm":
      writeByteArray(writer, parameter.iv);
      writer.u64(parameter.ivBits);
      writeByteArray(writer, parameter.aad);
      writer.u64(parameter.tagBits);
      break;
    case "mac-general":
      writer.u64(parameter.length);
      break;
    default:
      throw unfit();
  }
}

function readParameter(reader: Reader, shape: ParameterShape): MechanismParameter | null {
  const fields = IBM_FIELDS.get(shape);
  if (fields !== undefined) return { kind: "ibm", fields: fields.map((field) => readIbmField(reader, field)) };
  switch (shape) {
    case "rsa-pss":
      return { kind: shape, hashAlg: reader.u64("hashAlg"), mgf: reader.u64("mgf"), saltLength: reader.u64("sLen") };
    case "rsa-oaep":
      return {
        kind: shape,
        hashAlg: reader.u64("hashAlg"),
        mgf: reader.u64("mgf"),
        source: reader.u64("source"),
        sourceData: readByteArray(reader, "source data"),
      };
    case "ecdh1":
      return {
        kind: shape,
        kdf: reader.u64("kdf"),
        sharedData: readByteArray(reader, "shared data"),
        publicData: readByteArray(reader, "public data"),
      };
    case "aes-ctr": {
      const counterBits = reader.u64("counter bits");
      const counterBlock = readByteArray(reader, "counter block");
      if (counterBlock?.length !== CTR_BLOCK_BYTES) throw unfit();
      return { kind: shape, counterBits, counterBlock };
    }
    case "gcm":
      return {
        kind: shape,
        iv: readByteArray(reader, "iv"),
        ivBits: reader.u64("iv bits"),
        aad: readByteArray(reader, "aad"),
        tagBits: reader.u64("tag bits"),
      };
    case "mac-general":
      return { kind: shape, length: reader.u64("mac length") };
    default: {
      const bytes = readByteArray(reader, "mechanism parameter");
      return bytes === null ? null : { kind: "bytes", bytes };
    }
  }
}

function writeIbm(writer: Writer, fields: readonly IbmField[], parameter: MechanismParameter): void {
  if (parameter.kind !== "ibm" || parameter.fields.length !== fields.length) throw unfit();
  for (const [index, field] of fields.entries()) {
    const value = parameter.fields[index];
    if (field === "u64" && typeof value === "bigint") writer.u64(value);
    else if (field === "u8" && typeof value === "number") writer.u8(value);
    else if (field === "ba" && (value === null || Buffer.isBuffer(value))) writeByteArray(writer, value);
    else throw unfit();
  }
}

function readIbmField(reader: Reader, field: IbmField): bigint | number | Buffer | null {
  if (field === "u64") return reader.u64("parameter field");
  return field === "u8" ? reader.u8("parameter field") : readByteArray(reader, "parameter field");
}
