/*
 * Attribute names and kinds, and helpers that make and read attributes. Values are native (see types.ts): numbers are
 * 8 bytes little-endian. Pure data.
 *
 * Source: map_attribute_to_value_type of p11-kit 0.26.4 (rpc-message.c). The kind decides the wire form, so a type that
 * is not listed travels as bytes even when PKCS#11 says it is a number.
 */
import type { Attribute } from "./types.js";

/** How p11-kit carries an attribute: see protocol/p11kit-rpc.md, "attribute". */
export type AttributeKind = "bool" | "ulong" | "bytes" | "template" | "mechanisms" | "date";

const ROWS = [
  [0x0, "CKA_CLASS", "ulong"],
  [0x1, "CKA_TOKEN", "bool"],
  [0x2, "CKA_PRIVATE", "bool"],
  [0x3, "CKA_LABEL", "bytes"],
  [0x10, "CKA_APPLICATION", "bytes"],
  [0x11, "CKA_VALUE", "bytes"],
  [0x12, "CKA_OBJECT_ID", "bytes"],
  [0x80, "CKA_CERTIFICATE_TYPE", "ulong"],
  [0x81, "CKA_ISSUER", "bytes"],
  [0x82, "CKA_SERIAL_NUMBER", "bytes"],
  [0x83, "CKA_AC_ISSUER", "bytes"],
  [0x84, "CKA_OWNER", "bytes"],
  [0x85, "CKA_ATTR_TYPES", "bytes"],
  [0x86, "CKA_TRUSTED", "bool"],
  [0x87, "CKA_CERTIFICATE_CATEGORY", "ulong"],
  [0x88, "CKA_JAVA_MIDP_SECURITY_DOMAIN", "ulong"],
  [0x89, "CKA_URL", "bytes"],
  [0x8a, "CKA_HASH_OF_SUBJECT_PUBLIC_KEY", "bytes"],
  [0x8b, "CKA_HASH_OF_ISSUER_PUBLIC_KEY", "bytes"],
  [0x90, "CKA_CHECK_VALUE", "bytes"],
  [0x100, "CKA_KEY_TYPE", "ulong"],
  [0x101, "CKA_SUBJECT", "bytes"],
  [0x102, "CKA_ID", "bytes"],
  [0x103, "CKA_SENSITIVE", "bool"],
  [0x104, "CKA_ENCRYPT", "bool"],
  [0x105, "CKA_DECRYPT", "bool"],
  [0x106, "CKA_WRAP", "bool"],
  [0x107, "CKA_UNWRAP", "bool"],
  [0x108, "CKA_SIGN", "bool"],
  [0x109, "CKA_SIGN_RECOVER", "bool"],
  [0x10a, "CKA_VERIFY", "bool"],
  [0x10b, "CKA_VERIFY_RECOVER", "bool"],
  [0x10c, "CKA_DERIVE", "bool"],
  [0x110, "CKA_START_DATE", "date"],
  [0x111, "CKA_END_DATE", "date"],
  [0x120, "CKA_MODULUS", "bytes"],
  [0x121, "CKA_MODULUS_BITS", "ulong"],
  [0x122, "CKA_PUBLIC_EXPONENT", "bytes"],
  [0x123, "CKA_PRIVATE_EXPONENT", "bytes"],
  [0x124, "CKA_PRIME_1", "bytes"],
  [0x125, "CKA_PRIME_2", "bytes"],
  [0x126, "CKA_EXPONENT_1", "bytes"],
  [0x127, "CKA_EXPONENT_2", "bytes"],
  [0x128, "CKA_COEFFICIENT", "bytes"],
  [0x129, "CKA_PUBLIC_KEY_INFO", "bytes"],
  [0x130, "CKA_PRIME", "bytes"],
  [0x131, "CKA_SUBPRIME", "bytes"],
  [0x132, "CKA_BASE", "bytes"],
  [0x133, "CKA_PRIME_BITS", "ulong"],
  [0x134, "CKA_SUB_PRIME_BITS", "ulong"],
  [0x160, "CKA_VALUE_BITS", "ulong"],
  [0x161, "CKA_VALUE_LEN", "ulong"],
  [0x162, "CKA_EXTRACTABLE", "bool"],
  [0x163, "CKA_LOCAL", "bool"],
  [0x164, "CKA_NEVER_EXTRACTABLE", "bool"],
  [0x165, "CKA_ALWAYS_SENSITIVE", "bool"],
  [0x166, "CKA_KEY_GEN_MECHANISM", "ulong"],
  [0x170, "CKA_MODIFIABLE", "bool"],
  [0x171, "CKA_COPYABLE", "bool"],
  [0x180, "CKA_EC_PARAMS", "bytes"],
  [0x181, "CKA_EC_POINT", "bytes"],
  [0x200, "CKA_SECONDARY_AUTH", "bool"],
  [0x201, "CKA_AUTH_PIN_FLAGS", "ulong"],
  [0x202, "CKA_ALWAYS_AUTHENTICATE", "bool"],
  [0x210, "CKA_WRAP_WITH_TRUSTED", "bool"],
  [0x300, "CKA_HW_FEATURE_TYPE", "ulong"],
  [0x301, "CKA_RESET_ON_INIT", "bool"],
  [0x302, "CKA_HAS_RESET", "bool"],
  [0x400, "CKA_PIXEL_X", "ulong"],
  [0x401, "CKA_PIXEL_Y", "ulong"],
  [0x402, "CKA_RESOLUTION", "ulong"],
  [0x403, "CKA_CHAR_ROWS", "ulong"],
  [0x404, "CKA_CHAR_COLUMNS", "ulong"],
  [0x405, "CKA_COLOR", "bool"],
  [0x406, "CKA_BITS_PER_PIXEL", "ulong"],
  [0x480, "CKA_CHAR_SETS", "bytes"],
  [0x481, "CKA_ENCODING_METHODS", "bytes"],
  [0x482, "CKA_MIME_TYPES", "bytes"],
  [0x500, "CKA_MECHANISM_TYPE", "ulong"],
  [0x501, "CKA_REQUIRED_CMS_ATTRIBUTES", "bytes"],
  [0x502, "CKA_DEFAULT_CMS_ATTRIBUTES", "bytes"],
  [0x503, "CKA_SUPPORTED_CMS_ATTRIBUTES", "bytes"],
  [0x40000211, "CKA_WRAP_TEMPLATE", "template"],
  [0x40000212, "CKA_UNWRAP_TEMPLATE", "template"],
  [0x40000213, "CKA_DERIVE_TEMPLATE", "template"],
  [0x40000600, "CKA_ALLOWED_MECHANISMS", "mechanisms"],
  [0x80000001, "CKA_IBM_OPAQUE", "bytes"],
  [0x80000003, "CKA_IBM_OPAQUE_REENC", "bytes"],
  [0x80000004, "CKA_IBM_OPAQUE_OLD", "bytes"],
  [0x8000000e, "CKA_IBM_KYBER_MODE", "bytes"],
  [0x80000010, "CKA_IBM_DILITHIUM_MODE", "bytes"],
  [0x80010001, "CKA_IBM_RESTRICTABLE", "bool"],
  [0x80010002, "CKA_IBM_NEVER_MODIFIABLE", "bool"],
  [0x80010003, "CKA_IBM_RETAINKEY", "bool"],
  [0x80010004, "CKA_IBM_ATTRBOUND", "bool"],
  [0x80010005, "CKA_IBM_KEYTYPE", "ulong"],
  [0x80010006, "CKA_IBM_CV", "bytes"],
  [0x80010007, "CKA_IBM_MACKEY", "bytes"],
  [0x80010008, "CKA_IBM_USE_AS_DATA", "bool"],
  [0x80010009, "CKA_IBM_STRUCT_PARAMS", "bytes"],
  [0x8001000a, "CKA_IBM_STD_COMPLIANCE1", "ulong"],
  [0x8001000c, "CKA_IBM_PROTKEY_EXTRACTABLE", "bool"],
  [0x8001000d, "CKA_IBM_PROTKEY_NEVER_EXTRACTABLE", "bool"],
  [0x800d0001, "CKA_IBM_DILITHIUM_KEYFORM", "ulong"],
  [0x800d0002, "CKA_IBM_DILITHIUM_RHO", "bytes"],
  [0x800d0003, "CKA_IBM_DILITHIUM_SEED", "bytes"],
  [0x800d0004, "CKA_IBM_DILITHIUM_TR", "bytes"],
  [0x800d0005, "CKA_IBM_DILITHIUM_S1", "bytes"],
  [0x800d0006, "CKA_IBM_DILITHIUM_S2", "bytes"],
  [0x800d0007, "CKA_IBM_DILITHIUM_T0", "bytes"],
  [0x800d0008, "CKA_IBM_DILITHIUM_T1", "bytes"],
  [0x800d0009, "CKA_IBM_KYBER_KEYFORM", "ulong"],
  [0x800d000a, "CKA_IBM_KYBER_PK", "bytes"],
  [0x800d000b, "CKA_IBM_KYBER_SK", "bytes"],
  [0x800d0100, "CKA_IBM_OPAQUE_PKEY", "bytes"],
  [0x800d0101, "CKA_IBM_CCA_AES_KEY_MODE", "ulong"],
  [0xce534372, "CKA_NSS_MOZILLA_CA_POLICY", "bytes"],
  [0xce534373, "CKA_NSS_SERVER_DISTRUST_AFTER", "bytes"],
  [0xce534374, "CKA_NSS_EMAIL_DISTRUST_AFTER", "bytes"],
  [0xd8444764, "CKA_X_DISTRUSTED", "bytes"],
] as const satisfies readonly (readonly [number, string, AttributeKind])[];

type AttributeName = (typeof ROWS)[number][1];

const NAMES: ReadonlyMap<number, string> = new Map(ROWS.map(([type, name]) => [type, name]));
const KINDS: ReadonlyMap<number, AttributeKind> = new Map(ROWS.map(([type, _name, kind]) => [type, kind]));

/** CKA_ constants by name. */
export const CKA = Object.fromEntries(ROWS.map(([type, name]) => [name, type])) as Readonly<Record<AttributeName, number>>;

/** The kind of an attribute; `bytes` for every type that is not in the table. */
export function attributeKind(type: number): AttributeKind {
  return KINDS.get(type) ?? "bytes";
}

/** The CKA_ name, or `0x...` where there is none. */
export function attributeName(type: number): string {
  return NAMES.get(type) ?? `0x${type.toString(16)}`;
}

/** An attribute with a value of bytes; it keeps the buffer. */
export function bytesAttribute(type: number, value: Buffer): Attribute {
  return { type, value, length: value.length };
}

/** A CK_BBOOL attribute. */
export function boolAttribute(type: number, value: boolean): Attribute {
  return bytesAttribute(type, Buffer.from([value ? 1 : 0]));
}

/** A CK_ULONG attribute: 8 bytes, little-endian. */
export function ulongAttribute(type: number, value: number | bigint): Attribute {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytesAttribute(type, bytes);
}

/** An attribute that could not be read: no value, length -1. */
export function unavailableAttribute(type: number): Attribute {
  return { type, value: null, length: -1 };
}

/** The bytes of the first attribute of this type; undefined where it is absent, unavailable or a template. */
export function findBytes(attributes: readonly Attribute[], type: number): Buffer | undefined {
  const value = attributes.find((attribute) => attribute.type === type)?.value;
  return Buffer.isBuffer(value) ? value : undefined;
}

/** The number in the first attribute of this type; undefined where it is absent or not of 8 bytes. */
export function findUlong(attributes: readonly Attribute[], type: number): bigint | undefined {
  const bytes = findBytes(attributes, type);
  return bytes?.length === 8 ? bytes.readBigUInt64LE() : undefined;
}

/** The truth value of the first attribute of this type; undefined where it is absent. Any non-zero byte is true. */
export function findBool(attributes: readonly Attribute[], type: number): boolean | undefined {
  const bytes = findBytes(attributes, type);
  return bytes?.length === 1 ? bytes[0] !== 0 : undefined;
}
