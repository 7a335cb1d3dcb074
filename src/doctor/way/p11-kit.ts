/*
 * p11-kit on the bastion: whether stock programs have its client module, and how it will speak to us.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import { dialectOf } from "./p11-kit-releases.js";

export const p11KitCheck = defineCheck<DoctorContext>()({
  id: "p11-kit",
  title: "p11-kit on the bastion",
  looks: "Whether p11-kit-client.so is there, which stock programs load, its release, and the dialect in which it sends mechanisms.",
  needs: ["remote-shell"],
  causes: {
    "no-client-module": {
      status: "warn",
      code: null,
      meaning:
        "p11-kit-client.so was found in none of the usual places. Programs that use PKCS#11 cannot reach the token without it; tokenfwd sign and tokenfwd/client can.",
      mend: "send to the bastion's administrator: \"Please install p11-kit's client module: package p11-kit-modules on Debian and Ubuntu, p11-kit-server on Fedora and RHEL.\"",
    },
  },
  async run({ way }, { broken }) {
    const { p11Kit, p11KitClient } = (await way.bastion()).looked.probe;
    if (p11KitClient === null) return broken("no-client-module", "p11-kit-client.so was not found");
    const dialect = dialectOf(p11Kit);
    const how =
      dialect === null
        ? "its release is not known"
        : `version byte ${dialect.version}, ${dialect.version === 2 ? "new" : "old"} dialect of mechanisms`;
    return pass(`${p11Kit === null ? "" : `${printable(p11Kit)}, `}${how}: ${printable(p11KitClient)}`);
  },
});
