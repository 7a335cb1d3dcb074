/*
 * The numbers of PKCS#11 v2.40 that are neither a CK_RV, an attribute nor a mechanism. Pure data.
 */

/** Object classes. */
export const CKO = {
  CKO_DATA: 0n,
  CKO_CERTIFICATE: 1n,
  CKO_PUBLIC_KEY: 2n,
  CKO_PRIVATE_KEY: 3n,
  CKO_SECRET_KEY: 4n,
  CKO_HW_FEATURE: 5n,
  CKO_DOMAIN_PARAMETERS: 6n,
  CKO_MECHANISM: 7n,
} as const;

/** Key types. */
export const CKK = {
  CKK_RSA: 0n,
  CKK_DSA: 1n,
  CKK_DH: 2n,
  CKK_EC: 3n,
  CKK_GENERIC_SECRET: 0x10n,
  CKK_AES: 0x1fn,
  CKK_EC_EDWARDS: 0x40n,
  CKK_EC_MONTGOMERY: 0x41n,
} as const;

/** Certificate types. */
export const CKC = { CKC_X_509: 0n, CKC_X_509_ATTR_CERT: 1n, CKC_WTLS: 2n } as const;

/** User types of C_Login. */
export const CKU = { CKU_SO: 0n, CKU_USER: 1n, CKU_CONTEXT_SPECIFIC: 2n } as const;

/** Session states of C_GetSessionInfo. */
export const CKS = {
  CKS_RO_PUBLIC_SESSION: 0n,
  CKS_RO_USER_FUNCTIONS: 1n,
  CKS_RW_PUBLIC_SESSION: 2n,
  CKS_RW_USER_FUNCTIONS: 3n,
  CKS_RW_SO_FUNCTIONS: 4n,
} as const;

/** Flags of slots, tokens, sessions, mechanisms and C_Initialize; each name says in its comment where it applies. */
export const CKF = {
  // C_GetSlotInfo
  CKF_TOKEN_PRESENT: 0x1n,
  CKF_REMOVABLE_DEVICE: 0x2n,
  CKF_HW_SLOT: 0x4n,
  // C_GetTokenInfo
  CKF_RNG: 0x1n,
  CKF_WRITE_PROTECTED: 0x2n,
  CKF_LOGIN_REQUIRED: 0x4n,
  CKF_USER_PIN_INITIALIZED: 0x8n,
  CKF_PROTECTED_AUTHENTICATION_PATH: 0x100n,
  CKF_TOKEN_INITIALIZED: 0x400n,
  CKF_USER_PIN_COUNT_LOW: 0x10000n,
  CKF_USER_PIN_FINAL_TRY: 0x20000n,
  CKF_USER_PIN_LOCKED: 0x40000n,
  CKF_SO_PIN_COUNT_LOW: 0x100000n,
  CKF_SO_PIN_FINAL_TRY: 0x200000n,
  CKF_SO_PIN_LOCKED: 0x400000n,
  // C_OpenSession and C_GetSessionInfo
  CKF_RW_SESSION: 0x2n,
  CKF_SERIAL_SESSION: 0x4n,
  // C_GetMechanismInfo
  CKF_HW: 0x1n,
  CKF_ENCRYPT: 0x100n,
  CKF_DECRYPT: 0x200n,
  CKF_DIGEST: 0x400n,
  CKF_SIGN: 0x800n,
  CKF_VERIFY: 0x2000n,
  CKF_GENERATE_KEY_PAIR: 0x10000n,
  CKF_DERIVE: 0x80000n,
  // C_Initialize and C_WaitForSlotEvent
  CKF_OS_LOCKING_OK: 0x2n,
  CKF_DONT_BLOCK: 0x1n,
} as const;

/** CK_UNAVAILABLE_INFORMATION and CK_EFFECTIVELY_INFINITE's opposite: all bits of a CK_ULONG. */
export const CK_UNAVAILABLE_INFORMATION = 0xffffffffffffffffn;
