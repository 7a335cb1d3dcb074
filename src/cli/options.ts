/*
 * The options that connect and agent run share, checked before anything is started. It must never echo the value of a URI
 * that could hold a PIN, and never touch a module, a socket or the network.
 */
import { statSync } from "node:fs";
import type { Profile } from "../agent/policy.js";
import { TokenfwdError } from "../base/errors.js";
import { parseSelector } from "../cryptoki/uri.js";
import type { PinSource } from "../token/host/host.js";
import { MAX_HOSTS } from "../token/host/pool.js";

/** Long enough for a person at work, short enough for the next program that wants the card. */
const HOLD_MS = 60_000;

/** What says which module, token and key are meant and what may be done with them. */
export interface TokenOptions {
  /** Null: it is found (token/discovery). */
  readonly module: string | null;
  /** Label or `pkcs11:` URI. */
  readonly token: string | null;
  /** `pkcs11:` URI, `all`, or null when the command decides. */
  readonly key: string | null;
  readonly pinSource: PinSource;
  readonly profile: Profile;
  readonly allowRawRsa: boolean;
  /** A token that nobody uses is released after so long; null: never. */
  readonly holdMs: number | null;
  /** Processes with the module. */
  readonly hosts: number;
}

/** The shared options as the command line gives them. */
export interface RawTokenOptions {
  readonly module?: string;
  readonly token?: string;
  readonly key?: string;
  readonly pinSource?: string;
  readonly policy?: string;
  readonly allowRawRsa?: boolean;
  readonly hold?: string;
  readonly hosts?: string;
}

/** Checks the shared options. Throws E_USAGE, E_MODULE or E_PIN_SOURCE. */
export function checkTokenOptions(raw: RawTokenOptions): TokenOptions {
  if (raw.token !== undefined) checkUri(raw.token, "--token");
  if (raw.key !== undefined && raw.key !== "all") {
    if (!/^pkcs11:/i.test(raw.key))
      throw usage("--key takes a pkcs11: URI or the word all", "tokenfwd agent run and p11tool --list-all print such URIs");
    checkUri(raw.key, "--key");
  }
  return {
    module: checkModule(raw.module),
    token: raw.token ?? null,
    key: raw.key ?? null,
    pinSource: parsePinSource(raw.pinSource ?? "ask"),
    profile: parseProfile(raw.policy ?? "sign"),
    allowRawRsa: raw.allowRawRsa === true,
    holdMs: raw.hold === undefined ? HOLD_MS : parseHold(raw.hold),
    hosts: checkHosts(raw),
  };
}

/** Several processes with one token see what they have seen: nobody may change it under them, and only the workstation's PIN logs them in. */
function checkHosts({ hosts = "1", pinSource, policy }: RawTokenOptions): number {
  const count = parseNumber(hosts, "--hosts", 1, MAX_HOSTS);
  if (count > 1 && pinSource === "client")
    throw usage("--hosts and --pin-source client exclude one another", "let the PIN be asked for here, or leave --hosts out");
  if (count > 1 && policy === "full")
    throw usage("--hosts is for signing, and --policy full lets the token be changed", "leave one of the two out");
  return count;
}

function checkUri(text: string, option: string): void {
  if (text === "") throw usage(`${option} is empty`, `leave ${option} out, or name what you mean`);
  if (/^pkcs11:/i.test(text)) parseSelector(text);
  else if (/pin-(value|source)=/i.test(text))
    throw usage(`${option} carries a PIN, which is not taken from the command line`, "the PIN is asked for, or comes from --pin-source");
}

function checkModule(path: string | undefined): string | null {
  if (path === undefined) return null;
  if (path === "") throw usage("--module is empty", "leave it out, and the module is found, or name its file");
  if (/^pkcs11:/i.test(path))
    throw usage(
      "--module takes the path of a shared library, not a URI",
      "name the module's file, for example --module /usr/lib/softhsm/libsofthsm2.so",
    );
  return path;
}

/** `ask`, `file:PATH`, `fd:N` or `client`. Throws E_USAGE. */
export function parsePinSource(text: string): PinSource {
  if (text === "ask" || text === "client") return { kind: text };
  const [, kind, value] = /^(file|fd):(.+)$/s.exec(text) ?? [];
  if (kind === "file" && value !== undefined) return { kind: "file", path: value };
  if (kind === "fd" && value !== undefined && /^[0-9]{1,4}$/.test(value)) return { kind: "fd", fd: checkDescriptor(Number(value)) };
  // What was given is not shown: it may be a PIN.
  throw usage(
    "--pin-source takes ask, file:PATH, fd:N or client",
    "a PIN never stands on a command line; put it into a file of mode 0600 or use ask",
  );
}

function checkDescriptor(fd: number): number {
  if (fd < 3) throw usage("--pin-source fd:N takes a descriptor from 3 on", "0, 1 and 2 are the command's own: use fd:3 with 3<FILE");
  return fd;
}

/** Seconds, or `forever`. Throws E_USAGE. */
function parseHold(text: string): number | null {
  return text === "forever" ? null : parseNumber(text, "--hold", 0, 86_400) * 1000;
}

function parseProfile(text: string): Profile {
  if (text === "read" || text === "sign" || text === "full") return text;
  throw usage("--policy takes read, sign or full", "sign is the default: look, log in, sign, and change nothing");
}

/** A whole number between two limits. Throws E_USAGE naming the option. */
export function parseNumber(text: string, option: string, least: number, most: number): number {
  const value = Number(text);
  if (/^[0-9]{1,9}$/.test(text) && value >= least && value <= most) return value;
  throw usage(`${option} takes a number from ${least} to ${most}`, `for example ${option} ${least}`);
}

/** A file the user named. Throws E_USAGE when it is not there. */
export function checkFile(path: string, option: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isFile()) return path;
  throw usage(`${option} names ${path}, which is not a file`, "check the path");
}

/** An E_USAGE error with a hint. */
export function usage(message: string, hint: string): TokenfwdError {
  return new TokenfwdError("E_USAGE", message, { hint });
}
