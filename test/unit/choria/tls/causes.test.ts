import { describe, expect, it } from "vitest";
import { brokerRefusal, cutError, keyFault, signFault, strangerError } from "../../../../src/choria/tls/causes.js";

const BROKER = { host: "broker.example.net", port: 4222 };
const WHERE = { keyUri: "pkcs11:id=%01", address: "unix:path=/s" };

describe("a broker that is not the right one", () => {
  it.each([
    ["CERT_HAS_EXPIRED", "certificate has expired", "has expired"],
    ["CERT_NOT_YET_VALID", "certificate is not yet valid", "is not valid yet"],
    ["INVALID_PURPOSE", "unsupported certificate purpose", "is not meant for a server"],
    [
      "SELF_SIGNED_CERT_IN_CHAIN",
      "self-signed certificate in chain",
      "is not signed by the CA that was given (self-signed certificate in chain)",
    ],
    [
      "ERR_TLS_CERT_ALTNAME_INVALID",
      "Hostname/IP does not match certificate's altnames: Host: b. is not in the cert's altnames: DNS:x\u001b[31m, DNS:y",
      "is for another name: it is for DNS:x\\x1b[31m, DNS:y",
    ],
  ])("%s is said in words", (code, message, text) => {
    expect(strangerError({ code, message }, BROKER)).toMatchObject({
      code: "E_CHORIA_BROKER",
      message: `the certificate of broker broker.example.net:4222 ${text}`,
      hint: expect.stringMatching(/; nothing was signed$/),
    });
  });
});

describe("a broker that says no", () => {
  it("to the certificate, or before any was shown", () => {
    const alert = {
      code: "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA",
      message: "00BE:error:0A000418:SSL routines:ssl3_read_bytes:tlsv1 alert unknown ca:../rec_layer_s3.c:1605:SSL alert number 48\n",
    };
    expect(brokerRefusal(alert, BROKER, true).message).toBe(
      "broker broker.example.net:4222 does not accept the token's certificate (tlsv1 alert unknown ca)",
    );
    expect(brokerRefusal({ code: "ECONNRESET", message: "" }, BROKER, false).message).toBe(
      "broker broker.example.net:4222 hung up at the beginning of the TLS handshake",
    );
  });

  it("because the token was slow, or for a reason of its own", () => {
    expect(cutError(BROKER, 2010, 10_040, 3).message).toBe(
      "broker broker.example.net:4222 gave 2.0 s for the TLS handshake, and the token took 10.0 s, 3 times",
    );
    expect(cutError(BROKER, 40, 30, 3).message).toBe("broker broker.example.net:4222 hung up at the end of the TLS handshake, 3 times");
  });
});

describe("a key that cannot be used", () => {
  it.each([
    ["error:12800067:DSO support routines::could not load the shared library", "E_CHORIA_ENGINE"],
    ["error:13000074:engine routines::no such engine", "E_CHORIA_ENGINE"],
    ["error:418000A0:PKCS#11 module::PIN incorrect; error:13000080:engine routines::failed loading private key", "E_PIN_WRONG"],
    ["error:418000A4:PKCS#11 module::PIN locked", "E_PIN_LOCKED"],
    ["error:1400006B:UI routines::processing error", "E_PIN_SOURCE"],
    ["error:41800200:PKCS#11 module::Function rejected", "E_REFUSED"],
    ["error:05800074:x509 certificate routines::key values mismatch", "E_KEY_MISMATCH"],
    ["error:40800065:pkcs11 engine::object not found", "E_KEY_NOT_FOUND"],
  ])("%s is %s", (message, code) => expect(keyFault({ code: "", message }, WHERE).code).toBe(code));

  it("says that the token did not sign, with the engine's own words in a form that is fit for a terminal", () => {
    expect(signFault({ code: "", message: "PKCS#11 module::Device removed\u0007" })).toMatchObject({
      code: "E_REFUSED",
      message: "the token did not sign the TLS handshake (PKCS#11 module::Device removed\\x07)",
    });
  });
});
