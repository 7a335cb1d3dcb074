/*
 * What lets a choria on this machine use our signer and keeps everybody else out: a token that it sends, and an ed25519 seed that
 * it signs with, as files that stock Choria reads. They must never lie where another user could read or replace them.
 */
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import { directoryFault, lstatOrNull, makeDirectory } from "../../base/paths.js";
import { printable } from "../../base/printable.js";

export interface SignerSecrets {
  /** Sent verbatim: 43 characters of base64url. */
  readonly token: Buffer;
  /** 64 hex digits and no newline, which stock Choria does not take. */
  readonly seed: Buffer;
}

/** Where they lie, for `request_signer.token_file` and `request_signer.seed_file`. */
export interface SecretFiles {
  readonly tokenFile: string;
  readonly seedFile: string;
}

const TOKEN = /^[A-Za-z0-9_-]{43}$/;
const SEED = /^[0-9a-f]{64}$/;
/** A PKCS#8 ed25519 key (RFC 8410) up to its 32 bytes. */
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

/** New ones. */
export function createSecrets(): SignerSecrets {
  return { token: Buffer.from(randomBytes(32).toString("base64url")), seed: Buffer.from(randomBytes(32).toString("hex")) };
}

/** What the signatures of whoever has the seed verify with. */
export function publicKeyOf({ seed }: SignerSecrets): KeyObject {
  const der = Buffer.concat([PKCS8, Buffer.from(seed.toString("latin1"), "hex")]);
  try {
    return createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
  } finally {
    der.fill(0);
  }
}

/** The two files of a directory. */
function secretFiles(dir: string): SecretFiles {
  return { tokenFile: join(dir, "signer.token"), seedFile: join(dir, "signer.seed") };
}

/**
 * Makes new secrets and writes them, 0600, into `dir`, which is made with 0700 where it is missing. Rejects with E_CHORIA when the
 * directory is not ours alone, or when one of the files is there already.
 */
export function writeSecrets(dir: string): SignerSecrets & SecretFiles {
  prepare(dir);
  const files = secretFiles(dir);
  const secrets = createSecrets();
  const written: string[] = [];
  try {
    for (const [path, bytes] of [
      [files.tokenFile, secrets.token],
      [files.seedFile, secrets.seed],
    ] as const) {
      writeFileSync(path, bytes, { mode: 0o600, flag: "wx" });
      written.push(path);
    }
  } catch (cause) {
    for (const path of written) unlinkSync(path);
    throw unusable(dir, codeOf(cause) === "EEXIST" ? "holds a signer's secrets already" : `cannot be written to (${codeOf(cause)})`, cause);
  }
  return { ...secrets, ...files };
}

/** The secrets in `dir`; null when neither file is there. Rejects with E_CHORIA when they are not ours alone, or are none. */
export function readSecrets(dir: string): (SignerSecrets & SecretFiles) | null {
  const files = secretFiles(dir);
  if (lstatOrNull(files.tokenFile) === null && lstatOrNull(files.seedFile) === null) return null;
  prepare(dir);
  return { token: readSecret(files.tokenFile, 43, TOKEN), seed: readSecret(files.seedFile, 64, SEED), ...files };
}

function prepare(dir: string): void {
  try {
    if (lstatOrNull(dir) === null) makeDirectory(dir, true);
  } catch (cause) {
    throw unusable(dir, `cannot be made (${codeOf(cause)})`, cause);
  }
  const fault = directoryFault(dir, process.geteuid?.() ?? 0, true);
  if (fault !== null) throw unusable(dir, fault);
}

function readSecret(path: string, length: number, shape: RegExp): Buffer {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    throw unusable(path, `cannot be read (${codeOf(cause)})`, cause);
  }
  try {
    const found = fstatSync(fd);
    if (!found.isFile()) throw unusable(path, "is not a file");
    if (found.uid !== (process.geteuid?.() ?? 0)) throw unusable(path, `belongs to another user (uid ${found.uid})`);
    if ((found.mode & 0o077) !== 0) throw unusable(path, `has mode 0${(found.mode & 0o777).toString(8)}, which must be 0600`);
    const bytes = Buffer.alloc(length);
    if (found.size !== length || readSync(fd, bytes, 0, length, 0) !== length || !shape.test(bytes.toString("latin1")))
      throw unusable(path, "is not what a signer of ours wrote there");
    return bytes;
  } finally {
    closeSync(fd);
  }
}

function codeOf(cause: unknown): string {
  return printable(cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason", 40);
}

function unusable(path: string, fault: string, cause?: unknown): TokenfwdError {
  return new TokenfwdError("E_CHORIA", `the signer's secrets cannot lie there: ${printable(path)} ${fault}`, {
    hint: "name a directory of yours with mode 0700, or one that does not exist yet; to have new secrets, remove the two files",
    cause,
  });
}
