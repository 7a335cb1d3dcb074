/*
 * What is wrong with a client's configuration, with the files that it names and with the token, each with what mends it. For
 * `tokenfwd choria check` and for doctor. It must never change anything, look anything up in the network, or ask the token to sign.
 */
import { asMeant } from "./as-meant.js";
import { checkLines } from "./check-lines.js";
import { checkNetwork } from "./check-network.js";
import { checkPlaces } from "./check-places.js";
import { checkProvider } from "./check-provider.js";
import { checkSigner } from "./check-signer.js";
import { checkToken } from "./check-token.js";
import { type CheckConfigInput, type ConfigReport, createFindings } from "./finding.js";

/** Looks at it all. Rejects with nothing of its own: what cannot be read is a finding. */
export async function checkConfig(given: CheckConfigInput): Promise<ConfigReport> {
  const findings = createFindings();
  checkLines(given.config, findings);
  // Lines that choria misreads are named above; the rest is about what would be there without these mistakes.
  const input = { ...given, config: asMeant(given.config, given) };
  await checkPlaces(input, findings);
  const facts = await checkProvider(input, findings);
  await checkSigner(input, findings);
  checkNetwork(input, findings);
  const notLooked: string[] = [];
  if ("keys" in input.token) checkToken(input, input.token.keys, facts, findings);
  else notLooked.push(`the token: ${input.token.notLooked}`);
  if ("keys" in input.token && facts.authorities === null)
    notLooked.push("whether the CA issued the token's certificate: the CA could not be read");
  return { findings: findings.done(), notLooked };
}
