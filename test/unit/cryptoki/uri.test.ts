/*
 * PKCS#11 URIs: parse, print, match, and what a selection refuses.
 */
import { expect, test } from "vitest";
import { TokenfwdError } from "../../../src/base/errors.js";
import { CKO } from "../../../src/cryptoki/constants.js";
import { matchesObject, matchesToken, namesObject, objectUri, parseSelector, parseUri, tokenUri } from "../../../src/cryptoki/uri.js";

const token = { label: "Ops & CAC;1", manufacturer: "SoftHSM project", model: "SoftHSM v2", serial: "fa82" };

test("what is printed parses back to the same token and object", () => {
  const id = Buffer.from([0, 1, 0xff, 0x3b]);
  const label = Buffer.from("schlüssel/1");
  const uri = parseUri(objectUri(token, { class: CKO.CKO_PRIVATE_KEY, label, id }));
  expect(matchesToken(uri, token)).toBe(true);
  expect(matchesObject(uri, { class: CKO.CKO_PRIVATE_KEY, label, id })).toBe(true);
  expect(uri.path.get("id")).toEqual(id);
  expect(uri.path.get("object")).toEqual(label);
});

test("a token URI prints every field that tells tokens apart", () => {
  expect(tokenUri(token)).toBe("pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=fa82;token=Ops%20%26%20CAC%3B1");
});

test("an attribute that is absent matches everything, one that differs nothing", () => {
  const object = { class: CKO.CKO_CERTIFICATE, label: Buffer.from("a"), id: Buffer.from([1]) };
  expect(matchesObject(parseUri("pkcs11:"), object)).toBe(true);
  expect(matchesObject(parseUri("pkcs11:id=%01"), object)).toBe(true);
  expect(matchesObject(parseUri("pkcs11:id=%02"), object)).toBe(false);
  expect(matchesObject(parseUri("pkcs11:type=private"), object)).toBe(false);
  expect(matchesObject(parseUri("pkcs11:object=b"), object)).toBe(false);
  expect(matchesToken(parseUri("pkcs11:token=other"), token)).toBe(false);
  expect(matchesToken(parseUri("pkcs11:serial=fa82"), token)).toBe(true);
});

test("a URI that names only a token names no object", () => {
  expect(namesObject(parseUri("pkcs11:token=a"))).toBe(false);
  expect(namesObject(parseUri("pkcs11:token=a;id=%01"))).toBe(true);
});

test.each([
  ["https://example.org", "does not begin"],
  ["pkcs11:token=a;token=b", "stands twice"],
  ["pkcs11:token", "name=value"],
  ["pkcs11:token=a%2", "percent-encoded"],
  ["pkcs11:token=a b", "percent-encoded"],
  ["pkcs11:colour=red", "not known"],
  ["pkcs11:type=key", "type is one of"],
  [`pkcs11:token=${"a".repeat(5000)}`, "longer than"],
])("%s is refused as bad usage", (text, reason) => {
  expect(() => parseUri(text)).toThrow(TokenfwdError);
  expect(() => parseUri(text)).toThrow(reason);
});

test.each(["pin-value", "pin-source", "module-path", "x-vendor"])(
  "a selector refuses the query attribute %s without echoing its value",
  (name) => {
    let thrown: unknown;
    try {
      parseSelector(`pkcs11:token=a?${name}=s3cret`);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(TokenfwdError);
    const { code, message, hint } = thrown as TokenfwdError;
    expect(code).toBe("E_USAGE");
    expect(message).toContain(name);
    expect(`${message} ${hint}`).not.toContain("s3cret");
  },
);

test("a selector refuses an attribute it would have to ignore", () => {
  expect(() => parseSelector("pkcs11:token=a;slot-id=3")).toThrow("cannot be chosen by slot-id");
});
