/*
 * The tokens and keys that are seen from the bastion. It must never log in.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { CKF } from "../../cryptoki/constants.js";
import { KeyError } from "../../cryptoki/keys/key-error.js";
import { defineCheck, pass } from "../check.js";
import type { BastionContext } from "./context.js";

export const bastionTokenCheck = defineCheck<BastionContext>()({
  id: "bastion-token",
  title: "token seen from here",
  looks: "Whether a token is seen through the socket, and whether its PIN is locked.",
  needs: ["bastion-agent"],
  causes: {
    "none-there": {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      usual: true,
      meaning: "The agent answers, and there is no token: it was pulled, or the module at the workstation does not see it.",
      mend: "plug it in at the workstation; tokenfwd doctor there says more",
    },
    "pin-locked": {
      status: "fail",
      code: "E_PIN_LOCKED",
      usual: true,
      meaning: "Too many wrong PINs were entered, and the token takes none any more.",
      mend: "unblock it at the workstation with the token's own tool and the PUK or SO PIN",
    },
    faulty: {
      status: "fail",
      code: "E_MODULE_FAULT",
      usual: true,
      meaning: "The module at the workstation answered with an error.",
      mend: "look at what tokenfwd connect says at the workstation; tokenfwd doctor there says more",
    },
  },
  async run({ tokens }, { broken }) {
    const found = await tokens().catch((thrown: unknown) => {
      throw thrown instanceof KeyError ? new TokenfwdError("E_MODULE_FAULT", thrown.message) : thrown;
    });
    if (found.length === 0) return broken("none-there", "the agent shows no token");
    const locked = found.find(({ flags }) => (flags & CKF.CKF_USER_PIN_LOCKED) !== 0n);
    if (locked !== undefined) return broken("pin-locked", `the PIN of "${printable(locked.label)}" is locked`);
    return pass(found.map(({ label, serial }) => `"${label}"${serial === "" ? "" : ` (serial ${serial})`}`).join(", "));
  },
});

export const bastionKeysCheck = defineCheck<BastionContext>()({
  id: "bastion-keys",
  title: "keys seen from here",
  looks: "Which keys may be used from here.",
  needs: ["bastion-token"],
  causes: {
    "none-visible": {
      status: "warn",
      code: null,
      meaning:
        "The token is there and shows no key. It may show its keys only after a log-in, or connect exposes none, or another one than you think.",
      mend: "at the workstation, name the key with --key; tokenfwd token list there shows the URIs",
    },
  },
  async run({ keys }, { broken }) {
    const found = await keys();
    if (found.length === 0) return broken("none-visible", "no key is visible");
    return pass(
      found.map(({ label, type, bits, curve }) => [`"${printable(label, 60)}"`, type, bits ?? curve ?? ""].join(" ").trim()).join(", "),
    );
  },
});
