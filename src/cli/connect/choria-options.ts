/*
 * The options of connect that belong to --choria. It must never let one stand that --choria cannot keep.
 */
import { parseMaxTtl } from "../choria/max-ttl.js";
import { parseBrokers, readCaFile } from "../choria/own-config.js";
import { checkFile, usage } from "../options.js";
import type { RawConnectOptions } from "../program.js";
import type { ChoriaOptions } from "./choria.js";

/** Checks them. Throws E_USAGE, and E_CHORIA_CONFIG for a file that is no CA. */
export function checkChoriaOptions(raw: RawConnectOptions): ChoriaOptions | null {
  const { choriaConfig, ca, broker = [], maxTtl } = raw;
  if (raw.choria !== true) {
    const alone = { "--choria-config": choriaConfig, "--ca": ca, "--broker": broker[0], "--max-ttl": maxTtl };
    const [without] = Object.entries(alone).filter(([, value]) => value !== undefined);
    if (without !== undefined) throw usage(`${without[0]} is for --choria`, "add --choria, or leave it out");
    return null;
  }
  const refuse = (option: string, why: string, hint: string): never => {
    throw usage(`--choria cannot hold with ${option}: ${why}`, hint);
  };
  if (raw.stock === true)
    refuse(
      "--stock",
      "its signer asks our agent, which asks for the PIN here",
      "leave out --stock, or use: --stock --tools -- tokenfwd choria run --pin-source ask -- ...",
    );
  if (raw.policy === "read") refuse("--policy read", "nothing is signed under it", "leave out --policy");
  if (raw.pinSource === "client")
    refuse("--pin-source client", "nobody on the bastion would be asked for the PIN", "let it be asked here: leave out --pin-source");
  return {
    configFile: choriaConfig === undefined ? null : checkFile(choriaConfig, "--choria-config"),
    caPem: ca === undefined ? null : readCaFile(ca),
    brokers: parseBrokers(broker),
    maxTtlSeconds: parseMaxTtl(maxTtl),
  };
}
