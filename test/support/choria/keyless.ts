/*
 * An operator without a key: the configuration that they have on a bastion, and what is read from the answers they get there.
 */
import type { ChoriaNetwork } from "./network.js";
import { COMMON, type Setting } from "./settings.js";

/** The configuration of an operator who has no key here. */
export const keyless = (network: ChoriaNetwork, broker = `nats://localhost:${network.port}`): Setting[] => [
  ...COMMON,
  ["discovery_timeout", 2],
  ["plugin.choria.middleware_hosts", broker],
  ["plugin.security.provider", "file"],
  ["plugin.security.file.ca", network.pki.ca],
];

/** Who answered `req ... --json` with OK. Throws with all of it where it is no document. */
export function answered(stdout: Buffer | string, stderr = ""): string[] {
  const text = String(stdout);
  let parsed: { readonly replies?: readonly { readonly sender: string; readonly statuscode: number }[] };
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new Error(`not one JSON document: ${text}${stderr}`);
  }
  return (parsed.replies ?? [])
    .filter(({ statuscode }) => statuscode === 0)
    .map(({ sender }) => sender)
    .sort();
}

/** Both servers. */
export const BOTH: readonly string[] = ["node1.example.net", "node2.example.net"];
