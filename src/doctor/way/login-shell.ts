/*
 * Which shell the account has: connect's own text runs under any, what a person types there does not.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const loginShellCheck = defineCheck<DoctorContext>()({
  id: "login-shell",
  title: "login shell",
  looks: "Whether the login shell of the account takes the lines that tokenfwd and this documentation print, which are for POSIX shells.",
  needs: ["remote-shell"],
  causes: {
    "shell-csh": {
      status: "warn",
      code: null,
      meaning: "The login shell is csh or tcsh. It knows no export, and takes no argument of CMD that is longer than 1,000 bytes.",
      mend: "in a shell there type setenv P11_KIT_SERVER_ADDRESS ADDRESS in place of the export line, and pass long data on stdin",
    },
    "shell-fish": {
      status: "warn",
      code: null,
      meaning: "The login shell is fish. It reads no start file of sh, and lines of sh with more than one export or a $( ) in quotes fail.",
      mend: "in a shell there type set -x P11_KIT_SERVER_ADDRESS ADDRESS in place of the export line, or start sh first",
    },
  },
  async run({ way }, { broken }) {
    const { loginShell } = (await way.bastion()).looked.probe;
    const name = loginShell?.split("/").at(-1) ?? null;
    if (name === "csh" || name === "tcsh") return broken("shell-csh", `the login shell is ${loginShell}`);
    if (name === "fish") return broken("shell-fish", `the login shell is ${loginShell}`);
    return pass(loginShell ?? "it does not say");
  },
});
