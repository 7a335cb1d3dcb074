/*
 * The driver's conversions and its C_GetAttributeValue on a native module that answers as pkcs11js does.
 */
import { describe, expect, it } from "vitest";
import { CKA } from "../../../src/cryptoki/attributes.js";
import { CK_UNAVAILABLE_INFORMATION } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import {
  handleBytes,
  inputBytes,
  labelText,
  MAX_OUTPUT_BYTES,
  mechanismArgument,
  outputBuffer,
  pinText,
  Refusal,
  templateArgument,
  u32,
  ulong,
} from "../../../src/token/driver/arguments.js";
import { getAttributes } from "../../../src/token/driver/get-attributes.js";
import type { NativeModule, NativeResult } from "../../../src/token/driver/native.js";

/** The CK_RV that a conversion refuses with. */
function refusal(run: () => unknown): number {
  try {
    run();
  } catch (error) {
    if (error instanceof Refusal) return error.rv;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("driver arguments", () => {
  it("carry handles of 64 bits and refuse what is no handle", () => {
    expect(handleBytes(0xfedcba9876543210n).toString("hex")).toBe("1032547698badcfe");
    for (const value of [-1n, 1n << 64n, 1, "1", null, undefined]) expect(refusal(() => handleBytes(value))).toBe(CKR.CKR_ARGUMENTS_BAD);
  });

  it("refuse numbers that pkcs11js would cut to 32 bits", () => {
    expect(u32(0xffffffffn)).toBe(0xffffffff);
    expect(refusal(() => u32(0x1_0000_0000n, CKR.CKR_MECHANISM_INVALID))).toBe(CKR.CKR_MECHANISM_INVALID);
  });

  it("turn 32 bits of ones back into CK_UNAVAILABLE_INFORMATION", () => {
    expect([ulong(0xffffffff), ulong(7), ulong(1n << 40n)]).toEqual([CK_UNAVAILABLE_INFORMATION, 7n, 1n << 40n]);
  });

  it("tell NULL from no bytes by the memory behind the view", () => {
    expect([inputBytes(null).buffer.byteLength, inputBytes(Buffer.alloc(0)).buffer.byteLength > 0]).toEqual([0, true]);
    expect([outputBuffer(null).buffer.byteLength, outputBuffer(0).buffer.byteLength > 0]).toEqual([0, true]);
  });

  it("cap an output buffer whatever room is claimed", () => {
    expect(outputBuffer(0xffffffff).length).toBe(MAX_OUTPUT_BYTES);
    for (const room of [-1, 1.5, Number.NaN, "9", undefined]) expect(refusal(() => outputBuffer(room))).toBe(CKR.CKR_ARGUMENTS_BAD);
  });

  it("take a PIN only as UTF-8, with a byte order mark and NUL bytes kept", () => {
    expect(pinText(Buffer.from("\ufeffä\0"))).toBe("\ufeffä\0");
    expect(refusal(() => pinText(Buffer.from([0xc3])))).toBe(CKR.CKR_PIN_INVALID);
    expect(refusal(() => pinText(null))).toBe(CKR.CKR_ARGUMENTS_BAD);
  });

  it("pad a label to the 32 bytes that a module reads", () => {
    expect(Buffer.byteLength(labelText(Buffer.from("ü")))).toBe(32);
    expect(refusal(() => labelText(Buffer.alloc(33, "x")))).toBe(CKR.CKR_ARGUMENTS_BAD);
  });

  it.each([
    ["a nested template", [{ type: CKA.CKA_WRAP_TEMPLATE, value: [], length: 0 }], CKR.CKR_ATTRIBUTE_TYPE_INVALID],
    ["a NULL value with a length", [{ type: 3, value: null, length: 4 }], CKR.CKR_ATTRIBUTE_VALUE_INVALID],
    ["a date of the wrong length", [{ type: CKA.CKA_END_DATE, value: Buffer.alloc(7), length: 7 }], CKR.CKR_ATTRIBUTE_VALUE_INVALID],
    ["a type that is no number", [{ type: "x", value: null, length: 0 }], CKR.CKR_ARGUMENTS_BAD],
    ["a value that is no Buffer", [{ type: 3, value: "x", length: 1 }], CKR.CKR_ARGUMENTS_BAD],
    ["what is no list", {}, CKR.CKR_ARGUMENTS_BAD],
  ])("refuse a template with %s", (_what, template, rv) => {
    expect(refusal(() => templateArgument(template))).toBe(rv);
  });

  it("lay flat parameters out as C does", () => {
    const pss = { kind: "rsa-pss", hashAlg: 0x250n, mgf: 2n, saltLength: 32n };
    const given = mechanismArgument({ type: 0xd, parameter: pss });
    expect(given.parameter).toEqual(Buffer.from("500200000000000002000000000000002000000000000000", "hex"));
    const general = mechanismArgument({ type: 0x252, parameter: { kind: "mac-general", length: 16n } });
    expect(general.parameter).toEqual(Buffer.from("1000000000000000", "hex"));
  });

  it.each([
    ["ECDH", 0x1050],
    ["ML-DSA, which came later", 0x1d],
    ["a vendor's", 0x80000123],
    ["CONCATENATE_BASE_AND_KEY, which is a handle", 0x360],
  ])("pass flat bytes to no mechanism whose parameter may be a struct: %s", (_name, type) => {
    const parameter = { kind: "bytes", bytes: Buffer.alloc(24, 0x41) };
    expect(refusal(() => mechanismArgument({ type, parameter }))).toBe(CKR.CKR_MECHANISM_PARAM_INVALID);
  });

  it("pass an initialisation vector as it is", () => {
    const bytes = Buffer.alloc(16, 1);
    for (const type of [0x1082, 0x2109]) expect(mechanismArgument({ type, parameter: { kind: "bytes", bytes } }).parameter).toBe(bytes);
  });

  it("give a mechanism without a parameter none, and one of no bytes none either", () => {
    expect(mechanismArgument({ type: 0x1057, parameter: null }).parameter).toBeUndefined();
    expect(mechanismArgument({ type: 0x1057, parameter: { kind: "bytes", bytes: Buffer.alloc(0) } }).parameter).toBeUndefined();
  });
});

describe("driver attributes", () => {
  const session = handleBytes(1n);
  const ok = (value: unknown): NativeResult => ({ rv: CKR.CKR_OK, value, lost: false });
  const fails = (rv: number): NativeResult => ({ rv, value: undefined, lost: false });
  const lost: NativeResult = { rv: CKR.CKR_GENERAL_ERROR, value: undefined, lost: true };

  /** Answers each single attribute as told, and all at once only when none fails. */
  function moduleWith(answers: Readonly<Record<number, NativeResult | Buffer>>): NativeModule & { readonly calls: number[] } {
    const calls: number[] = [];
    return {
      calls,
      initialize() {},
      invoke(_name, _session, _object, template) {
        const types = (template as { type: number }[]).map(({ type }) => type);
        calls.push(types.length);
        const failed = types.map((type) => answers[type]).find((answer) => !Buffer.isBuffer(answer));
        return failed && !Buffer.isBuffer(failed) ? failed : ok(types.map((type) => ({ type, value: answers[type] })));
      },
    };
  }
  const ask = (native: NativeModule, ...types: number[]) =>
    getAttributes(
      native,
      session,
      session,
      types.map((type) => ({ type, room: 8 })),
    );

  it("are asked for in one call when all can be read", () => {
    const native = moduleWith({ 3: Buffer.from("ab"), 258: Buffer.from("c") });
    expect(ask(native, 3, 258).attributes.map(({ length }) => length)).toEqual([2, 1]);
    expect(native.calls).toEqual([2]);
  });

  it("are asked for one by one when one fails, and the first failure is the answer", () => {
    const native = moduleWith({ 3: Buffer.from("ab"), 17: fails(CKR.CKR_ATTRIBUTE_SENSITIVE), 18: fails(CKR.CKR_ATTRIBUTE_TYPE_INVALID) });
    const { rv, attributes } = ask(native, 18, 3, 17);
    expect(rv).toBe(CKR.CKR_ATTRIBUTE_TYPE_INVALID);
    expect(attributes.map(({ length }) => length)).toEqual([-1, 2, -1]);
    expect(native.calls).toEqual([3, 1, 1, 1]);
  });

  it("read as an empty date what pkcs11js cannot express, and do not believe a date without digits", () => {
    const empty = moduleWith({ [CKA.CKA_START_DATE]: lost });
    expect(ask(empty, CKA.CKA_START_DATE)).toEqual({
      rv: CKR.CKR_OK,
      attributes: [{ type: CKA.CKA_START_DATE, value: Buffer.alloc(0), length: 0 }],
    });
    const strange = moduleWith({ [CKA.CKA_END_DATE]: Buffer.from("2027-1-3") });
    expect(ask(strange, CKA.CKA_END_DATE).attributes[0]?.length).toBe(-1);
  });

  it("never reach the module for a nested template", () => {
    const native = moduleWith({});
    expect(ask(native, CKA.CKA_UNWRAP_TEMPLATE).rv).toBe(CKR.CKR_ATTRIBUTE_TYPE_INVALID);
    expect(native.calls).toEqual([0]);
  });

  it("end with any other CK_RV of the module", () => {
    const native = moduleWith({ 3: fails(CKR.CKR_SESSION_HANDLE_INVALID) });
    expect(refusal(() => ask(native, 3))).toBe(CKR.CKR_SESSION_HANDLE_INVALID);
  });
});
