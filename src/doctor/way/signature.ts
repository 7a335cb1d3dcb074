/*
 * A real signature over a text of doctor's, asked for at the bastion's end of the socket, and verified here. It must never spend a PIN
 * try more than once, and never run where nobody can give the PIN.
 */
import { randomBytes } from "node:crypto";
import type { AgentPort } from "../../agent/agent.js";
import { unlockError } from "../../agent/unlock-error.js";
import { TokenfwdError } from "../../base/errors.js";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import { CKR } from "../../cryptoki/rv.js";
import { defineCheck, notReached, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import { signatureFits } from "../signature-fits.js";

export const signatureCheck = defineCheck<DoctorContext>()({
  id: "signature",
  title: "signature",
  looks:
    "Whether a signature that is asked for on the bastion is made by the token here and fits its public key. The PIN comes from --pin-source, the terminal or pinentry; with none of them this is not reached.",
  needs: ["pin", "key", "pin-source", "verify"],
  // A person types a PIN and touches a token.
  limitMs: 240_000,
  causes: {
    "pin-wrong": {
      status: "fail",
      code: "E_PIN_WRONG",
      usual: true,
      meaning: "The token refused the PIN. It was tried once.",
      mend: "check the PIN, or the file of --pin-source, before the next try: the token counts them",
    },
    "pin-cancelled": {
      status: "fail",
      code: "E_PIN_CANCELLED",
      usual: true,
      meaning: "The question for the PIN was cancelled.",
      mend: "run it again and answer, or leave the signature out: run it without a terminal",
    },
    "pin-timeout": {
      status: "fail",
      code: "E_PIN_CANCELLED",
      meaning: "Nobody answered the question for the PIN within a minute.",
      mend: "run it again and answer; pinentry may have opened its window on another screen",
    },
    "last-try-declined": {
      status: "fail",
      code: "E_PIN_LOCKED",
      meaning: "One PIN try was left, and it was not spent.",
      mend: "unblock the PIN with the token's own tool first",
    },
    "locked-now": {
      status: "fail",
      code: "E_PIN_LOCKED",
      meaning: "The token says at the log-in that its PIN is locked.",
      mend: "unblock it with the token's own tool, which asks for the PUK or SO PIN",
    },
    "cannot-sign": {
      status: "fail",
      code: "E_MECHANISM",
      usual: true,
      meaning: "The token has the key, and cannot sign with it by the usual mechanism of its kind.",
      mend: "see what it can: pkcs11-tool --module MODULE -M; a key for encryption alone (CKA_SIGN false) does not sign",
    },
    refused: {
      status: "fail",
      code: "E_REFUSED",
      usual: true,
      meaning: "The policy, or the person at the workstation, said no.",
      mend: "use --policy sign (the default), and answer the question with yes",
    },
    "wrong-signature": {
      status: "fail",
      code: "E_MODULE_FAULT",
      meaning:
        "A signature came back, and it does not fit the public key: the module is broken, or the certificate beside the key is another key's.",
      mend: "see the check certificate; try the module itself: pkcs11-tool --module MODULE --login --test",
    },
    "unlock-failed": {
      status: "fail",
      code: "E_MODULE_FAULT",
      meaning: "The module answered the log-in or the signature with an error of its own.",
      mend: "try the same with: pkcs11-tool --module MODULE --login -O",
    },
  },
  async run({ token, way, options }, { broken, signal }) {
    if (options.profile === "read") return notReached("the profile read signs nothing");
    if (options.pinSource.kind === "client") return notReached("with --pin-source client a program there gives the PIN");
    if ((await token.key()) === null) return notReached("no key is exposed");
    const proof = await way.proof();
    if (!proof.passed) return notReached("the socket cannot be called from there");
    if (!(await (await token.host()).canAsk()))
      return notReached("there is nothing to ask the PIN with: no terminal, no pinentry, no --pin-source");
    try {
      const before = performance.now();
      const side = await way.agentSide();
      await unlock(await token.agent(), await way.origin(), signal);
      const [key] = side.keys;
      const given = await token.key();
      const uri = given === "all" || given === null ? (key?.uri ?? null) : given;
      if (uri === null) return notReached("no key is exposed");
      const data = Buffer.from(`tokenfwd doctor ${randomBytes(16).toString("hex")}`);
      const request = {
        key: { uri, spki: null },
        mechanism: null,
        parameter: null,
        data,
        isDigest: false,
        purpose: "doctor",
        expect: null,
      };
      const asked = performance.now();
      const result = await side.sign(request, signal);
      const ms = Math.round(performance.now() - asked);
      const spki = result.spki ?? side.keys.find((one) => one.uri === result.uri)?.spki ?? null;
      const fits = spki === null ? null : signatureFits(data, result.signature, spki);
      if (fits === false) return broken("wrong-signature", `${mechanismName(result.mechanism)}: it does not fit the public key`);
      if (fits === null) return pass(`${mechanismName(result.mechanism)}, ${ms} ms; not compared, the token shows no public key`);
      return pass(`${mechanismName(result.mechanism)}, ${ms} ms, after ${Math.round(asked - before)} ms for the log-in`);
    } catch (thrown) {
      signal.throwIfAborted();
      const error = TokenfwdError.from(thrown);
      if (error.code !== "E_MODULE_FAULT") throw error;
      return { status: "broken", cause: "unlock-failed", detail: error.message, ...(error.hint === undefined ? {} : { mend: error.hint }) };
    }
  },
});

async function unlock(agent: AgentPort, origin: Parameters<AgentPort["unlock"]>[0], signal: AbortSignal): Promise<void> {
  const result = await agent.unlock(origin, signal);
  signal.throwIfAborted();
  if (result.rv !== CKR.CKR_OK) throw unlockError(result);
}
