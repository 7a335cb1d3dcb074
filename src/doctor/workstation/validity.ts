/*
 * From when to when the certificates are good, by this machine's clock.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

const DAY_MS = 86_400_000;
const SOON_DAYS = 14;

const day = (when: Date): string => when.toISOString().slice(0, 10);

export const validityCheck = defineCheck<DoctorContext>()({
  id: "validity",
  title: "dates",
  looks: "Whether the certificate is in date, by the clock of this machine.",
  needs: ["certificate"],
  causes: {
    expired: {
      status: "fail",
      code: null,
      meaning: "The certificate's last day is over. ssh does not look at it; TLS, Choria and signature checks refuse it.",
      mend: "have a new certificate issued for the same key, and write it to the token in the place of the old one",
    },
    "not-yet": {
      status: "fail",
      code: null,
      meaning: "The certificate's first day has not come: this machine's clock is wrong, or the certificate is for later.",
      mend: "compare this machine's clock: date -u",
    },
    soon: {
      status: "warn",
      code: null,
      meaning: `The certificate expires within ${SOON_DAYS} days.`,
      mend: "have a new certificate issued for the same key",
    },
  },
  async run({ token }, { broken }) {
    const certificates = (await token.heldKeys()).flatMap((key) =>
      key.certificates.flatMap(({ x509 }) => (x509 === null ? [] : [{ name: key.name, x509 }])),
    );
    if (certificates.length === 0) return pass("no certificate");
    const now = Date.now();
    const dated = certificates.map(({ name, x509 }) => ({ name, from: new Date(x509.validFrom), to: new Date(x509.validTo) }));
    const expired = dated.find(({ to }) => to.getTime() < now);
    if (expired !== undefined) return broken("expired", `the certificate of "${expired.name}" expired on ${day(expired.to)}`);
    const early = dated.find(({ from }) => from.getTime() > now);
    if (early !== undefined) return broken("not-yet", `the certificate of "${early.name}" is good from ${day(early.from)} on`);
    const soon = dated.find(({ to }) => to.getTime() < now + SOON_DAYS * DAY_MS);
    if (soon !== undefined) return broken("soon", `the certificate of "${soon.name}" expires on ${day(soon.to)}`);
    return pass(`until ${dated.map(({ to }) => day(to)).join(", ")}`);
  },
});
