/*
 * What --policy lets programs do, and whether that is what somebody wants who asks for a signature.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const policyCheck = defineCheck<DoctorContext>()({
  id: "policy",
  title: "policy",
  looks: "What the policy of the options lets programs on the bastion do.",
  causes: {
    "full-over-forward": {
      status: "fail",
      code: "E_FULL_OVER_FORWARD",
      usual: true,
      meaning: "The policy full lets the bastion change and delete keys, and connect takes it only with --allow-full-over-forward.",
      mend: "use --policy sign, or add --allow-full-over-forward if that is what you want",
    },
    "read-only": {
      status: "warn",
      code: null,
      meaning: "With the policy read programs see public objects and cannot log in, so no key can be used.",
      mend: "leave out --policy read where something is to be signed",
    },
    "raw-rsa": {
      status: "warn",
      code: null,
      meaning: "With --allow-raw-rsa a program can decrypt with an RSA key, which the policy sign otherwise keeps from it.",
      mend: "leave out --allow-raw-rsa, unless a program needs CKM_RSA_X_509",
    },
  },
  async run({ options: { profile, allowRawRsa, allowFullOverForward, destination } }, { broken }) {
    if (profile === "full" && destination !== null && !allowFullOverForward)
      return broken("full-over-forward", "--policy full over a forward");
    if (profile === "read") return broken("read-only", "--policy read");
    if (allowRawRsa) return broken("raw-rsa", "--allow-raw-rsa");
    return pass(profile === "full" ? "full: programs may change and delete keys" : "sign: look, log in and sign; nothing can be changed");
  },
});
