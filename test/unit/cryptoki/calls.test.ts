/*
 * The calls table against itself: ids, names, signatures and classes that every other part relies on.
 */
import { expect, test } from "vitest";
import { CALLS, callById, callByName, splitSignature } from "../../../src/cryptoki/calls.js";

test("the table holds the 89 ids of p11-kit in order, each name once", () => {
  expect(CALLS.map((call) => call.id)).toEqual(Array.from({ length: 89 }, (_, index) => index + 1));
  expect(new Set(CALLS.map((call) => call.name)).size).toBe(89);
});

test("every element of a signature has a name, and every name an element", () => {
  for (const call of CALLS) {
    expect([call.name, call.args.length]).toEqual([call.name, splitSignature(call.request).length]);
    expect([call.name, call.outs.length]).toEqual([call.name, splitSignature(call.response).length]);
    expect(splitSignature(call.request).join("")).toBe(call.request);
    expect(splitSignature(call.response).join("")).toBe(call.response);
  }
});

test("a session argument always comes first, so that a layer can find it without a list", () => {
  for (const call of CALLS) {
    const at = (call.args as readonly string[]).indexOf("session");
    expect([call.name, at <= 0]).toEqual([call.name, true]);
  }
});

test("rows are found by name and by id, and an id that is not in the table by neither", () => {
  expect(callByName("C_Sign").id).toBe(43);
  expect(callById(43)?.name).toBe("C_Sign");
  expect(callById(0)).toBeUndefined();
  expect(callById(90)).toBeUndefined();
});

test("whatever changes a token or reads its secrets is neither looking nor signing", () => {
  const names = CALLS.filter((call) => call.class === "mutation").map((call) => call.name);
  for (const name of [
    "C_CreateObject",
    "C_CopyObject",
    "C_DestroyObject",
    "C_SetAttributeValue",
    "C_GenerateKey",
    "C_GenerateKeyPair",
    "C_WrapKey",
    "C_UnwrapKey",
    "C_InitToken",
    "C_InitToken2",
    "C_InitPIN",
    "C_SetPIN",
  ]) {
    expect(names).toContain(name);
  }
  expect(callByName("C_SeedRandom").class).toBe("state");
  expect(callByName("C_GetOperationState").class).toBe("state");
  expect(callByName("C_DeriveKey").class).toBe("decrypt");
  expect(callByName("C_DigestKey").class).toBe("decrypt");
});
