/* What sign accepts on its command line, and that a refusal never repeats a secret. */
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { checkSignOptions, parseMechanism, readExpectedKey } from "../../../../src/cli/sign/options.js";
import { CKM } from "../../../../src/cryptoki/mechanisms.js";

const URI = "pkcs11:token=t;id=%01;type=private";
const HEX = "ab".repeat(32);
const dir = mkdtempSync(join(tmpdir(), "tokenfwd-sign-options-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function refused(work: () => unknown): TokenfwdError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(TokenfwdError);
    return error as TokenfwdError;
  }
  throw new Error("was not refused");
}

describe("the options of sign", () => {
  it("take a key by URI, with what the issue says as defaults", () => {
    expect(checkSignOptions({ key: URI })).toEqual({
      key: { uri: URI, spki: null },
      mechanism: null,
      isDigest: false,
      form: { der: false, base64: false },
      expect: null,
      purpose: "data",
      pinSource: null,
      socket: null,
      deadlineMs: null,
    });
  });

  it("take a key by the hash of its public key, in either case", () => {
    expect(checkSignOptions({ spki: HEX.toUpperCase() }).key).toEqual({ uri: null, spki: Buffer.from(HEX, "hex") });
    for (const spki of ["", HEX.slice(1), `${HEX}0`, `0x${HEX.slice(2)}`, HEX.replace("a", "g")])
      expect(refused(() => checkSignOptions({ spki }))).toMatchObject({ code: "E_USAGE", exitCode: 2 });
  });

  it("name exactly one key", () => {
    for (const raw of [{}, { key: URI, spki: HEX }]) expect(refused(() => checkSignOptions(raw)).message).toContain("exactly one");
  });

  it("refuse a URI with a PIN, and anything that is no URI, without repeating it", () => {
    for (const key of [`${URI}?pin-value=31415926`, "31415926", `${URI}?pin-source=/x31415926`, "pkcs11:pin-value=31415926"]) {
      const error = refused(() => checkSignOptions({ key }));
      expect(error.code).toBe("E_USAGE");
      expect(`${error.message} ${error.hint}`).not.toContain("31415926");
    }
  });

  it("read a mechanism by name or number", () => {
    expect(parseMechanism("CKM_ECDSA_SHA384")).toBe(CKM.CKM_ECDSA_SHA384);
    expect(parseMechanism("ckm_eddsa")).toBe(CKM.CKM_EDDSA);
    expect(parseMechanism("0x1041")).toBe(CKM.CKM_ECDSA);
    expect(parseMechanism("0x80000001")).toBe(0x80000001);
    for (const text of ["", "ECDSA", "CKM_NOTHING", "4161", "0x", "0x100000000"])
      expect(refused(() => parseMechanism(text)).code, text).toBe("E_USAGE");
  });

  it("ask for an ECDSA mechanism when DER is wanted, so that no other key can sign first", () => {
    expect(checkSignOptions({ key: URI, der: true }).mechanism).toBe(CKM.CKM_ECDSA_SHA256);
    expect(checkSignOptions({ key: URI, der: true, digest: true }).mechanism).toBe(CKM.CKM_ECDSA);
    expect(checkSignOptions({ key: URI, der: true, mechanism: "CKM_ECDSA_SHA512" }).mechanism).toBe(CKM.CKM_ECDSA_SHA512);
    for (const mechanism of ["CKM_SHA256_RSA_PKCS", "CKM_EDDSA", "0x80000001"])
      expect(refused(() => checkSignOptions({ key: URI, der: true, mechanism })).message).toContain("--der is for ECDSA");
  });

  it("hold purposes, deadlines, sockets and PIN sources to what they may be", () => {
    expect(checkSignOptions({ key: URI, purpose: "release-2", deadline: "600", socket: "/s", pinSource: "fd:3" })).toMatchObject({
      purpose: "release-2",
      deadlineMs: 600_000,
      socket: "/s",
      pinSource: { kind: "fd", fd: 3 },
    });
    const bad = [
      { purpose: "" },
      { purpose: "Release" },
      { purpose: "a".repeat(33) },
      { deadline: "0" },
      { deadline: "601" },
      { socket: "" },
      { pinSource: "client" },
      { pinSource: "fd:0" },
      { pinSource: "1234" },
    ];
    for (const raw of bad) expect(refused(() => checkSignOptions({ key: URI, ...raw })).code, JSON.stringify(raw)).toBe("E_USAGE");
    expect(refused(() => checkSignOptions({ key: URI, pinSource: "31415926" })).message).not.toContain("31415926");
  });
});

describe("--expect-cert", () => {
  it("refuses what is not a certificate, naming the file", () => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const path = join(dir, "public.pem");
    writeFileSync(path, publicKey.export({ type: "spki", format: "pem" }));
    for (const file of [path, dir, join(dir, "none")]) {
      const error = refused(() => readExpectedKey(file));
      expect(error).toMatchObject({ code: "E_USAGE" });
      expect(error.message).toContain(file);
      expect(error.hint).toContain("--expect-cert");
    }
  });
});
