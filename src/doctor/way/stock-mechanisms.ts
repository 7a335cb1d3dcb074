/*
 * What of the key stock programs on the bastion will not see, because their p11-kit does not know the mechanism.
 */
import { printable } from "../../base/printable.js";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import { dialectOf, hiddenByStock } from "./p11-kit-releases.js";

export const stockMechanismsCheck = defineCheck<DoctorContext>()({
  id: "stock-mechanisms",
  title: "what stock programs see",
  looks:
    "Which signature mechanisms of the exposed keys the bastion's p11-kit knows. It hides the others from its programs without a word.",
  needs: ["verify", "p11-kit", "key"],
  causes: {
    "key-hidden": {
      status: "warn",
      code: null,
      meaning:
        "p11-kit's client of that release knows no mechanism with which this key signs, so that stock programs see the key and cannot use it. No release up to 0.26.4 knows EdDSA.",
      mend: "on the bastion, use tokenfwd sign (connect --tools) or tokenfwd/client; or another key: an RSA or P-256 key works with every release",
    },
  },
  async run({ way }, { broken }) {
    const { p11Kit, p11KitClient } = (await way.bastion()).looked.probe;
    const dialect = dialectOf(p11Kit);
    if (p11KitClient === null || dialect === null) return pass(p11KitClient === null ? "there is no p11-kit" : "its release is not known");
    const proof = await way.proof();
    if (!proof.passed) return pass("not looked at: the socket cannot be called from there");
    const { keys } = await way.agentSide();
    const hidden = new Set<number>();
    for (const { uri, mechanisms } of keys) {
      const lost = hiddenByStock(mechanisms, dialect);
      if (mechanisms.length > 0 && lost.length === mechanisms.length) return broken("key-hidden", `nothing of ${printable(uri)}`);
      for (const type of lost) hidden.add(type);
    }
    if (hidden.size === 0) return pass(keys.length === 0 ? "no key is exposed" : "everything with which the keys sign");
    return pass(`all but ${[...hidden].map(mechanismName).join(", ")}`);
  },
});
