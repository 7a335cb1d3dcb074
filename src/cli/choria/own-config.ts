/*
 * The user's configuration and what is taken from elsewhere in its place: the brokers and the CA that a relay is given. It must never
 * go on without a CA: whoever answers in a broker's place would see every request.
 */
import { X509Certificate } from "node:crypto";
import { resolveSrv } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { type Broker, brokersOf, parseBroker } from "../../choria/config/brokers.js";
import { pemBlocks } from "../../choria/config/check-certificate.js";
import { type ClientConfig, type ReadClientConfigOptions, readClientConfig } from "../../choria/config/client-config.js";
import { usage } from "../options.js";

export interface OwnConfigOptions extends ReadClientConfigOptions {
  /** PEM of the CA, where it is given in place of the configuration's. */
  readonly caPem: string | null;
  /** In place of the configuration's; empty: those. */
  readonly brokers: readonly Broker[];
  /** The domain of SRV records where the configuration names none. */
  readonly domain: string | null;
  /** The error for a `choria.conf`, which would override what we write; null where none can be in the way. */
  readonly overlaid: ((path: string) => TokenfwdError) | null;
}

export interface OwnConfig {
  readonly config: ClientConfig;
  readonly brokers: readonly Broker[];
  readonly caPem: string;
}

/** Reads it. Rejects with E_CHORIA_CONFIG. */
export async function readOwnConfig(options: OwnConfigOptions): Promise<OwnConfig> {
  const config = await readClientConfig(options);
  const [overlay] = config.overlays;
  if (overlay !== undefined && options.overlaid !== null) throw options.overlaid(printable(overlay));
  const brokers = options.brokers.length > 0 ? options.brokers : await brokersOf(config, resolveSrv, options.domain);
  return { config, brokers, caPem: options.caPem ?? (await readCa(config, options)) };
}

async function readCa({ ca, path }: ClientConfig, { read }: OwnConfigOptions): Promise<string> {
  const hint = "name the CA of the brokers' certificates, a PEM file: --ca FILE";
  if (ca === null)
    throw new TokenfwdError("E_CHORIA_CONFIG", `${printable(path)} names no CA, and the broker is not trusted without`, { hint });
  let text: string | null;
  try {
    text = await read(ca);
  } catch (error) {
    throw new TokenfwdError("E_CHORIA_CONFIG", `the CA ${printable(ca)} cannot be read: ${printable((error as Error).message)}`, { hint });
  }
  if (text === null)
    throw new TokenfwdError("E_CHORIA_CONFIG", `the CA ${printable(ca)}, which ${printable(path)} names, is not there`, { hint });
  return checkCa(text, ca);
}

/** The file of --ca. Throws E_USAGE and E_CHORIA_CONFIG. */
export function readCaFile(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw usage(`--ca: ${printable(path)} cannot be read`, printable((error as Error).message));
  }
  return checkCa(text, path);
}

/** PEM of at least one certificate. Throws E_CHORIA_CONFIG. */
function checkCa(text: string, path: string): string {
  const certificates = pemBlocks(text);
  if (certificates.length === 0) {
    throw new TokenfwdError("E_CHORIA_CONFIG", `${printable(path)} holds no certificate in PEM`, {
      hint: "a CA file has BEGIN CERTIFICATE in it",
    });
  }
  try {
    // OpenSSL would pass over one that is broken, and over all behind it, without a word.
    for (const each of certificates) new X509Certificate(each);
    return text;
  } catch (cause) {
    throw new TokenfwdError("E_CHORIA_CONFIG", `${printable(path)} holds a certificate that is none`, {
      hint: "copy the CA's file there anew",
      cause,
    });
  }
}

/** The values of --broker. Throws E_USAGE. */
export function parseBrokers(words: readonly string[]): readonly Broker[] {
  return words.map((word) => {
    const broker = parseBroker(word);
    if (broker === null)
      throw usage(`--broker takes HOST:PORT, and ${printable(word, 100)} is none`, "for example --broker broker.example.net:4222");
    return broker;
  });
}
