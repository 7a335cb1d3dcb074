/*
 * Lines of choria's configuration, `key = value`, for the network of the tests and for what a test wants beside them.
 */
import type { Leaf } from "./pki.js";

export type Setting = readonly [key: string, value: string | number | boolean];

/** One setting a line. */
export function settingsText(settings: readonly Setting[]): string {
  return settings.map(([key, value]) => `${key} = ${value}\n`).join("");
}

/** Everybody's. Everything is logged to the console, where choria says why a connection failed. */
export const COMMON: readonly Setting[] = [
  ["collectives", "mcollective"],
  ["main_collective", "mcollective"],
  ["plugin.choria.use_srv", false],
  ["plugin.choria.stats_port", 0],
  ["logger_type", "console"],
  ["color", 0],
];

/** Key, certificate and CA in files. */
export function fileProvider(leaf: Leaf, ca: string): Setting[] {
  return [
    ["plugin.security.provider", "file"],
    ["plugin.security.file.ca", ca],
    ["plugin.security.file.certificate", leaf.certificate],
    ["plugin.security.file.key", leaf.key],
  ];
}

/** No key and no certificate: requests are signed at `url`. Add a fileProvider for TLS, or a relayLogin. */
export function requestSigner(url: string, tokenFile: string, seedFile: string): Setting[] {
  return [
    ["plugin.security.provider", "file"],
    ["plugin.choria.security.request_signer.url", url],
    ["plugin.choria.security.request_signer.token_file", tokenFile],
    ["plugin.choria.security.request_signer.seed_file", seedFile],
  ];
}

/** What a relay on loopback wants to know. Run choria with INSECURE_DISABLE_TLS=true then. */
export function relayLogin(user: string, password: string): Setting[] {
  return [
    ["plugin.nats.user", user],
    ["plugin.nats.pass", password],
  ];
}

/** The stock pkcs11 provider; it asks for the PIN on a terminal. */
export function pkcs11Provider(modulePath: string, slot: number | bigint, ca: string): Setting[] {
  return [
    ["plugin.security.provider", "pkcs11"],
    ["plugin.security.pkcs11.driver_file", modulePath],
    ["plugin.security.pkcs11.slot", String(slot)],
    ["plugin.security.file.ca", ca],
  ];
}
