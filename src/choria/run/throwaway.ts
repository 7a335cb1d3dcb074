/*
 * The configuration that choria runs with, made of the user's own: what is theirs stays (collectives, discovery, time-outs, colours,
 * log), what concerns brokers, TLS and keys is ours. It must never hold the password of the relay, nor a value that could begin another
 * line.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";

/** Of the user's own configuration what is wanted here (config/client-config.ts has all of it): every key with what counts for it. */
export interface OwnConfig {
  readonly values: ReadonlyMap<string, { readonly value: string }>;
  readonly collectives: readonly string[];
  readonly mainCollective: string;
  /** Seconds. */
  readonly discoveryTimeout: number;
}

/** What signer and relay are reached by, as the child sees them. */
export interface Throwaway {
  /** Of the relay: `HOST:PORT`. */
  readonly relay: string;
  /** Of the signer: `http://...`. */
  readonly signerUrl: string;
  readonly tokenFile: string;
  readonly seedFile: string;
  /** Seconds; null leaves it as the user has it. */
  readonly discoveryTimeout: number | null;
}

/** Where the relay, or the signer's request, stands in for what these say. */
const OURS = [
  /^plugin\.security\./,
  /^plugin\.choria\.security\./,
  /^plugin\.nats\./,
  /^plugin\.login\./,
  /^plugin\.choria\.network\.(?!connect_timeout$)/,
  /^plugin\.choria\.(middleware_hosts|federation_middleware_hosts|ssldir)$/,
  /^(collectives|main_collective)$/,
];

/** The text of the configuration. @throws TokenfwdError E_CHORIA_CONFIG for a value that no line can hold */
export function throwawayConfig(own: OwnConfig, ours: Throwaway): string {
  const lines = ["# made by tokenfwd for one run, and gone with it"];
  const add = (key: string, value: string): void => {
    if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(key + value)) {
      throw new TokenfwdError("E_CHORIA_CONFIG", `the value of ${printable(key, 100)} in choria's configuration holds control characters`, {
        hint: "write it anew in the configuration",
      });
    }
    if (value !== "") lines.push(`${key} = ${value}`);
  };
  for (const [key, { value }] of own.values) if (!OURS.some((pattern) => pattern.test(key))) add(key, value);
  // Without one its log goes to stdout, among the results; this way we can keep what concerns the relay out of it.
  if (!own.values.has("logfile")) {
    add("logfile", "/dev/stderr");
    // Its own is info, which tells of every connection.
    if (!own.values.has("loglevel")) add("loglevel", "warn");
  }
  if (ours.discoveryTimeout !== null) add("discovery_timeout", String(ours.discoveryTimeout));
  add("collectives", own.collectives.join(","));
  add("main_collective", own.mainCollective);
  add("plugin.choria.middleware_hosts", `nats://${ours.relay}`);
  // What counts in a federation, which a variable can name too.
  add("plugin.choria.federation_middleware_hosts", `nats://${ours.relay}`);
  // The variables that carry both count only where the file has the keys.
  add("plugin.nats.user", "x");
  add("plugin.nats.pass", "x");
  add("plugin.security.provider", "file");
  add("plugin.choria.security.request_signer.url", ours.signerUrl);
  add("plugin.choria.security.request_signer.token_file", ours.tokenFile);
  add("plugin.choria.security.request_signer.seed_file", ours.seedFile);
  return `${lines.join("\n")}\n`;
}

/**
 * The discovery_timeout for a token that was waited for, in seconds: the next touch may take twice as long as the first. null where
 * nobody waited; broadcast discovery always takes all of it.
 */
export function patientTimeout(own: OwnConfig, waitedSeconds: number): number | null {
  if (waitedSeconds < 1) return null;
  return own.discoveryTimeout + Math.min(15, Math.max(5, Math.ceil(2 * waitedSeconds)));
}
