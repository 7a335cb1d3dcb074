/*
 * Public keys from a token's attributes, against what Node's crypto says of keys that it made itself.
 */
import { constants, createHash, generateKeyPairSync, type KeyObject, privateEncrypt, randomBytes, sign, verify } from "node:crypto";
import { describe, expect, it } from "vitest";
import { bytesAttribute, CKA, ulongAttribute } from "../../../../src/cryptoki/attributes.js";
import { CKK } from "../../../../src/cryptoki/constants.js";
import { der, elements, firstElement, oidInDots, TAG } from "../../../../src/cryptoki/keys/der.js";
import { digestInfo, digestOf, hashOfLength, isDigestInfo } from "../../../../src/cryptoki/keys/digest-info.js";
import { derToRaw, rawToDer } from "../../../../src/cryptoki/keys/ecdsa-der.js";
import { describeSpki, rsaModulus, spkiFingerprint, spkiFromAttributes, spkiOfCertificate } from "../../../../src/cryptoki/keys/spki.js";

const spkiOf = (key: KeyObject) => key.export({ type: "spki", format: "der" });

function ecAttributes(key: KeyObject, keyType: bigint, wrap: (point: Buffer) => Buffer) {
  const [algorithm, bits] = elements(firstElement(spkiOf(key))?.content ?? Buffer.alloc(0)) ?? [];
  const parts = elements(algorithm?.content ?? Buffer.alloc(0)) ?? [];
  const params = (parts[1] ?? parts[0])?.whole ?? Buffer.alloc(0);
  const point = bits?.content.subarray(1) ?? Buffer.alloc(0);
  return [
    ulongAttribute(CKA.CKA_KEY_TYPE, keyType),
    bytesAttribute(CKA.CKA_EC_PARAMS, params),
    bytesAttribute(CKA.CKA_EC_POINT, wrap(point)),
  ];
}

const octets = (point: Buffer) => der(TAG.OCTET_STRING, point);
const bare = (point: Buffer) => point;

describe("a public key made of attributes", () => {
  it.each([1024, 2048, 3072])("is the RSA key of %i bits, also with zeros in front of the modulus", (bits) => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: bits });
    const jwk = publicKey.export({ format: "jwk" });
    const modulus = Buffer.from(jwk.n ?? "", "base64url");
    const exponent = Buffer.from(jwk.e ?? "", "base64url");
    for (const value of [modulus, Buffer.concat([Buffer.alloc(3), modulus])]) {
      const spki = spkiFromAttributes([
        ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_RSA),
        bytesAttribute(CKA.CKA_MODULUS, value),
        bytesAttribute(CKA.CKA_PUBLIC_EXPONENT, exponent),
      ]);
      expect(spki).toEqual(spkiOf(publicKey));
    }
    expect(describeSpki(spkiOf(publicKey))).toEqual({ type: "RSA", bits, curve: null });
    expect(rsaModulus(spkiOf(publicKey))).toEqual(modulus);
  });

  it.each([
    ["prime256v1", "P-256"],
    ["secp384r1", "P-384"],
    ["secp521r1", "P-521"],
    ["secp256k1", "secp256k1"],
    ["brainpoolP256r1", "1.3.36.3.3.2.8.1.1.7"],
  ])("is the EC key on %s, with the point wrapped or bare", (namedCurve, name) => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve });
    expect(spkiFromAttributes(ecAttributes(publicKey, CKK.CKK_EC, octets))).toEqual(spkiOf(publicKey));
    expect(spkiFromAttributes(ecAttributes(publicKey, CKK.CKK_EC, bare))).toEqual(spkiOf(publicKey));
    expect(describeSpki(spkiOf(publicKey))).toEqual({ type: "EC", bits: null, curve: name });
  });

  it("is not misread where a bare point looks like a wrapped one", () => {
    // 04 3f: an uncompressed point of 65 bytes whose X begins with its own remaining length.
    const point = Buffer.concat([Buffer.from([0x04, 0x3f]), randomBytes(63)]);
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
    const spki = spkiFromAttributes(ecAttributes(publicKey, CKK.CKK_EC, () => point));
    expect(spki?.subarray(-65)).toEqual(point);
  });

  it("is the whole point where a token gives the compressed one", () => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
    const compressed = (point: Buffer) => Buffer.concat([Buffer.from([2 + ((point[64] ?? 0) & 1)]), point.subarray(1, 33)]);
    expect(spkiFromAttributes(ecAttributes(publicKey, CKK.CKK_EC, (point) => octets(compressed(point))))).toEqual(spkiOf(publicKey));
  });

  it.each([
    ["ed25519", "Ed25519"],
    ["ed448", "Ed448"],
  ] as const)("is the %s key, however its parameters are written", (kind, name) => {
    const { publicKey } = kind === "ed25519" ? generateKeyPairSync("ed25519") : generateKeyPairSync("ed448");
    const named = kind === "ed25519" ? "edwards25519" : "edwards448";
    for (const wrap of [octets, bare, (point: Buffer) => der(TAG.BIT_STRING, Buffer.alloc(1), point)]) {
      const attributes = ecAttributes(publicKey, CKK.CKK_EC_EDWARDS, wrap);
      const byName = attributes.map((each) =>
        each.type === CKA.CKA_EC_PARAMS ? bytesAttribute(each.type, der(TAG.PRINTABLE_STRING, Buffer.from(named))) : each,
      );
      const without = attributes.filter((each) => each.type !== CKA.CKA_EC_PARAMS);
      for (const each of [attributes, byName, without]) expect(spkiFromAttributes(each)).toEqual(spkiOf(publicKey));
    }
    expect(describeSpki(spkiOf(publicKey))).toEqual({ type: "EdDSA", bits: null, curve: name });
  });

  it("is nothing where the attributes do not say enough, or make no sense", () => {
    const rsaType = ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_RSA);
    const ecType = ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_EC);
    const cases = [
      [],
      [rsaType],
      [rsaType, bytesAttribute(CKA.CKA_MODULUS, Buffer.alloc(0)), bytesAttribute(CKA.CKA_PUBLIC_EXPONENT, Buffer.from([3]))],
      [ecType, bytesAttribute(CKA.CKA_EC_POINT, randomBytes(65))],
      [ecType, bytesAttribute(CKA.CKA_EC_PARAMS, Buffer.from([6, 200])), bytesAttribute(CKA.CKA_EC_POINT, randomBytes(65))],
      [
        ecType,
        bytesAttribute(CKA.CKA_EC_PARAMS, Buffer.from("06082a8648ce3d030107", "hex")),
        bytesAttribute(CKA.CKA_EC_POINT, randomBytes(64)),
      ],
    ];
    expect(cases.map(spkiFromAttributes)).toEqual(cases.map(() => null));
  });
});

describe("bytes that are no DER", () => {
  it("are null at every cut and every changed length, never an exception", () => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
    const spki = spkiOf(publicKey);
    for (let length = 0; length < spki.length; length += 1) {
      expect(describeSpki(spki.subarray(0, length)).type).toBe("other");
      expect(spkiOfCertificate(spki.subarray(0, length))).toBeNull();
    }
    for (let index = 0; index < spki.length; index += 1) {
      const changed = Buffer.from(spki);
      changed[index] = (changed[index] ?? 0) ^ 0xff;
      describeSpki(changed);
      rsaModulus(changed);
      spkiOfCertificate(changed);
    }
  });

  it("include lengths that are longer than they need be", () => {
    expect(firstElement(Buffer.from([4, 0x81, 1, 0]))).toBeNull();
    expect(firstElement(Buffer.from([4, 0x80, 0, 0]))).toBeNull();
    expect(firstElement(Buffer.from([4, 0x85, 0, 0, 0, 0, 0]))).toBeNull();
    expect(oidInDots(Buffer.from([0x80]))).toBeNull();
  });
});

describe("DigestInfo", () => {
  it.each(["sha1", "sha224", "sha256", "sha384", "sha512"] as const)("of %s is what a signature of Node's holds", (hash) => {
    const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
    const data = randomBytes(100);
    const info = digestInfo(hash, digestOf(hash, data));
    expect(isDigestInfo(info)).toBe(true);
    expect(isDigestInfo(info.subarray(1))).toBe(false);
    expect(hashOfLength(digestOf(hash, data).length)).toBe(hash);
    // A signature over the bare DigestInfo verifies as one over the data.
    const signature = privateEncrypt({ key: privateKey, padding: constants.RSA_PKCS1_PADDING }, info);
    expect(verify(hash, data, publicKey, signature)).toBe(true);
  });
});

describe("an ECDSA signature", () => {
  it("goes from r and s to DER and back, for a thousand of Node's own", () => {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
    for (let index = 0; index < 1_000; index += 1) {
      const data = Buffer.from(`document ${index}`);
      const raw = sign("sha256", data, { key: privateKey, dsaEncoding: "ieee-p1363" });
      const asDer = rawToDer(raw);
      expect(derToRaw(asDer, 32)?.equals(raw)).toBe(true);
      if (index % 50 === 0) expect(verify("sha256", data, publicKey, asDer)).toBe(true);
    }
  });

  it("with zeros in front keeps its length, and what does not fit is null", () => {
    const raw = Buffer.concat([Buffer.alloc(31), Buffer.from([0x80]), Buffer.alloc(32, 0xff)]);
    expect(derToRaw(rawToDer(raw), 32)).toEqual(raw);
    expect(derToRaw(rawToDer(raw), 31)).toBeNull();
    expect(derToRaw(Buffer.from("3003020101", "hex"), 32)).toBeNull();
    expect(derToRaw(Buffer.from("30060201ff020101", "hex"), 32)).toBeNull();
    expect(() => rawToDer(Buffer.alloc(63))).toThrow(RangeError);
  });
});

it("a key's fingerprint is the SHA-256 of its DER", () => {
  const spki = spkiOf(generateKeyPairSync("ed25519").publicKey);
  expect(spkiFingerprint(spki)).toEqual(createHash("sha256").update(spki).digest());
});
