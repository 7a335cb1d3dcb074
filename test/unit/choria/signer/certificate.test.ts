import { X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { identityOf } from "../../../../src/choria/signer/certificate.js";
import { EC, ED25519, makeCertificate, RSA_PSS, type TestCertificate } from "../../../support/certificates.js";

const URI = "pkcs11:token=operator;object=ops;type=private";
const DAY_MS = 86_400_000;

const identify = ({ certificate, spki }: TestCertificate, now = Date.now()) => identityOf(certificate, { uri: URI, spki }, now);

describe("identityOf", () => {
  let good: TestCertificate;
  beforeAll(() => {
    good = makeCertificate();
  });

  it("answers the caller's name and the certificate as stock Choria writes it", () => {
    const identity = identify(good);
    expect(identity).toMatchObject({ commonName: "ptittle", keyUri: URI });
    expect(identity.certificate.equals(good.certificate)).toBe(true);
    expect(identity.spki.equals(good.spki)).toBe(true);
    // Node writes PEM in lines of 64 characters too.
    expect(identity.certificatePem).toBe(new X509Certificate(good.certificate).toString());
  });

  it.each([
    ["EC", EC, "EC (P-256)"],
    ["Ed25519", ED25519, "EdDSA (Ed25519)"],
    ["RSA for PSS alone", RSA_PSS, "RSA-PSS"],
  ])("refuses a certificate that would end every server: %s", (_name, algorithm, shown) => {
    expect(() => identify(makeCertificate({ algorithm }))).toThrow(
      expect.objectContaining({
        code: "E_CHORIA_CERT",
        message: `the token's certificate has a key of type ${shown}, and Choria's protocol v1 takes plain RSA alone; a server that meets another ends itself`,
        hint: "use an RSA key: tokenfwd keys lists them, and --key names one",
      }),
    );
  });

  it("refuses one that has expired, and one that is not valid yet", () => {
    const { validTo, validFrom } = new X509Certificate(good.certificate);
    expect(() => identify(good, Date.now() + 11 * DAY_MS)).toThrow(`the token's certificate expired on ${validTo}`);
    expect(() => identify(good, Date.now() - 2 * DAY_MS)).toThrow(
      expect.objectContaining({
        message: `the token's certificate is not valid before ${validFrom}`,
        hint: "is the clock of this machine right?",
      }),
    );
    expect(() => identify(good, Number.NaN)).toThrow("expired");
  });

  it("refuses one that is another key's, or whose key nobody knows", () => {
    const text = `the certificate on the token is not the one of the key ${URI}`;
    expect(() => identityOf(good.certificate, { uri: URI, spki: Buffer.alloc(32) }, Date.now())).toThrow(text);
    expect(() => identityOf(good.certificate, { uri: URI, spki: null }, Date.now())).toThrow(text);
  });

  it.each([
    ["/CN=P Tittle", 'the CN of the token\'s certificate is no Choria caller: "P Tittle"'],
    ["/CN=ptittlé", 'the CN of the token\'s certificate is no Choria caller: "ptittlé"'],
    ["/CN=ptittle,root", 'the CN of the token\'s certificate is no Choria caller: "ptittle,root"'],
    ["/O=Example", "the token's certificate has no CN in its subject, and Choria takes its caller from the one"],
    ["/CN=ptittle/CN=root", "the token's certificate has 2 CNs in its subject, and Choria takes its caller from the one"],
  ])("refuses a name that servers would read otherwise: %s", (subject, message) => {
    expect(() => identify(makeCertificate({ subject }))).toThrow(expect.objectContaining({ code: "E_CHORIA_CERT", message }));
  });

  it("takes a name with dots, underscores and hyphens", () => {
    expect(identify(makeCertificate({ subject: "/O=Example/CN=p_tittle-2.mcollective" })).commonName).toBe("p_tittle-2.mcollective");
  });

  it("refuses one that is not for clients, which servers would drop", () => {
    const server = makeCertificate({ extensions: ["extendedKeyUsage=serverAuth"] });
    expect(() => identify(server)).toThrow("its extended key usage does not hold clientAuth");
    for (const uses of ["clientAuth", "serverAuth,clientAuth", "anyExtendedKeyUsage"]) {
      expect(identify(makeCertificate({ extensions: [`extendedKeyUsage=${uses}`] })).commonName, uses).toBe("ptittle");
    }
  });

  it("refuses what is no certificate in DER", () => {
    const pem = Buffer.from(new X509Certificate(good.certificate).toString());
    const trailing = Buffer.concat([good.certificate, Buffer.alloc(1)]);
    for (const bytes of [Buffer.alloc(0), Buffer.from("junk"), pem, trailing]) {
      expect(() => identityOf(bytes, { uri: URI, spki: good.spki }, Date.now())).toThrow(/^what the token has for a certificate is none/);
    }
  });
});
