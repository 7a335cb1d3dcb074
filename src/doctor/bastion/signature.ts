/*
 * A real signature from the bastion, by the key that is seen there, verified here. Made only where somebody said that the PIN may be
 * asked for. It must never try a PIN twice.
 */
import { randomBytes } from "node:crypto";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import { defineCheck, notReached, pass } from "../check.js";
import { signatureFits } from "../signature-fits.js";
import type { BastionContext } from "./context.js";

export const bastionSignatureCheck = defineCheck<BastionContext>()({
  id: "bastion-signature",
  title: "signature from here",
  looks:
    "Whether a signature that is asked for here is made and fits the public key. Made only with --pin-source, because it needs the PIN.",
  needs: ["bastion-keys"],
  // A person types a PIN and touches a token.
  limitMs: 240_000,
  causes: {
    "pin-refused": {
      status: "fail",
      code: "E_PIN_WRONG",
      usual: true,
      meaning: "The token refused the PIN. It was tried once.",
      mend: "check the PIN before the next try: the token counts them",
    },
    "nobody-answered": {
      status: "fail",
      code: "E_PIN_CANCELLED",
      usual: true,
      meaning: "The question for the PIN was cancelled, or nobody answered it.",
      mend: "run it again, and answer where the token is",
    },
    "nothing-to-ask-with": {
      status: "fail",
      code: "E_PIN_SOURCE",
      usual: true,
      meaning: "The PIN is wanted on this side, and there is nothing to ask it with.",
      mend: "run it on a terminal, or name --pin-source file:PATH (yours, mode 0600)",
    },
    "said-no": {
      status: "fail",
      code: "E_REFUSED",
      usual: true,
      meaning: "The policy, or the person at the workstation, said no.",
      mend: "ask whoever sits at the workstation; --policy sign is the one that lets sign",
    },
    "no-mechanism": {
      status: "fail",
      code: "E_MECHANISM",
      usual: true,
      meaning: "The token has the key, and cannot sign with it by the usual mechanism of its kind.",
      mend: "tokenfwd keys --json lists what the key can",
    },
    "does-not-fit": {
      status: "fail",
      code: "E_KEY_MISMATCH",
      usual: true,
      meaning: "A signature came back, and it does not fit the public key that the token shows.",
      mend: "at the workstation: tokenfwd doctor; its checks of certificate and module say more",
    },
  },
  async run({ client, keys, mayAsk }, { broken, signal }) {
    if (!mayAsk) return notReached("needs a PIN: say --pin-source ask to have one made");
    const [key] = await keys();
    if (key === undefined) return notReached("no key is visible");
    const data = Buffer.from(`tokenfwd doctor ${randomBytes(16).toString("hex")}`);
    const named = { uri: key.uri, spki: null };
    const asked = performance.now();
    const { signer } = await client();
    const request = { key: named, mechanism: null, parameter: null, data, isDigest: false, purpose: "doctor", expect: null };
    const result = await signer.sign(request, { signal });
    const how = `${mechanismName(result.mechanism)}, ${Math.round(performance.now() - asked)} ms`;
    const spki = result.spki ?? key.spki;
    const fits = spki === null ? null : signatureFits(data, result.signature, spki);
    if (fits === false) return broken("does-not-fit", how);
    return pass(fits === null ? `${how}; not compared, the token shows no public key` : how);
  },
});
