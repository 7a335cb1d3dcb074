/*
 * Whether the token has the one key, with the one certificate, that Choria can be used with. It must never ask the token to do
 * anything: keys and certificates are handed in.
 */
import { printable } from "../../base/printable.js";
import { spkiFingerprint } from "../../cryptoki/keys/spki.js";
import type { KeyEntry } from "../../cryptoki/keys/types.js";
import { CKM } from "../../cryptoki/mechanisms.js";
import { checkCertificate } from "./check-certificate.js";
import type { ProviderFacts } from "./check-provider.js";
import type { CheckConfigInput, Findings } from "./finding.js";

const SIGNS: readonly number[] = [CKM.CKM_RSA_PKCS, CKM.CKM_SHA256_RSA_PKCS];
const SIGNS_TLS: readonly number[] = [CKM.CKM_RSA_PKCS_PSS, CKM.CKM_SHA256_RSA_PKCS_PSS];

/** A name for a key that a person recognises. */
const nameOf = (key: KeyEntry): string => {
  const label = printable(key.label, 60);
  return label === "" ? `the key with id ${key.id.toString("hex")}` : `the key "${label}"`;
};

/** Looks at the keys. */
export function checkToken(input: CheckConfigInput, keys: readonly KeyEntry[], { authorities }: ProviderFacts, findings: Findings): void {
  const usable = keys.filter((key) => key.type === "RSA" && key.certificate !== null);
  severalKeys(input, keys, usable, findings);
  if (keys.length === 0) {
    const mend = "unlock it first (connect --unlock now), or look whether the right token is in the workstation: tokenfwd token list";
    findings.add("no-key", "error", "no key of the token is visible", mend);
    return;
  }
  // With one that will do, the others are none of Choria's business.
  const looked = usable.length > 0 ? usable : keys.filter((key) => key.certificate !== null);
  if (looked.length === 0) {
    for (const key of keys.filter(({ type }) => type === "RSA")) {
      const mend = `put it there: pkcs11-tool --login --write-object cert.der --type cert --id ${key.id.toString("hex") || "ID"}`;
      findings.add("no-certificate", "error", `${nameOf(key)} has no certificate on the token, and Choria knows you by yours`, mend);
    }
    if (!keys.some(({ type }) => type === "RSA")) {
      findings.add(
        "certificate-type",
        "error",
        "the token has no RSA key, and Choria's protocol v1 signs with RSA only",
        "have an RSA key made on it, with a certificate",
      );
    }
  }
  for (const key of looked) {
    if (key.certificate === null) continue;
    const subject = {
      what: `the certificate of ${nameOf(key)}`,
      der: key.certificate,
      spki: key.spki === null ? null : spkiFingerprint(key.spki),
    };
    certname(input, checkCertificate(subject, authorities, input.now, findings), findings);
    if (key.type === "RSA") mechanisms(key, findings);
  }
}

function severalKeys(input: CheckConfigInput, keys: readonly KeyEntry[], usable: readonly KeyEntry[], findings: Findings): void {
  if (keys.length < 2) return;
  const uris = (usable.length > 0 ? usable : keys).map(({ uri }) => `'${printable(uri, 300)}'`);
  const mend = `tokenfwd connect DEST --key ${uris[0] ?? "URI"}${uris.length > 1 ? `, or one of ${uris.slice(1).join(", ")}` : ""}`;
  if (input.config.provider === "pkcs11") {
    const text = `the token shows ${keys.length} keys, and choria's pkcs11 provider wants exactly one (too many objects matching template)`;
    findings.add("several-keys", "error", text, mend, { stockOnly: true });
  }
  if (usable.length > 1) {
    findings.add(
      "several-keys",
      "warning",
      `the token shows ${usable.length} RSA keys with a certificate: which one is Choria's must be named`,
      mend,
    );
  }
}

/** The signer sets the caller to the CN; a variable that says otherwise only misleads. */
function certname({ config }: CheckConfigInput, name: string | null, findings: Findings): void {
  if (name === null || config.certname === null || config.certname === name) return;
  const text = `MCOLLECTIVE_CERTNAME is ${printable(config.certname, 100)}, and the token's certificate says ${printable(name, 100)}: servers know you by the latter`;
  findings.add("certname", "warning", text, `export MCOLLECTIVE_CERTNAME=${printable(name, 100)}`);
}

function mechanisms(key: KeyEntry, findings: Findings): void {
  const has = (wanted: readonly number[]) => key.mechanisms.some((mechanism) => wanted.includes(mechanism));
  if (key.mechanisms.length === 0) return;
  if (!has(SIGNS)) {
    findings.add("mechanism", "error", `the token does not sign with CKM_RSA_PKCS, which a request needs`, "use a token that does");
  }
  if (!has(SIGNS_TLS)) {
    const text = "the token lists no RSA-PSS, which TLS to a broker needs; it can only sign requests";
    findings.add("mechanism", "warning", text, "use a certificate of the bastion for TLS: tokenfwd choria config --mode bastion-tls");
  }
}
