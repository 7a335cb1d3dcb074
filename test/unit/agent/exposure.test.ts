/*
 * Which objects a --key exposes, and which URIs are refused because they could mean more than one.
 */
import { expect, test } from "vitest";
import { exposeKey } from "../../../src/agent/exposure.js";
import type { Inspection, PublicObject } from "../../../src/agent/inspect.js";
import { CKO } from "../../../src/cryptoki/constants.js";

const token = { slot: 7n, label: "work", manufacturer: "m", model: "n", serial: "1", uri: "pkcs11:token=work", flags: 0n };

function object(cls: bigint, id: number[], label: string): PublicObject {
  return { slot: 7n, class: cls, uri: `pkcs11:id=${id}`, label, id: Buffer.from(id), labelBytes: Buffer.from(label) };
}

const inspection: Inspection = {
  tokens: [token],
  certificates: [object(CKO.CKO_CERTIFICATE, [1], "rsa cert"), object(CKO.CKO_CERTIFICATE, [2], "ec cert")],
  publicKeys: [object(CKO.CKO_PUBLIC_KEY, [1], "rsa key"), object(CKO.CKO_PUBLIC_KEY, [2], "ec key")],
};

const view = (cls: bigint, id: number[], label = "x", slot = 7n) => ({
  slot,
  class: cls,
  private: true,
  label: Buffer.from(label),
  id: Buffer.from(id),
});

test("one key is exposed with its certificate and public key, and nothing else", () => {
  const { object: shows, slots } = exposeKey("pkcs11:id=%01", inspection);
  expect([...slots]).toEqual([7n]);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [1]))).toBe(true);
  expect(shows(view(CKO.CKO_CERTIFICATE, [1]))).toBe(true);
  expect(shows(view(CKO.CKO_PUBLIC_KEY, [1]))).toBe(true);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [2]))).toBe(false);
  expect(shows(view(CKO.CKO_SECRET_KEY, [1]))).toBe(false);
  expect(shows(view(CKO.CKO_DATA, []))).toBe(false);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [1], "x", 8n))).toBe(false);
});

test("a key named by the label of its certificate is the key with that id", () => {
  const { object: shows } = exposeKey("pkcs11:object=ec%20cert;type=cert", inspection);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [2], "another label"))).toBe(true);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [1]))).toBe(false);
});

test("a URI that several keys match is refused with the choices", () => {
  expect(() => exposeKey("pkcs11:token=work;type=private", inspection)).toThrow(expect.objectContaining({ code: "E_KEY_CHOICE" }));
});

test("a URI that matches nothing is refused with the keys there are", () => {
  expect(() => exposeKey("pkcs11:id=%09", inspection)).toThrow(
    expect.objectContaining({ code: "E_KEY_NOT_FOUND", hint: expect.stringContaining("pkcs11:id=1") }),
  );
  expect(() => exposeKey("pkcs11:token=home;id=%01", inspection)).toThrow(expect.objectContaining({ code: "E_KEY_NOT_FOUND" }));
});

test("a URI of a token alone is no key", () => {
  expect(() => exposeKey("pkcs11:token=work", inspection)).toThrow(expect.objectContaining({ code: "E_USAGE" }));
});

test("a private key without public objects is exposed by its full name only", () => {
  const bare: Inspection = { tokens: [token], certificates: [], publicKeys: [] };
  const { object: shows } = exposeKey("pkcs11:token=work;object=deploy;type=private", bare);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [5], "deploy"))).toBe(true);
  expect(shows(view(CKO.CKO_PRIVATE_KEY, [5], "other"))).toBe(false);
  expect(() => exposeKey("pkcs11:object=deploy", bare)).toThrow(expect.objectContaining({ code: "E_KEY_NOT_FOUND" }));
});

test("a private key that no public object goes with must be named with its token where there are several", () => {
  const two: Inspection = { tokens: [token, { ...token, slot: 8n, label: "home" }], certificates: [], publicKeys: [] };
  expect(() => exposeKey("pkcs11:object=deploy;type=private", two)).toThrow(expect.objectContaining({ code: "E_KEY_NOT_FOUND" }));
  expect([...exposeKey("pkcs11:token=home;object=deploy;type=private", two).slots]).toEqual([8n]);
});

test("all exposes everything, null nothing", () => {
  expect(exposeKey("all", inspection).object(view(CKO.CKO_DATA, []))).toBe(true);
  expect(exposeKey(null, inspection).object(view(CKO.CKO_CERTIFICATE, [1]))).toBe(false);
});
