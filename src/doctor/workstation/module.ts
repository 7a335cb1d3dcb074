/*
 * The PKCS#11 module: found, a library of this machine, and loaded in a process of its own exactly as connect does it. What it
 * shows is another check's business.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const moduleCheck = defineCheck<DoctorContext>()({
  id: "module",
  title: "PKCS#11 module",
  looks:
    "Whether the module that --module names, or that is found on this machine, is there, is a library for this machine, is a PKCS#11 module, and starts. It is loaded in a process of its own.",
  needs: ["native-addon"],
  limitMs: 90_000,
  causes: {
    "none-found": {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      meaning: "Neither p11-kit's configuration nor the usual places have a PKCS#11 module, and --module names none.",
      mend: "install the module of your token, for example ykcs11 or opensc-pkcs11, or name it: --module PATH",
    },
    "some-unusable": {
      status: "warn",
      code: null,
      meaning: "No token was found, and a module of this machine could not be used: it crashed, hung, or does not load.",
      mend: "tokenfwd token list says what is wrong with each; --module names the one of your token",
    },
    missing: {
      status: "fail",
      code: "E_MODULE",
      meaning: "There is no file of the name that --module gives.",
      mend: "check the path given with --module; the module's package may not be installed. tokenfwd token list shows what is found here",
    },
    unreadable: {
      status: "fail",
      code: "E_MODULE",
      meaning: "The file is there, and the system does not let you read it.",
      mend: "look at its owner and mode: ls -lL MODULE",
    },
    "not-a-library": {
      status: "fail",
      code: "E_MODULE",
      meaning: "The path names a directory or a file that is no shared library: a script, a configuration file, an archive.",
      mend: "name the module's .so file with --module",
    },
    architecture: {
      status: "fail",
      code: "E_MODULE",
      meaning: "The library is built for another processor than this Node.js, such as a 32-bit module under a 64-bit Node.js.",
      mend: "install the build of the module that fits this Node.js (the line names the architecture)",
    },
    "leads-elsewhere": {
      status: "fail",
      code: "E_MODULE",
      meaning: "The file is one of p11-kit's own modules. It leads to other modules, or to a socket and so perhaps back here, for ever.",
      mend: "name the module of the token itself, for example opensc-pkcs11.so or libykcs11.so",
    },
    "not-a-module": {
      status: "fail",
      code: "E_MODULE",
      meaning: "The library loads, and has no C_GetFunctionList: it is not a PKCS#11 module.",
      mend: "name the vendor's PKCS#11 module with --module; its documentation calls it a Cryptoki or PKCS#11 library",
    },
    unloadable: {
      status: "fail",
      code: "E_MODULE",
      usual: true,
      meaning: "The dynamic loader refuses the library, mostly because another library that it needs is missing.",
      mend: "run ldd MODULE, and install what it says is not found",
    },
    crashes: {
      status: "fail",
      code: "E_MODULE_FAULT",
      meaning: "The process in which the module was loaded died. The module is broken, or its configuration or its service breaks it.",
      mend: "try it by itself: pkcs11-tool --module MODULE -L; update the module, or tell its vendor",
    },
    hangs: {
      status: "fail",
      code: "E_MODULE_FAULT",
      meaning:
        "The module did not come back from being loaded. It mostly waits for a service (pcscd, the vendor's daemon) or for the network.",
      mend: "check that the module's service runs, then: pkcs11-tool --module MODULE -L",
    },
    refuses: {
      status: "fail",
      code: "E_MODULE_FAULT",
      usual: true,
      meaning: "The module loads, and answers its first call with an error, which the line names.",
      mend: "check the module's own configuration and that its service (pcscd or the vendor's daemon) runs",
    },
  },
  async run({ token, options }, { broken }) {
    if (options.module === null && (await token.module().catch(() => null)) === null) {
      const bad = (await token.seen()).filter(({ state }) => state === "unloadable" || state === "faulty");
      if (bad.length > 0) return broken("some-unusable", bad.map(({ path, why }) => unusable(printable(path ?? ""), why ?? "")).join("; "));
    }
    const path = printable(await token.module());
    await token.host();
    return pass(options.module === null ? `${path}, found by itself` : path);
  },
});

/** Most reasons name the module themselves. */
function unusable(path: string, why: string): string {
  return why.includes(path) ? why : `${path}: ${why}`;
}
