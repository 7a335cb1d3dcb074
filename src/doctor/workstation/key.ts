/*
 * Which key connect would expose, by connect's own choice on public objects. It must never ask, and never log in.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import { kindOf } from "./key-parts.js";

export const keyCheck = defineCheck<DoctorContext>()({
  id: "key",
  title: "key",
  looks: "Which key would be exposed: the one that --key names, else that of the only certificate, else the only public key.",
  needs: ["token"],
  causes: {
    "several-keys": {
      status: "fail",
      code: "E_KEY_CHOICE",
      usual: true,
      meaning: "The token holds several keys, and nothing says which one is meant. On a terminal connect asks.",
      mend: "name one with --key URI (tokenfwd token list shows the URIs), or --key all",
    },
    "not-found": {
      status: "fail",
      code: "E_KEY_NOT_FOUND",
      usual: true,
      meaning: "No object on the token is what --key names.",
      mend: "take the URI from: tokenfwd token list",
    },
    "none-shown": {
      status: "warn",
      code: null,
      meaning:
        "The token shows no certificate and no public key before a log-in, so there is nothing to choose by. connect then exposes nothing.",
      mend: "name the private key: --key 'pkcs11:token=LABEL;object=NAME;type=private', or put its certificate on the token",
    },
    "objects-unreadable": {
      status: "fail",
      code: "E_MODULE_FAULT",
      meaning: "The token is there, and its objects cannot be listed or read.",
      mend: "try the same with: pkcs11-tool --module MODULE -O",
    },
  },
  async run({ token, options }, { broken }) {
    const key = await token.key();
    if (key === null) return broken("none-shown", "the token shows no certificate and no public key");
    const keys = await token.heldKeys();
    if (keys.length === 0)
      return pass(key === "all" ? "every key, and none is shown before a log-in" : "named, and not shown before a log-in");
    const shown = keys.map(({ name, publicKeys, certificates }) => {
      const spki = publicKeys[0] ?? certificates.find((one) => one.spki !== null)?.spki;
      return spki ? `"${name}" (${kindOf(spki)})` : `"${name}"`;
    });
    return pass(options.key === "all" ? `all: ${shown.join(", ")}` : shown.join(", "));
  },
});
