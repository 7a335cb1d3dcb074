import { createPublicKey, sign } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { findIdentity } from "../../../../src/cli/choria/identity.js";
import { spkiOfCertificate } from "../../../../src/cryptoki/keys/spki.js";
import type { KeyEntry } from "../../../../src/cryptoki/keys/types.js";
import { CKM } from "../../../../src/cryptoki/mechanisms.js";
import type { SignMessage } from "../../../../src/wire/rpc/messages.js";
import { EC, makeCertificate, type TestCertificate } from "../../../support/certificates.js";

const { signal } = new AbortController();

/** A key of that certificate; id in hex and label make its URI. */
function entry(id: string, made: TestCertificate, more: Partial<KeyEntry> = {}): KeyEntry {
  const type = createPublicKey(made.key).asymmetricKeyType === "ec" ? "EC" : "RSA";
  return {
    slot: 1n,
    uri: `pkcs11:token=ops;id=%${id};object=key%20${id};type=private`,
    label: Buffer.from(`key ${id}`),
    id: Buffer.from(id, "hex"),
    type,
    bits: 2048,
    curve: null,
    spki: spkiOfCertificate(made.certificate),
    certificate: made.certificate,
    mechanisms: [],
    ...more,
  };
}

function client(keys: readonly KeyEntry[], made?: TestCertificate) {
  const asked: SignMessage[] = [];
  return {
    asked,
    keys: async () => keys,
    signer: {
      async sign(request: SignMessage) {
        asked.push(request);
        const signature = made === undefined ? Buffer.alloc(0) : sign("sha256", request.data, made.key);
        return { signature, mechanism: CKM.CKM_SHA256_RSA_PKCS, uri: "", spki: null };
      },
    },
  };
}

describe("findIdentity", () => {
  let one: TestCertificate;
  let other: TestCertificate;
  let ec: TestCertificate;
  beforeAll(() => {
    one = makeCertificate();
    other = makeCertificate({ subject: "/CN=other" });
    ec = makeCertificate({ algorithm: EC });
  });

  it("takes the one RSA key that has a certificate, beside keys that cannot sign requests", async () => {
    const keys = [entry("01", ec), entry("02", other, { certificate: null }), entry("03", one)];
    const { identity } = await findIdentity(client(keys), { signal });
    expect(identity).toMatchObject({ commonName: "ptittle", keyUri: "pkcs11:token=ops;id=%03;object=key%2003;type=private" });
  });

  it("signs whole documents with that very key, and says what for", async () => {
    const asking = client([entry("01", one)], one);
    const { identity, signer } = await findIdentity(asking, { signal });
    const document = Buffer.from("{}");
    expect((await signer.sign(document, { signal })).equals(sign("sha256", document, one.key))).toBe(true);
    expect(asking.asked).toEqual([
      {
        key: { uri: null, spki: identity.spki },
        mechanism: CKM.CKM_SHA256_RSA_PKCS,
        parameter: null,
        data: document,
        isDigest: false,
        purpose: "choria-request",
        expect: spkiOfCertificate(one.certificate),
      },
    ]);
  });

  it("takes none of several, and the one that is named", async () => {
    const keys = [entry("01", one), entry("02", other)];
    await expect(findIdentity(client(keys), { signal })).rejects.toMatchObject({
      code: "E_KEY_CHOICE",
      message: "several keys have a certificate, and one must be named",
      hint: `name one with --key: ${keys[0]?.uri}  ${keys[1]?.uri}`,
    });
    for (const key of ["pkcs11:id=%02", "pkcs11:object=key%2002;type=cert", keys[1]?.uri ?? ""]) {
      expect((await findIdentity(client(keys), { key, signal })).identity.commonName, key).toBe("other");
    }
    await expect(findIdentity(client(keys), { key: "pkcs11:token=ops", signal })).rejects.toMatchObject({ code: "E_KEY_CHOICE" });
    await expect(findIdentity(client(keys), { key: "pkcs11:id=%03", signal })).rejects.toMatchObject({
      code: "E_KEY_NOT_FOUND",
      message: "no key matches --key",
      hint: expect.stringContaining(keys[0]?.uri ?? ""),
    });
  });

  it("says why the only key there cannot be used", async () => {
    await expect(findIdentity(client([]), { signal })).rejects.toMatchObject({ code: "E_KEY_NOT_FOUND", message: "no key is visible" });
    await expect(findIdentity(client([entry("01", one, { certificate: null })]), { signal })).rejects.toMatchObject({
      code: "E_CHORIA_CERT",
      message: expect.stringMatching(/^there is no certificate of the key pkcs11:.* on the token$/),
    });
    await expect(findIdentity(client([entry("01", ec)]), { signal })).rejects.toMatchObject({
      code: "E_CHORIA_CERT",
      message: expect.stringContaining("has a key of type EC (P-256)"),
    });
    await expect(findIdentity(client([entry("01", one, { certificate: other.certificate })]), { signal })).rejects.toMatchObject({
      code: "E_CHORIA_CERT",
      message: expect.stringContaining("is not the one of the key"),
    });
    const late = (): number => Date.now() + 11 * 86_400_000;
    await expect(findIdentity(client([entry("01", one)]), { signal, now: late })).rejects.toMatchObject({
      code: "E_CHORIA_CERT",
      message: expect.stringContaining("expired on"),
    });
  });
});
