/*
 * OpenSC's spy between a program and a SoftHSM: counts what the token's keys are asked to do, whoever asks. It must only see the
 * throw-away tokens of tests: it writes down PINs.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { SoftHsm } from "../softhsm.js";

export interface SpiedToken {
  /** To be loaded in the place of the token's own module, by processes with this environment. */
  readonly modulePath: string;
  readonly env: NodeJS.ProcessEnv;
  /** How many signatures came out so far: a C_SignInit may have been made ahead, and a C_Sign may have asked for a length. */
  signatures(): number;
}

/** As the spy writes bytes that came back; without any there is no line of them. */
const SIGNATURE = /^\[out\] pSignature\[\*pulSignatureLen\] [0-9a-f]+ \/ \d+\n {4}0{8} /gm;

/** Watches a token from now on. One at a time for each token. */
export function spyOn(token: SoftHsm): SpiedToken {
  const places = readdirSync("/usr/lib", { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && entry.name.endsWith("-linux-gnu"),
  );
  const modulePath = places.map(({ name }) => `/usr/lib/${name}/pkcs11-spy.so`).find((path) => existsSync(path));
  if (modulePath === undefined) throw new Error("pkcs11-spy.so is not installed; run npm run setup");
  const output = join(token.dir, "spy.log");
  return {
    modulePath,
    env: { ...token.env, PKCS11SPY: token.modulePath, PKCS11SPY_OUTPUT: output },
    signatures: () => (existsSync(output) ? (readFileSync(output, "latin1").match(SIGNATURE) ?? []).length : 0),
  };
}
