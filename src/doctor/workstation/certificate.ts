/*
 * The certificate beside the key: readable, and made for this very key. A key without one is fit for ssh, and whether somebody
 * needs more is another check's business.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import type { HeldKey } from "./key-parts.js";

export const certificateCheck = defineCheck<DoctorContext>()({
  id: "certificate",
  title: "certificate",
  looks: "Whether the certificate beside the key can be read, and whether it is the certificate of this key.",
  needs: ["key"],
  causes: {
    unreadable: {
      status: "fail",
      code: null,
      meaning: "The object that is marked as the key's certificate is not an X.509 certificate.",
      mend: "write the certificate to the token once more, as DER, with the key's id (tokenfwd token list shows it)",
    },
    "of-another-key": {
      status: "fail",
      code: "E_KEY_MISMATCH",
      meaning:
        "The certificate has the key's id and holds another public key. It mostly is the one of a key that was there before. TLS and Choria sign with the key and show this certificate, and the other side refuses the signature.",
      mend: "write the certificate that was issued for this key to the token, in the place of this one",
    },
  },
  async run({ token }, { broken }) {
    const keys = await token.heldKeys();
    const odd = keys.find(({ certificates }) => certificates.some(({ x509 }) => x509 === null));
    if (odd !== undefined) return broken("unreadable", `what lies beside the key "${odd.name}" is no X.509 certificate`);
    const mixed = keys.find(isMixedUp);
    if (mixed !== undefined) return broken("of-another-key", `the certificate beside the key "${mixed.name}" is of another key`);
    const certified = keys.filter(({ certificates }) => certificates.length > 0);
    if (certified.length === 0) return pass("none, which is enough for ssh");
    const subjects = certified.map(({ certificates }) => certificates[0]?.x509?.subject.replaceAll("\n", ", ") ?? "");
    const compared = certified.every(({ publicKeys }) => publicKeys.length > 0);
    return pass(`${subjects.join("; ")}${compared ? "" : " (no public key on the token to compare it with)"}`);
  },
});

function isMixedUp({ publicKeys, certificates }: HeldKey): boolean {
  if (publicKeys.length === 0 || certificates.length === 0) return false;
  return !certificates.some(({ spki }) => spki !== null && publicKeys.some((one) => one.equals(spki)));
}
