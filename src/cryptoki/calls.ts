/*
 * The calls table: every call of the p11-kit RPC, once. The codec, the policy, the session layer, the trace, the
 * fuzz seeds and the page in protocol/ are all derived from it; nothing else in the project lists calls.
 * Pure data: it must never import anything but types.
 *
 * Signatures are p11-kit's own (rpc-message.h, "calls" table of 0.26.4), see protocol/p11kit-rpc.md:
 *   y byte   u CK_ULONG   v version   s space-padded string   z zero string   M mechanism   P mechanism update
 *   ay bytes   au numbers   aA attributes   fy output room in bytes   fu output room in numbers   fA attribute query
 */

/**
 * What a call does, as far as a policy or a deadline needs to know.
 * `information` static facts; `session` book-keeping; `object` find and read; `login`; `sign` private-key signatures;
 * `verify`; `digest`; `random`; `encrypt`; `decrypt` private-key use that is not a signature (decrypt, derive);
 * `mutation` changes the token; `state` operation state and seeding, which leak or weaken.
 */
export type CallClass =
  | "information"
  | "session"
  | "object"
  | "login"
  | "sign"
  | "verify"
  | "digest"
  | "random"
  | "encrypt"
  | "decrypt"
  | "mutation"
  | "state";

/** Where in a multi-part operation a call stands. `once` and `final` finish it, `none` has no operation. */
export type CallPhase = "init" | "once" | "update" | "final" | "none";

interface Row {
  readonly id: number;
  readonly name: string;
  /** p11-kit request signature. */
  readonly request: string;
  /** Argument names, one per element of `request`. */
  readonly args: readonly string[];
  /** p11-kit response signature. */
  readonly response: string;
  /** Output names, one per element of `response`. An output named `rv` travels in-band. */
  readonly outs: readonly string[];
  readonly class: CallClass;
  readonly phase: CallPhase;
  /** The protocol version whose clients use it: 0, 1 (3.x calls, 0.25.0) or 2 (0.25.6). A server accepts all. */
  readonly since: 0 | 1 | 2;
}

function row<
  const N extends string,
  const Q extends string,
  const A extends readonly string[],
  const R extends string,
  const O extends readonly string[],
>(id: number, name: N, request: Q, args: A, response: R, outs: O, cls: CallClass, phase: CallPhase = "none", since: 0 | 1 | 2 = 0) {
  return { id, name, request, args, response, outs, class: cls, phase, since } as const;
}

const TOKEN_INFO = [
  "label",
  "manufacturer",
  "model",
  "serial",
  "flags",
  "maxSessionCount",
  "sessionCount",
  "maxRwSessionCount",
  "rwSessionCount",
  "maxPinLen",
  "minPinLen",
  "totalPublicMemory",
  "freePublicMemory",
  "totalPrivateMemory",
  "freePrivateMemory",
  "hardwareVersion",
  "firmwareVersion",
  "utcTime",
] as const;

/** All 89 calls in id order; `CALLS[i].id === i + 1`. */
export const CALLS = [
  row(1, "C_Initialize", "ayyay", ["handshake", "hasReserved", "reserved"], "", [], "session"),
  row(2, "C_Finalize", "", [], "", [], "session"),
  row(3, "C_GetInfo", "", [], "vsusv", ["cryptokiVersion", "manufacturer", "flags", "description", "libraryVersion"], "information"),
  row(4, "C_GetSlotList", "yfu", ["tokenPresent", "room"], "au", ["slots"], "information"),
  row(
    5,
    "C_GetSlotInfo",
    "u",
    ["slot"],
    "ssuvv",
    ["description", "manufacturer", "flags", "hardwareVersion", "firmwareVersion"],
    "information",
  ),
  row(6, "C_GetTokenInfo", "u", ["slot"], "ssssuuuuuuuuuuuvvs", TOKEN_INFO, "information"),
  row(7, "C_GetMechanismList", "ufu", ["slot", "room"], "au", ["mechanisms"], "information"),
  row(8, "C_GetMechanismInfo", "uu", ["slot", "mechanismType"], "uuu", ["minKeySize", "maxKeySize", "flags"], "information"),
  row(9, "C_InitToken", "uayz", ["slot", "pin", "label"], "", [], "mutation"),
  row(10, "C_OpenSession", "uu", ["slot", "flags"], "u", ["session"], "session"),
  row(11, "C_CloseSession", "u", ["session"], "", [], "session"),
  row(12, "C_CloseAllSessions", "u", ["slot"], "", [], "session"),
  row(13, "C_GetSessionInfo", "u", ["session"], "uuuu", ["slot", "state", "flags", "deviceError"], "session"),
  row(14, "C_InitPIN", "uay", ["session", "pin"], "", [], "mutation"),
  row(15, "C_SetPIN", "uayay", ["session", "oldPin", "newPin"], "", [], "mutation"),
  row(16, "C_GetOperationState", "ufy", ["session", "room"], "ay", ["state"], "state"),
  row(17, "C_SetOperationState", "uayuu", ["session", "state", "encryptionKey", "authenticationKey"], "", [], "state"),
  row(18, "C_Login", "uuay", ["session", "userType", "pin"], "", [], "login"),
  row(19, "C_Logout", "u", ["session"], "", [], "login"),
  row(20, "C_CreateObject", "uaA", ["session", "template"], "u", ["object"], "mutation"),
  row(21, "C_CopyObject", "uuaA", ["session", "object", "template"], "u", ["object"], "mutation"),
  row(22, "C_DestroyObject", "uu", ["session", "object"], "", [], "mutation"),
  row(23, "C_GetObjectSize", "uu", ["session", "object"], "u", ["size"], "object"),
  row(24, "C_GetAttributeValue", "uufA", ["session", "object", "query"], "aAu", ["attributes", "rv"], "object"),
  row(25, "C_SetAttributeValue", "uuaA", ["session", "object", "template"], "", [], "mutation"),
  row(26, "C_FindObjectsInit", "uaA", ["session", "template"], "", [], "object", "init"),
  row(27, "C_FindObjects", "ufu", ["session", "room"], "au", ["objects"], "object", "update"),
  row(28, "C_FindObjectsFinal", "u", ["session"], "", [], "object", "final"),
  row(29, "C_EncryptInit", "uMu", ["session", "mechanism", "key"], "", [], "encrypt", "init"),
  row(30, "C_Encrypt", "uayfy", ["session", "data", "room"], "ay", ["output"], "encrypt", "once"),
  row(31, "C_EncryptUpdate", "uayfy", ["session", "data", "room"], "ay", ["output"], "encrypt", "update"),
  row(32, "C_EncryptFinal", "ufy", ["session", "room"], "ay", ["output"], "encrypt", "final"),
  row(33, "C_DecryptInit", "uMu", ["session", "mechanism", "key"], "", [], "decrypt", "init"),
  row(34, "C_Decrypt", "uayfy", ["session", "data", "room"], "ay", ["output"], "decrypt", "once"),
  row(35, "C_DecryptUpdate", "uayfy", ["session", "data", "room"], "ay", ["output"], "decrypt", "update"),
  row(36, "C_DecryptFinal", "ufy", ["session", "room"], "ay", ["output"], "decrypt", "final"),
  row(37, "C_DigestInit", "uM", ["session", "mechanism"], "", [], "digest", "init"),
  row(38, "C_Digest", "uayfy", ["session", "data", "room"], "ay", ["output"], "digest", "once"),
  row(39, "C_DigestUpdate", "uay", ["session", "data"], "", [], "digest", "update"),
  row(40, "C_DigestKey", "uu", ["session", "key"], "", [], "decrypt", "update"),
  row(41, "C_DigestFinal", "ufy", ["session", "room"], "ay", ["output"], "digest", "final"),
  row(42, "C_SignInit", "uMu", ["session", "mechanism", "key"], "", [], "sign", "init"),
  row(43, "C_Sign", "uayfy", ["session", "data", "room"], "ay", ["output"], "sign", "once"),
  row(44, "C_SignUpdate", "uay", ["session", "data"], "", [], "sign", "update"),
  row(45, "C_SignFinal", "ufy", ["session", "room"], "ay", ["output"], "sign", "final"),
  row(46, "C_SignRecoverInit", "uMu", ["session", "mechanism", "key"], "", [], "sign", "init"),
  row(47, "C_SignRecover", "uayfy", ["session", "data", "room"], "ay", ["output"], "sign", "once"),
  row(48, "C_VerifyInit", "uMu", ["session", "mechanism", "key"], "", [], "verify", "init"),
  row(49, "C_Verify", "uayay", ["session", "data", "signature"], "", [], "verify", "once"),
  row(50, "C_VerifyUpdate", "uay", ["session", "data"], "", [], "verify", "update"),
  row(51, "C_VerifyFinal", "uay", ["session", "signature"], "", [], "verify", "final"),
  row(52, "C_VerifyRecoverInit", "uMu", ["session", "mechanism", "key"], "", [], "verify", "init"),
  row(53, "C_VerifyRecover", "uayfy", ["session", "signature", "room"], "ay", ["output"], "verify", "once"),
  row(54, "C_DigestEncryptUpdate", "uayfy", ["session", "data", "room"], "ay", ["output"], "encrypt", "update"),
  row(55, "C_DecryptDigestUpdate", "uayfy", ["session", "data", "room"], "ay", ["output"], "decrypt", "update"),
  row(56, "C_SignEncryptUpdate", "uayfy", ["session", "data", "room"], "ay", ["output"], "encrypt", "update"),
  row(57, "C_DecryptVerifyUpdate", "uayfy", ["session", "data", "room"], "ay", ["output"], "decrypt", "update"),
  row(58, "C_GenerateKey", "uMaA", ["session", "mechanism", "template"], "u", ["key"], "mutation"),
  row(
    59,
    "C_GenerateKeyPair",
    "uMaAaA",
    ["session", "mechanism", "publicTemplate", "privateTemplate"],
    "uu",
    ["publicKey", "privateKey"],
    "mutation",
  ),
  row(60, "C_WrapKey", "uMuufy", ["session", "mechanism", "wrappingKey", "key", "room"], "ay", ["output"], "mutation"),
  row(61, "C_UnwrapKey", "uMuayaA", ["session", "mechanism", "unwrappingKey", "data", "template"], "u", ["key"], "mutation"),
  row(62, "C_DeriveKey", "uMuaA", ["session", "mechanism", "baseKey", "template"], "u", ["key"], "decrypt", "once"),
  row(63, "C_SeedRandom", "uay", ["session", "seed"], "", [], "state"),
  row(64, "C_GenerateRandom", "ufy", ["session", "room"], "ay", ["output"], "random"),
  row(65, "C_WaitForSlotEvent", "u", ["flags"], "u", ["slot"], "information"),
  row(66, "C_LoginUser", "uuayay", ["session", "userType", "pin", "username"], "", [], "login", "none", 1),
  row(67, "C_SessionCancel", "uu", ["session", "flags"], "", [], "session", "none", 1),
  row(68, "C_MessageEncryptInit", "uMu", ["session", "mechanism", "key"], "", [], "encrypt", "init", 1),
  row(
    69,
    "C_EncryptMessage",
    "uayayayfy",
    ["session", "parameter", "associatedData", "data", "room"],
    "ay",
    ["output"],
    "encrypt",
    "once",
    1,
  ),
  row(70, "C_EncryptMessageBegin", "uayay", ["session", "parameter", "associatedData"], "", [], "encrypt", "update", 1),
  row(71, "C_EncryptMessageNext", "uayayfyu", ["session", "parameter", "data", "room", "flags"], "ay", ["output"], "encrypt", "update", 1),
  row(72, "C_MessageEncryptFinal", "u", ["session"], "", [], "encrypt", "final", 1),
  row(73, "C_MessageDecryptInit", "uMu", ["session", "mechanism", "key"], "", [], "decrypt", "init", 1),
  row(
    74,
    "C_DecryptMessage",
    "uayayayfy",
    ["session", "parameter", "associatedData", "data", "room"],
    "ay",
    ["output"],
    "decrypt",
    "once",
    1,
  ),
  row(75, "C_DecryptMessageBegin", "uayay", ["session", "parameter", "associatedData"], "", [], "decrypt", "update", 1),
  row(76, "C_DecryptMessageNext", "uayayfyu", ["session", "parameter", "data", "room", "flags"], "ay", ["output"], "decrypt", "update", 1),
  row(77, "C_MessageDecryptFinal", "u", ["session"], "", [], "decrypt", "final", 1),
  row(78, "C_MessageSignInit", "uMu", ["session", "mechanism", "key"], "", [], "sign", "init", 1),
  row(79, "C_SignMessage", "uayayfy", ["session", "parameter", "data", "room"], "ay", ["output"], "sign", "once", 1),
  row(80, "C_SignMessageBegin", "uay", ["session", "parameter"], "", [], "sign", "update", 1),
  row(
    81,
    "C_SignMessageNext",
    "uayayyfy",
    ["session", "parameter", "data", "wantsSignature", "room"],
    "ay",
    ["output"],
    "sign",
    "update",
    1,
  ),
  row(82, "C_MessageSignFinal", "u", ["session"], "", [], "sign", "final", 1),
  row(83, "C_MessageVerifyInit", "uMu", ["session", "mechanism", "key"], "", [], "verify", "init", 1),
  row(84, "C_VerifyMessage", "uayayay", ["session", "parameter", "data", "signature"], "", [], "verify", "once", 1),
  row(85, "C_VerifyMessageBegin", "uay", ["session", "parameter"], "", [], "verify", "update", 1),
  row(86, "C_VerifyMessageNext", "uayayay", ["session", "parameter", "data", "signature"], "", [], "verify", "update", 1),
  row(87, "C_MessageVerifyFinal", "u", ["session"], "", [], "verify", "final", 1),
  row(88, "C_InitToken2", "uays", ["slot", "pin", "label"], "", [], "mutation", "none", 1),
  row(89, "C_DeriveKey2", "uMuaA", ["session", "mechanism", "baseKey", "template"], "uPu", ["rv", "update", "key"], "decrypt", "once", 2),
] as const satisfies readonly Row[];

/** One row of the table, with literal types. */
export type CallRow = (typeof CALLS)[number];
export type CallName = CallRow["name"];
/** A row without its literals, for code that treats all calls alike. */
export type AnyCall = Row & { readonly name: CallName };

const BY_NAME = new Map<string, AnyCall>(CALLS.map((call) => [call.name, call]));

/** The row of a call. */
export function callByName(name: CallName): AnyCall {
  return BY_NAME.get(name) as AnyCall;
}

/** The row with this id on the wire, or undefined (0 is the ERROR reply, not a call). */
export function callById(id: number): AnyCall | undefined {
  return CALLS[id - 1];
}

const ELEMENTS = /[af][yuA]|[yuvszMP]/g;

/** Splits a p11-kit signature into its elements: `"uayfy"` gives `["u", "ay", "fy"]`. */
export function splitSignature(signature: string): string[] {
  return signature.match(ELEMENTS) ?? [];
}

/** True for the argument or output names that carry object handles. */
export function isObjectName(name: string): boolean {
  return name === "object" || name === "objects" || name === "key" || name.endsWith("Key");
}
