/*
 * The one native part that we have: pkcs11js, which npm compiles at installation. It loads the addon and no PKCS#11 module.
 */
import { loadAddon } from "../../token/driver/native.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const nativeCheck = defineCheck<DoctorContext>()({
  id: "native-addon",
  title: "native addon",
  looks: "Whether pkcs11js, the native addon that loads PKCS#11 modules, was compiled and fits this Node.js.",
  causes: {
    "not-built": {
      status: "fail",
      code: "E_MODULE",
      meaning:
        "npm did not run the install script that compiles pkcs11js (newer npm asks first), or it was compiled for another Node.js. Without it no PKCS#11 module can be loaded.",
      mend: "install a C++ compiler and python3, then: npm rebuild pkcs11js (or: npm install -g --allow-scripts=pkcs11js tokenfwd)",
    },
  },
  async run() {
    loadAddon();
    return pass("pkcs11js loads");
  },
});
