/*
 * Where the PIN would come from, looked at and not read. It must never open a PIN file for its content.
 */
import { fstatSync } from "node:fs";
import { printable } from "../../base/printable.js";
import { checkPinFile } from "../../token/host/pin-file.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const pinSourceCheck = defineCheck<DoctorContext>()({
  id: "pin-source",
  title: "PIN source",
  looks: "Whether what --pin-source names can be used: a file of yours with mode 0600, an open descriptor. Nothing is read from it.",
  causes: {
    unusable: {
      status: "fail",
      code: "E_PIN_SOURCE",
      usual: true,
      meaning: "The PIN file is missing, is a link, belongs to somebody else or can be read by others; or the descriptor is not open.",
      mend: "name a regular file of your own, mode 0600 (chmod 600 FILE), or open the descriptor in the shell: fd:3 with 3<FILE",
    },
    "crosses-the-wire": {
      status: "warn",
      code: null,
      meaning: "With --pin-source client the PIN is typed on the bastion and crosses the connection.",
      mend: "leave out --pin-source client: the PIN is then asked for here, and programs there may be given anything",
    },
  },
  async run({ options: { pinSource } }, { broken }) {
    switch (pinSource.kind) {
      case "file":
        checkPinFile(pinSource.path);
        return pass(`the file ${printable(pinSource.path)}`);
      case "fd":
        try {
          fstatSync(pinSource.fd);
        } catch {
          return broken("unusable", `descriptor ${pinSource.fd} is not open`);
        }
        return pass(`descriptor ${pinSource.fd}`);
      case "client":
        return broken("crosses-the-wire", "a client's own PIN is used");
      default:
        return pass("asked for at this workstation");
    }
  },
});
