/*
 * Mechanism names, and how p11-kit carries the parameter of each. A mechanism that is not in this table is legal: it
 * has no name and its parameter travels as opaque bytes. Pure data.
 *
 * Source: the mechanism lists of p11-kit 0.24.1, 0.25.5 and 0.26.4 (rpc-message.c); names from PKCS#11 v2.40 and v3.0.
 */

/**
 * The shape of a mechanism's parameter on the p11-kit wire. `none` takes none; `iv16` and `iv8` are byte strings of
 * exactly that length; `bytes` a byte string; the `ibm-` ones are vendor structs. null: p11-kit up to 0.26.4 does not
 * know the mechanism, its stock client never sends it, and a parameter goes as bytes.
 */
export type ParameterShape =
  | "none"
  | "bytes"
  | "iv8"
  | "iv16"
  | "rsa-pss"
  | "rsa-oaep"
  | "ecdh1"
  | "aes-ctr"
  | "gcm"
  | "mac-general"
  | "ibm-attrbound-wrap"
  | "ibm-ecdsa-other"
  | "ibm-btc-derive"
  | "ibm-kyber"
  | null;

/** CKM_ value, name, shape, and the protocol version of the first stock client that sends it (null: none does). */
const ROWS = [
  [0x0, "CKM_RSA_PKCS_KEY_PAIR_GEN", "none", 0],
  [0x1, "CKM_RSA_PKCS", "none", 0],
  [0x2, "CKM_RSA_9796", "none", 0],
  [0x3, "CKM_RSA_X_509", "none", 0],
  [0x4, "CKM_MD2_RSA_PKCS", "none", 0],
  [0x5, "CKM_MD5_RSA_PKCS", "none", 0],
  [0x6, "CKM_SHA1_RSA_PKCS", "none", 0],
  [0x7, "CKM_RIPEMD128_RSA_PKCS", "none", 0],
  [0x8, "CKM_RIPEMD160_RSA_PKCS", "none", 0],
  [0x9, "CKM_RSA_PKCS_OAEP", "rsa-oaep", 0],
  [0xa, "CKM_RSA_X9_31_KEY_PAIR_GEN", "none", 0],
  [0xb, "CKM_RSA_X9_31", "none", 0],
  [0xc, "CKM_SHA1_RSA_X9_31", "none", 0],
  [0xd, "CKM_RSA_PKCS_PSS", "rsa-pss", 0],
  [0xe, "CKM_SHA1_RSA_PKCS_PSS", "rsa-pss", 1],
  [0x10, "CKM_DSA_KEY_PAIR_GEN", "none", 0],
  [0x11, "CKM_DSA", "none", 0],
  [0x12, "CKM_DSA_SHA1", "none", 0],
  [0x20, "CKM_DH_PKCS_KEY_PAIR_GEN", "none", 0],
  [0x21, "CKM_DH_PKCS_DERIVE", "bytes", 1],
  [0x30, "CKM_X9_42_DH_KEY_PAIR_GEN", "none", 0],
  [0x40, "CKM_SHA256_RSA_PKCS", "none", 0],
  [0x41, "CKM_SHA384_RSA_PKCS", "none", 0],
  [0x42, "CKM_SHA512_RSA_PKCS", "none", 0],
  [0x43, "CKM_SHA256_RSA_PKCS_PSS", "rsa-pss", 1],
  [0x44, "CKM_SHA384_RSA_PKCS_PSS", "rsa-pss", 1],
  [0x45, "CKM_SHA512_RSA_PKCS_PSS", "rsa-pss", 1],
  [0x46, "CKM_SHA224_RSA_PKCS", "none", 1],
  [0x47, "CKM_SHA224_RSA_PKCS_PSS", "rsa-pss", 1],
  [0x48, "CKM_SHA512_224", "none", 1],
  [0x49, "CKM_SHA512_224_HMAC", "none", 1],
  [0x4a, "CKM_SHA512_224_HMAC_GENERAL", "mac-general", 1],
  [0x4b, "CKM_SHA512_224_KEY_DERIVATION", "none", 1],
  [0x4c, "CKM_SHA512_256", "none", 1],
  [0x4d, "CKM_SHA512_256_HMAC", "none", 1],
  [0x4e, "CKM_SHA512_256_HMAC_GENERAL", "mac-general", 1],
  [0x4f, "CKM_SHA512_256_KEY_DERIVATION", "none", 1],
  [0x50, "CKM_SHA512_T", "none", 1],
  [0x51, "CKM_SHA512_T_HMAC", "none", 1],
  [0x53, "CKM_SHA512_T_KEY_DERIVATION", "none", 1],
  [0x60, "CKM_SHA3_256_RSA_PKCS", null, null],
  [0x100, "CKM_RC2_KEY_GEN", "none", 0],
  [0x101, "CKM_RC2_ECB", "none", 0],
  [0x103, "CKM_RC2_MAC", "none", 0],
  [0x110, "CKM_RC4_KEY_GEN", "none", 0],
  [0x111, "CKM_RC4", "none", 0],
  [0x120, "CKM_DES_KEY_GEN", "none", 0],
  [0x121, "CKM_DES_ECB", "none", 0],
  [0x122, "CKM_DES_CBC", "iv8", 1],
  [0x123, "CKM_DES_MAC", "none", 0],
  [0x125, "CKM_DES_CBC_PAD", "iv8", 1],
  [0x130, "CKM_DES2_KEY_GEN", "none", 0],
  [0x131, "CKM_DES3_KEY_GEN", "none", 0],
  [0x132, "CKM_DES3_ECB", "none", 0],
  [0x133, "CKM_DES3_CBC", "iv8", 1],
  [0x134, "CKM_DES3_MAC", "none", 0],
  [0x135, "CKM_DES3_MAC_GENERAL", "mac-general", 1],
  [0x136, "CKM_DES3_CBC_PAD", "iv8", 1],
  [0x137, "CKM_DES3_CMAC_GENERAL", "mac-general", 1],
  [0x138, "CKM_DES3_CMAC", "none", 1],
  [0x140, "CKM_CDMF_KEY_GEN", "none", 0],
  [0x141, "CKM_CDMF_ECB", "none", 0],
  [0x143, "CKM_CDMF_MAC", "none", 0],
  [0x150, "CKM_DES_OFB64", "iv8", 1],
  [0x152, "CKM_DES_CFB64", "iv8", 1],
  [0x153, "CKM_DES_CFB8", "iv8", 1],
  [0x200, "CKM_MD2", "none", 0],
  [0x201, "CKM_MD2_HMAC", "none", 0],
  [0x210, "CKM_MD5", "none", 0],
  [0x211, "CKM_MD5_HMAC", "none", 0],
  [0x220, "CKM_SHA_1", "none", 0],
  [0x221, "CKM_SHA_1_HMAC", "none", 0],
  [0x222, "CKM_SHA_1_HMAC_GENERAL", "mac-general", 1],
  [0x230, "CKM_RIPEMD128", "none", 0],
  [0x231, "CKM_RIPEMD128_HMAC", "none", 0],
  [0x240, "CKM_RIPEMD160", "none", 0],
  [0x241, "CKM_RIPEMD160_HMAC", "none", 0],
  [0x250, "CKM_SHA256", "none", 0],
  [0x251, "CKM_SHA256_HMAC", "none", 0],
  [0x252, "CKM_SHA256_HMAC_GENERAL", "mac-general", 1],
  [0x255, "CKM_SHA224", "none", 1],
  [0x256, "CKM_SHA224_HMAC", "none", 1],
  [0x257, "CKM_SHA224_HMAC_GENERAL", "mac-general", 1],
  [0x260, "CKM_SHA384", "none", 0],
  [0x261, "CKM_SHA384_HMAC", "none", 0],
  [0x262, "CKM_SHA384_HMAC_GENERAL", "mac-general", 1],
  [0x270, "CKM_SHA512", "none", 0],
  [0x271, "CKM_SHA512_HMAC", "none", 0],
  [0x272, "CKM_SHA512_HMAC_GENERAL", "mac-general", 1],
  [0x2b0, "CKM_SHA3_256", null, null],
  [0x2b5, "CKM_SHA3_224", null, null],
  [0x2c0, "CKM_SHA3_384", null, null],
  [0x2d0, "CKM_SHA3_512", null, null],
  [0x300, "CKM_CAST_KEY_GEN", "none", 0],
  [0x301, "CKM_CAST_ECB", "none", 0],
  [0x303, "CKM_CAST_MAC", "none", 0],
  [0x310, "CKM_CAST3_KEY_GEN", "none", 0],
  [0x311, "CKM_CAST3_ECB", "none", 0],
  [0x313, "CKM_CAST3_MAC", "none", 0],
  [0x320, "CKM_CAST128_KEY_GEN", "none", 0],
  [0x321, "CKM_CAST128_ECB", "none", 0],
  [0x330, "CKM_RC5_KEY_GEN", "none", 0],
  [0x331, "CKM_RC5_ECB", "none", 0],
  [0x333, "CKM_RC5_MAC", "none", 0],
  [0x340, "CKM_IDEA_KEY_GEN", "none", 0],
  [0x341, "CKM_IDEA_ECB", "none", 0],
  [0x343, "CKM_IDEA_MAC", "none", 0],
  [0x350, "CKM_GENERIC_SECRET_KEY_GEN", "none", 0],
  [0x360, "CKM_CONCATENATE_BASE_AND_KEY", null, null],
  [0x362, "CKM_CONCATENATE_BASE_AND_DATA", null, null],
  [0x363, "CKM_CONCATENATE_DATA_AND_BASE", null, null],
  [0x370, "CKM_SSL3_PRE_MASTER_KEY_GEN", "none", 0],
  [0x374, "CKM_TLS_PRE_MASTER_KEY_GEN", "none", 0],
  [0x380, "CKM_SSL3_MD5_MAC", "none", 0],
  [0x381, "CKM_SSL3_SHA1_MAC", "none", 0],
  [0x392, "CKM_SHA1_KEY_DERIVATION", "none", 1],
  [0x393, "CKM_SHA256_KEY_DERIVATION", "none", 1],
  [0x394, "CKM_SHA384_KEY_DERIVATION", "none", 1],
  [0x395, "CKM_SHA512_KEY_DERIVATION", "none", 1],
  [0x396, "CKM_SHA224_KEY_DERIVATION", "none", 1],
  [0x400, "CKM_KEY_WRAP_LYNKS", "none", 0],
  [0x1000, "CKM_SKIPJACK_KEY_GEN", "none", 0],
  [0x1008, "CKM_SKIPJACK_WRAP", "none", 0],
  [0x1010, "CKM_KEA_KEY_PAIR_GEN", "none", 0],
  [0x1020, "CKM_FORTEZZA_TIMESTAMP", "none", 0],
  [0x1030, "CKM_BATON_KEY_GEN", "none", 0],
  [0x1036, "CKM_BATON_WRAP", "none", 0],
  [0x1040, "CKM_EC_KEY_PAIR_GEN", "none", 0],
  [0x1041, "CKM_ECDSA", "none", 0],
  [0x1042, "CKM_ECDSA_SHA1", "none", 0],
  [0x1043, "CKM_ECDSA_SHA224", "none", 1],
  [0x1044, "CKM_ECDSA_SHA256", "none", 1],
  [0x1045, "CKM_ECDSA_SHA384", "none", 1],
  [0x1046, "CKM_ECDSA_SHA512", "none", 1],
  [0x1048, "CKM_ECDSA_SHA3_256", null, null],
  [0x1050, "CKM_ECDH1_DERIVE", "ecdh1", 1],
  [0x1051, "CKM_ECDH1_COFACTOR_DERIVE", null, null],
  [0x1055, "CKM_EC_EDWARDS_KEY_PAIR_GEN", null, null],
  [0x1056, "CKM_EC_MONTGOMERY_KEY_PAIR_GEN", null, null],
  [0x1057, "CKM_EDDSA", null, null],
  [0x1058, "CKM_XEDDSA", null, null],
  [0x1060, "CKM_JUNIPER_KEY_GEN", "none", 0],
  [0x1065, "CKM_JUNIPER_WRAP", "none", 0],
  [0x1070, "CKM_FASTHASH", "none", 0],
  [0x1080, "CKM_AES_KEY_GEN", "none", 0],
  [0x1081, "CKM_AES_ECB", "none", 0],
  [0x1082, "CKM_AES_CBC", "iv16", 1],
  [0x1083, "CKM_AES_MAC", "none", 0],
  [0x1084, "CKM_AES_MAC_GENERAL", "mac-general", 1],
  [0x1085, "CKM_AES_CBC_PAD", "iv16", 1],
  [0x1086, "CKM_AES_CTR", "aes-ctr", 1],
  [0x1087, "CKM_AES_GCM", "gcm", 1],
  [0x1089, "CKM_AES_CTS", "iv16", 1],
  [0x108a, "CKM_AES_CMAC", "none", 1],
  [0x108b, "CKM_AES_CMAC_GENERAL", "mac-general", 1],
  [0x1100, "CKM_DES_ECB_ENCRYPT_DATA", null, null],
  [0x1101, "CKM_DES_CBC_ENCRYPT_DATA", null, null],
  [0x1102, "CKM_DES3_ECB_ENCRYPT_DATA", null, null],
  [0x1103, "CKM_DES3_CBC_ENCRYPT_DATA", null, null],
  [0x1104, "CKM_AES_ECB_ENCRYPT_DATA", null, null],
  [0x1105, "CKM_AES_CBC_ENCRYPT_DATA", null, null],
  [0x2000, "CKM_DSA_PARAMETER_GEN", "none", 0],
  [0x2001, "CKM_DH_PKCS_PARAMETER_GEN", "none", 0],
  [0x2002, "CKM_X9_42_DH_PARAMETER_GEN", "none", 0],
  [0x2104, "CKM_AES_OFB", "iv16", 1],
  [0x2105, "CKM_AES_CFB64", "iv16", 1],
  [0x2106, "CKM_AES_CFB8", "iv16", 1],
  [0x2107, "CKM_AES_CFB128", "iv16", 1],
  [0x2108, "CKM_AES_CFB1", "iv16", 1],
  [0x2109, "CKM_AES_KEY_WRAP", null, null],
  [0x210a, "CKM_AES_KEY_WRAP_PAD", null, null],
  [0x210b, "CKM_AES_KEY_WRAP_KWP", null, null],
  [0x4021, "CKM_CHACHA20_POLY1305", null, null],
  [0x402a, "CKM_HKDF_DERIVE", null, null],
  [0x80010001, "CKM_IBM_SHA3_224", "none", 1],
  [0x80010002, "CKM_IBM_SHA3_256", "none", 1],
  [0x80010003, "CKM_IBM_SHA3_384", "none", 1],
  [0x80010004, "CKM_IBM_SHA3_512", "none", 1],
  [0x80010007, "CKM_IBM_CMAC", "none", 1],
  [0x8001001b, "CKM_IBM_EC_X25519", "ecdh1", 1],
  [0x8001001c, "CKM_IBM_ED25519_SHA512", "none", 1],
  [0x8001001e, "CKM_IBM_EC_X448", "ecdh1", 1],
  [0x8001001f, "CKM_IBM_ED448_SHA3", "none", 1],
  [0x80010023, "CKM_IBM_DILITHIUM", "none", 1],
  [0x80010024, "CKM_IBM_KYBER", "ibm-kyber", 2],
  [0x80010025, "CKM_IBM_SHA3_224_HMAC", "none", 1],
  [0x80010026, "CKM_IBM_SHA3_256_HMAC", "none", 1],
  [0x80010027, "CKM_IBM_SHA3_384_HMAC", "none", 1],
  [0x80010028, "CKM_IBM_SHA3_512_HMAC", "none", 1],
  [0x80010031, "CKM_IBM_ECDSA_OTHER", "ibm-ecdsa-other", 2],
  [0x80020004, "CKM_IBM_ATTRIBUTEBOUND_WRAP", "ibm-attrbound-wrap", 1],
  [0x80070001, "CKM_IBM_BTC_DERIVE", "ibm-btc-derive", 2],
] as const satisfies readonly (readonly [number, string, ParameterShape, 0 | 1 | 2 | null])[];

type MechanismName = (typeof ROWS)[number][1];

/** One mechanism of the table. `stockSince` is the p11-kit protocol version whose client first sends it. */
export interface MechanismRow {
  readonly type: number;
  readonly name: string;
  readonly shape: ParameterShape;
  readonly stockSince: 0 | 1 | 2 | null;
}

/** Every known mechanism, by CKM_ value. */
export const MECHANISMS: ReadonlyMap<number, MechanismRow> = new Map(
  ROWS.map(([type, name, shape, stockSince]) => [type, { type, name, shape, stockSince }]),
);

/** CKM_ constants by name. */
export const CKM = Object.fromEntries(ROWS.map(([type, name]) => [name, type])) as Readonly<Record<MechanismName, number>>;

/** The CKM_ name, or `0x...` where there is none. */
export function mechanismName(type: number): string {
  return MECHANISMS.get(type)?.name ?? `0x${type.toString(16)}`;
}
