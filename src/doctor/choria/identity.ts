/*
 * Whether Choria's servers would take the key and its certificate: RSA, with a common name. Where no Choria is configured it is
 * only said, because ssh, TLS and git do not mind. It must never take a certificate for valid: who signed it is the servers' business.
 */
import { allowLine, isAllowedByDefault } from "../../choria/config/check-certificate.js";
import { identityOf } from "../../choria/signer/certificate.js";
import { describeSpki, spkiFingerprint } from "../../cryptoki/keys/spki.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import type { HeldKey } from "../workstation/key-parts.js";

export const choriaIdentityCheck = defineCheck<DoctorContext>()({
  id: "choria-identity",
  title: "Choria identity",
  looks: "Whether the key and its certificate are what Choria's servers take: one RSA key, and a certificate with a common name.",
  needs: ["key"],
  causes: {
    "not-rsa": {
      status: "fail",
      code: "E_CHORIA_CERT",
      meaning:
        "Choria's protocol v1 signs with RSA and nothing else; a server that gets a request with another kind of certificate panics.",
      mend: "have an RSA key (2048 bits or more) with its certificate on the token, and name it with --key",
    },
    "not-rsa-yet": {
      status: "warn",
      code: null,
      meaning: "The key is no RSA key. Everything but Choria can use it, and no Choria configuration was found here.",
      mend: "nothing is to be done, unless Choria shall use this token: it needs an RSA key",
    },
    "no-certificate": {
      status: "fail",
      code: "E_CHORIA_CERT",
      meaning: "Choria sends the certificate with each request, and there is none beside the key.",
      mend: "have a certificate issued for the key by Choria's CA, and write it to the token with the key's id",
    },
    "unfit-name": {
      status: "fail",
      code: "E_CHORIA_CERT",
      meaning:
        "Choria calls the operator by the certificate's common name (CN). It has none, or several, or one with characters that no caller has.",
      mend: "have a certificate issued whose subject has one CN of letters, digits, _, . and - alone, such as CN=rip.mcollective",
    },
    "not-for-clients": {
      status: "fail",
      code: "E_CHORIA_CERT",
      meaning: "The certificate says what it may be used for (extended key usage), and that does not hold clientAuth.",
      mend: "have one issued with clientAuth, or without an extended key usage",
    },
    "unusual-name": {
      status: "warn",
      code: null,
      meaning:
        "Choria's servers by default take callers whose common name ends in .mcollective or .choria; another one needs plugin.choria.security.certname_whitelist on each server.",
      mend: 'send to the Choria admin: "On every server, please: {line}"',
    },
    several: {
      status: "fail",
      code: "E_CHORIA_CERT",
      meaning: "Stock Choria wants exactly one key and one certificate on the token and cannot choose between several.",
      mend: "expose one key with --key URI (tokenfwd token list shows the URIs)",
    },
  },
  async run({ token, choria }, { broken }) {
    const keys = await token.heldKeys();
    const about = await choria.isAbout();
    const rsa = keys.filter((key) => spkisOf(key).some((spki) => describeSpki(spki).type === "RSA"));
    const known = keys.filter((key) => spkisOf(key).length > 0);
    if (known.length > 0 && rsa.length === 0) {
      const detail = `"${known[0]?.name}" is no RSA key`;
      return about ? broken("not-rsa", detail) : broken("not-rsa-yet", `${detail}, which matters to Choria alone`);
    }
    if (!about) return pass("no Choria configuration here");
    if (keys.length > 1) return broken("several", `${keys.length} keys would be seen`);
    const certificate = rsa[0]?.certificates[0];
    if (!certificate?.x509) return broken("no-certificate", "there is no certificate beside the key");
    // Its dates, and whether it is of this key, are other checks' business.
    const own = { uri: rsa[0]?.uri ?? "", spki: spkiFingerprint(certificate.spki ?? Buffer.alloc(0)) };
    const { commonName } = identityOf(certificate.der, own, Date.parse(certificate.x509.validFrom));
    if (isAllowedByDefault(commonName)) return pass(`choria=${commonName}`);
    return broken("unusual-name", `the CN is ${commonName}`, { line: allowLine(commonName) });
  },
});

function spkisOf({ publicKeys, certificates }: HeldKey): Buffer[] {
  return [...publicKeys, ...certificates.flatMap(({ spki }) => (spki === null ? [] : [spki]))];
}
