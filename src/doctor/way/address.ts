/*
 * What else tells programs on the bastion where to look: a variable that outweighs the path.
 */
import { printable, shellWord } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const addressCheck = defineCheck<DoctorContext>()({
  id: "address",
  title: "P11_KIT_SERVER_ADDRESS",
  looks:
    "Whether a session on the bastion has P11_KIT_SERVER_ADDRESS already, or a start file of a shell sets it, as the recipe by hand does.",
  needs: ["remote-shell"],
  causes: {
    "address-set": {
      status: "warn",
      code: null,
      meaning:
        "Every session has the variable, and it outweighs the path at which programs look. CMD of connect gets the right one; a plain ssh does not.",
      mend: "take it away where it is set: ~/.ssh/environment, or SetEnv in the bastion's sshd_config",
    },
    "address-in-start-file": {
      status: "warn",
      code: null,
      meaning: "A start file of a shell names the variable. Shells there then look at an old socket, whatever connect has linked.",
      mend: "on the bastion, delete the line: grep -n P11_KIT_SERVER_ADDRESS {file}",
    },
  },
  async run({ way }, { broken }) {
    const { address, startFiles } = await way.survey();
    const [file] = startFiles;
    if (address !== null) return broken("address-set", `it is ${printable(address)}`);
    if (file !== undefined) return broken("address-in-start-file", `${printable(file)} names it`, { file: shellWord(file) });
    return pass("not set");
  },
});
