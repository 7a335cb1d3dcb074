/*
 * What each profile lets through, over the whole calls table, and with which CK_RV the rest is refused.
 */
import { expect, test } from "vitest";
import { createPolicy, mayReadAttribute, type Profile } from "../../../src/agent/policy.js";
import { createEmitter } from "../../../src/base/events.js";
import { CKA } from "../../../src/cryptoki/attributes.js";
import { CALLS, type CallName } from "../../../src/cryptoki/calls.js";
import { CKF, CKO, CKU } from "../../../src/cryptoki/constants.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { CallArgs, CallContext, Cryptoki } from "../../../src/cryptoki/types.js";

const origin = {
  kind: "forward",
  destination: "bastion",
  user: "ops",
  host: "bastion",
  port: 22,
  hostKeySha256: "SHA256:x",
  connectId: "1",
} as const;
const ctx: CallContext = { client: "c1", origin, signal: new AbortController().signal };

function through(profile: Profile, allowRawRsa = false) {
  const reached: string[] = [];
  const refused: string[] = [];
  const inner: Cryptoki = {
    events: createEmitter(),
    close: async () => undefined,
    async call(name) {
      reached.push(name);
      if (name === "C_GetMechanismList") return { rv: 0, mechanisms: [1n, 3n, 0x40n] } as never;
      return { rv: 0, flags: 0n } as never;
    },
  };
  const policy = createPolicy(inner, { profile, allowRawRsa, onRefused: ({ call }) => refused.push(call) });
  const call = (name: CallName, args: object = {}) => policy.call(name, args as CallArgs<CallName>, ctx);
  return { call, reached, refused };
}

const MUTATIONS = [
  "C_InitToken",
  "C_InitToken2",
  "C_InitPIN",
  "C_SetPIN",
  "C_CreateObject",
  "C_CopyObject",
  "C_DestroyObject",
  "C_SetAttributeValue",
  "C_GenerateKey",
  "C_GenerateKeyPair",
  "C_WrapKey",
  "C_UnwrapKey",
];
const NEVER_UNDER_SIGN =
  /^C_(Decrypt|Encrypt|MessageEncrypt|MessageDecrypt|Derive|SeedRandom|GetOperationState|SetOperationState|Digest(Key|Encrypt)|SignEncrypt)/;

test("sign refuses every call that changes the token with CKR_TOKEN_WRITE_PROTECTED", async () => {
  const { call, reached, refused } = through("sign");
  for (const name of MUTATIONS) expect(await call(name as CallName)).toEqual({ rv: CKR.CKR_TOKEN_WRITE_PROTECTED });
  expect(reached).toEqual([]);
  expect(refused).toEqual(MUTATIONS);
});

test("sign refuses every other use that is not a signature with CKR_FUNCTION_NOT_SUPPORTED, and lets the rest through", async () => {
  const { call, reached } = through("sign");
  for (const { name } of CALLS) {
    if (MUTATIONS.includes(name)) continue;
    const { rv } = await call(name);
    expect([name, rv]).toEqual([name, NEVER_UNDER_SIGN.test(name) ? CKR.CKR_FUNCTION_NOT_SUPPORTED : CKR.CKR_OK]);
  }
  expect(reached).not.toContain("C_Decrypt");
  expect(reached).toContain("C_Sign");
});

test("read lets nobody log in or sign", async () => {
  const { call } = through("read");
  for (const name of ["C_Login", "C_LoginUser", "C_SignInit", "C_Sign", "C_SignRecover"] as const) {
    expect([name, (await call(name)).rv]).toEqual([name, CKR.CKR_FUNCTION_NOT_SUPPORTED]);
  }
  expect((await call("C_FindObjectsInit")).rv).toBe(CKR.CKR_OK);
});

test("full lets every call through", async () => {
  const { call, reached } = through("full");
  for (const { name } of CALLS) expect([name, (await call(name)).rv]).toEqual([name, CKR.CKR_OK]);
  expect(reached).toHaveLength(CALLS.length);
});

test("the security officer logs in under full only", async () => {
  const args = { session: 1n, userType: CKU.CKU_SO, pin: null };
  expect((await through("sign").call("C_Login", args)).rv).toBe(CKR.CKR_TOKEN_WRITE_PROTECTED);
  expect((await through("full").call("C_Login", args)).rv).toBe(CKR.CKR_OK);
});

test.each(["C_SignInit", "C_VerifyInit", "C_SignRecoverInit"] as const)("raw RSA is refused in %s unless it was allowed", async (name) => {
  const args = { session: 1n, mechanism: { type: CKM.CKM_RSA_X_509, parameter: null }, key: 2n };
  expect((await through("sign").call(name, args)).rv).toBe(CKR.CKR_MECHANISM_INVALID);
  expect((await through("sign", true).call(name, args)).rv).toBe(CKR.CKR_OK);
  expect((await through("full").call(name, args)).rv).toBe(CKR.CKR_OK);
});

test("raw RSA is neither listed nor described under sign, and the count fits the list", async () => {
  const { call } = through("sign");
  expect(await call("C_GetMechanismList", { slot: 1n, room: null })).toEqual({ rv: 0, mechanisms: 2 });
  expect(await call("C_GetMechanismList", { slot: 1n, room: 1 })).toEqual({ rv: CKR.CKR_BUFFER_TOO_SMALL, mechanisms: 2 });
  expect(await call("C_GetMechanismList", { slot: 1n, room: 2 })).toEqual({ rv: 0, mechanisms: [1n, 0x40n] });
  expect(await call("C_GetMechanismInfo", { slot: 1n, mechanismType: 3n })).toEqual({ rv: CKR.CKR_MECHANISM_INVALID });
});

test("a token looks write-protected under every profile but full", async () => {
  const flags = async (profile: Profile) => (await through(profile).call("C_GetTokenInfo", { slot: 1n })) as { flags?: bigint };
  expect((await flags("sign")).flags).toBe(CKF.CKF_WRITE_PROTECTED);
  expect((await flags("read")).flags).toBe(CKF.CKF_WRITE_PROTECTED);
  expect((await flags("full")).flags).toBe(0n);
});

test("the secret of a key is not readable under sign, whatever its CKA_SENSITIVE says", () => {
  const view = (cls: bigint, isPrivate: boolean) => ({
    slot: 1n,
    class: cls,
    private: isPrivate,
    label: Buffer.alloc(0),
    id: Buffer.alloc(0),
  });
  expect(mayReadAttribute("sign", view(CKO.CKO_PRIVATE_KEY, false), CKA.CKA_PRIVATE_EXPONENT)).toBe(false);
  expect(mayReadAttribute("sign", view(CKO.CKO_SECRET_KEY, false), CKA.CKA_VALUE)).toBe(false);
  expect(mayReadAttribute("sign", view(CKO.CKO_DATA, true), CKA.CKA_VALUE)).toBe(false);
  expect(mayReadAttribute("sign", view(8n, false), CKA.CKA_VALUE)).toBe(false); // CKO_OTP_KEY, and what is not known
  for (const isPrivate of [false, true]) expect(mayReadAttribute("sign", view(CKO.CKO_CERTIFICATE, isPrivate), CKA.CKA_VALUE)).toBe(true);
  expect(mayReadAttribute("sign", view(CKO.CKO_PRIVATE_KEY, true), CKA.CKA_MODULUS)).toBe(true);
  expect(mayReadAttribute("full", view(CKO.CKO_PRIVATE_KEY, true), CKA.CKA_PRIVATE_EXPONENT)).toBe(true);
});
