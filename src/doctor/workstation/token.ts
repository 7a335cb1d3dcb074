/*
 * The token: one that --token means, initialised and readable, and no doubt between several. Nobody logs in.
 */
import type { TokenSummary } from "../../agent/inspect.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

/** How a token is shown in a line. */
export function tokenName({ label, serial }: Pick<TokenSummary, "label" | "serial">): string {
  return `"${label}"${serial === "" ? "" : ` (serial ${serial})`}`;
}

export const tokenCheck = defineCheck<DoctorContext>()({
  id: "token",
  title: "token",
  looks: "Which tokens the module shows: whether there is one, whether it is the one that --token means, is initialised and can be read.",
  needs: ["module", "card"],
  limitMs: 90_000,
  causes: {
    none: {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      usual: true,
      meaning: "The module works and shows no token: it is not plugged in, its reader is not seen, or it belongs to another module.",
      mend: "plug the token in; tokenfwd token list shows what each module sees",
    },
    "no-match": {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      meaning: "There are tokens, and none has the label or the attributes that --token gives.",
      mend: "take the label or the URI from: tokenfwd token list",
    },
    "not-initialized": {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      meaning: "There is a token or a slot that was never initialised, so that it has no label, no PIN and no keys.",
      mend: "initialise it with the vendor's own tool (SoftHSM: softhsm2-util --init-token --free --label NAME)",
    },
    unreadable: {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      meaning:
        "There is a card, and the module cannot read it: it is of a kind that the module does not know, or another program holds it.",
      mend: "try the module that the card's vendor names, with --module; the check card names who holds it",
    },
    unlistable: {
      status: "fail",
      code: "E_MODULE_FAULT",
      meaning: "The module started and could not list its slots.",
      mend: "try the same with: pkcs11-tool --module MODULE -L",
    },
    "pin-pad": {
      status: "fail",
      code: "E_TOKEN_UNSUPPORTED",
      usual: true,
      meaning: "The token's PIN is typed on the reader's own pad, which this version cannot use.",
      mend: "choose another token with --token, or switch the reader's PIN pad off in the module's configuration",
    },
    "several-tokens": {
      status: "fail",
      code: "E_KEY_CHOICE",
      meaning: "The module shows several tokens with keys, and nothing says which one is meant. On a terminal connect asks.",
      mend: "name one: --token LABEL (or its URI from: tokenfwd token list), or the key itself with --key",
    },
    "several-modules": {
      status: "fail",
      code: "E_KEY_CHOICE",
      meaning: "Several modules of this machine show a token, and nothing says which one is meant.",
      mend: "name the module with --module, or the token with --token; tokenfwd token list shows both",
    },
  },
  async run({ token }) {
    const { tokens } = await token.inspection();
    // Which of several is meant is decided by the key, as connect does it.
    if (tokens.length > 1) await token.key();
    return pass(tokens.map(tokenName).join(", "));
  },
});
