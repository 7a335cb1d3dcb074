/*
 * Decides about a bastion's host key as ssh does, from the known_hosts files through `ssh-keygen -F` (which knows hashed
 * names and patterns). It must never accept a changed or revoked key, and never write a line that nobody agreed to.
 */
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { TokenfwdError } from "../base/errors.js";
import { printable, shellWord } from "../base/printable.js";
import { run } from "../base/run.js";
import type { SshSettings } from "./ssh-settings.js";

/** One line of a known_hosts file that names the host. */
export interface KnownKey {
  readonly marker: "revoked" | "ca" | null;
  readonly type: string;
  /** The key blob. */
  readonly key: Buffer;
  readonly file: string;
  readonly line: number;
  /** Known for the host on port 22, while we go to another port: a match counts, as for ssh, a mismatch says nothing. */
  readonly otherPort?: true;
}

/** What ssh would say about a key. `unknown` still has to be confirmed or refused. */
export type HostKeyVerdict = "known" | "unknown";

/** The name under which the host's keys are kept: HostKeyAlias, or the host, with its port unless that is 22. */
export function knownHostsName(settings: Pick<SshSettings, "host" | "port" | "hostKeyAlias">): string {
  if (settings.hostKeyAlias !== null) return settings.hostKeyAlias;
  const host = settings.host.toLowerCase();
  return settings.port === 22 ? host : `[${host}]:${settings.port}`;
}

/** `SHA256:...` as ssh prints it. */
export function fingerprint(key: Buffer): string {
  return `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
}

/** The key's type as its blob says, e.g. `ssh-ed25519`; empty for a blob that is none. */
export function keyType(key: Buffer): string {
  if (key.length < 4) return "";
  const length = key.readUInt32BE(0);
  return length > 64 || key.length < 4 + length ? "" : printable(key.subarray(4, 4 + length));
}

async function lookUp(name: string, file: string): Promise<KnownKey[]> {
  if (!existsSync(file)) return [];
  const result = await run("ssh-keygen", ["-F", name, "-f", file]);
  if (result.failure === "missing")
    throw new TokenfwdError("E_SSH_CONFIG", "there is no ssh-keygen program on PATH", {
      hint: "install the OpenSSH client",
      reason: "ssh-missing",
    });
  // 1 is "not found"; anything else and we do not know what is known, which must not pass for "nothing".
  if (result.exitCode !== 0 && result.exitCode !== 1) {
    const why = result.failure ?? printable(result.stderr.toString("utf8").trim().split("\n").at(-1) ?? "");
    throw new TokenfwdError("E_SSH_CONFIG", `ssh-keygen could not look into ${printable(file)}: ${why}`, {
      hint: `try it yourself: ssh-keygen -F ${shellWord(name)} -f ${shellWord(file)}`,
      reason: "ssh-config-broken",
    });
  }
  const found: KnownKey[] = [];
  let line = 0;
  for (const text of result.stdout.toString("utf8").split("\n")) {
    const heading = /^# Host .* found: line (\d+)/.exec(text);
    if (heading !== null) line = Number(heading[1]);
    if (heading !== null || text.trim() === "" || text.startsWith("#")) continue;
    const words = text.trim().split(/\s+/);
    const first = words[0] ?? "";
    const marker = first === "@revoked" ? "revoked" : first === "@cert-authority" ? "ca" : null;
    const [type, blob] = words.slice(marker === null ? 1 : 2);
    if (type !== undefined && blob !== undefined) found.push({ marker, type, key: Buffer.from(blob, "base64"), file, line });
  }
  return found;
}

/** Every line about this host in the user's and the global files, in ssh's order. @throws TokenfwdError E_SSH_CONFIG, E_SSH_UNSUPPORTED */
export async function findKnownKeys(settings: SshSettings): Promise<readonly KnownKey[]> {
  const name = knownHostsName(settings);
  const found: KnownKey[] = [];
  for (const file of [...settings.userKnownHostsFiles, ...settings.globalKnownHostsFiles]) found.push(...(await lookUp(name, file)));
  if (found.every((known) => known.marker !== null) && settings.hostKeyAlias === null && settings.port !== 22) {
    for (const file of [...settings.userKnownHostsFiles, ...settings.globalKnownHostsFiles]) {
      const plain = await lookUp(settings.host.toLowerCase(), file);
      found.push(...plain.filter((known) => known.marker !== "ca").map((known) => ({ ...known, otherPort: true as const })));
    }
  }
  const authority = found.find((known) => known.marker === "ca");
  if (authority !== undefined && !found.some((known) => known.marker === null)) {
    throw new TokenfwdError(
      "E_SSH_UNSUPPORTED",
      `the host key of ${printable(name)} is vouched for by a certificate authority (@cert-authority), which this version cannot check`,
      {
        hint: `add the plain key with ssh-keyscan, after checking it; the authority is in ${printable(authority.file)} line ${authority.line}`,
        reason: "host-key-authority",
      },
    );
  }
  return found;
}

/** Key types in the order of what is known first, so that a server with several keys shows the one we can check. */
export function preferredKeyTypes(known: readonly KnownKey[], supported: readonly string[]): string[] {
  const wanted = known
    .filter((one) => one.marker === null)
    .flatMap((one) => (one.type === "ssh-rsa" ? ["rsa-sha2-512", "rsa-sha2-256"] : [one.type]));
  return [...new Set([...wanted.filter((type) => supported.includes(type)), ...supported])];
}

/**
 * Judges the key a server has shown.
 * @throws TokenfwdError E_HOST_KEY_CHANGED with file and line: revoked, or other keys are known and this one is not among them
 */
export function judgeHostKey(name: string, key: Buffer, known: readonly KnownKey[]): HostKeyVerdict {
  const revoked = known.find((one) => one.marker === "revoked" && one.key.equals(key));
  if (revoked !== undefined) {
    throw new TokenfwdError("E_HOST_KEY_CHANGED", `the host key of ${printable(name)} is revoked (${fingerprint(key)})`, {
      hint: `${printable(revoked.file)} line ${revoked.line} revokes it; do not connect before the bastion's administrator explains`,
      reason: "host-key-revoked",
    });
  }
  const plain = known.filter((one) => one.marker === null);
  if (plain.some((one) => one.key.equals(key))) return "known";
  const here = plain.filter((one) => one.otherPort !== true);
  const other = here.find((one) => one.type === keyType(key)) ?? here[0];
  if (other === undefined) return "unknown";
  throw new TokenfwdError(
    "E_HOST_KEY_CHANGED",
    `the host key of ${printable(name)} has changed: it is ${keyType(key)} ${fingerprint(key)}`,
    {
      hint: `somebody may be listening; known is ${other.type} ${fingerprint(other.key)} in ${printable(other.file)} line ${other.line}. If the administrator confirms the new key: ssh-keygen -R ${shellWord(name)} -f ${shellWord(other.file)}`,
      reason: "host-key-changed",
    },
  );
}

/**
 * Adds the key to the first of UserKnownHostsFile, which is made 0600 (its directory 0700) when missing; the name is
 * hashed when HashKnownHosts says so. Call it only after a person or StrictHostKeyChecking agreed. False when the file
 * cannot be written, which ssh takes for no reason to stop either.
 */
export async function addKnownKey(settings: SshSettings, key: Buffer): Promise<boolean> {
  const file = settings.userKnownHostsFiles[0];
  if (file === undefined || file === "/dev/null") return true;
  let line = `${knownHostsName(settings)} ${keyType(key)} ${key.toString("base64")}\n`;
  if (settings.hashKnownHosts) line = await hashed(line);
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const before = existsSync(file) ? readFileSync(file, "utf8") : null;
    const gap = before !== null && before !== "" && !before.endsWith("\n") ? "\n" : "";
    writeFileSync(file, gap + line, { flag: "a", mode: 0o600 });
    if (before === null) chmodSync(file, 0o600);
    return true;
  } catch {
    return false;
  }
}

async function hashed(line: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "tokenfwd-"));
  try {
    const file = join(directory, "known_hosts");
    writeFileSync(file, line, { mode: 0o600 });
    const result = await run("ssh-keygen", ["-H", "-f", file]);
    if (result.exitCode !== 0)
      throw new TokenfwdError("E_SSH_CONFIG", "ssh-keygen -H could not hash the host's name", {
        hint: "set HashKnownHosts no for this host",
      });
    return readFileSync(file, "utf8");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
