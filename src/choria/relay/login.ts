/*
 * The login of a relay: random, and for a program that is started apart kept in a file of mode 0600 that only we can read. It
 * must never be logged, shown, or taken from a file that somebody else could read or have written.
 */
import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync, writeFileSync } from "node:fs";
import { TokenfwdError } from "../../base/errors.js";
import { shellWord } from "../../base/printable.js";
import { wipeable } from "../../base/secret.js";
import type { RelayLogin } from "./nats.js";

const RANDOM_BYTES = 24;
const MAX_FILE_BYTES = 1024;
/** What goes through NATS's JSON and choria's configuration alike. */
const LINE = /^([A-Za-z0-9._-]{1,64}):([\x21-\x7e]{1,256})\n?$/;

/** A login that nobody can guess. */
export function createLogin(): RelayLogin {
  return { user: `relay-${randomBytes(4).toString("hex")}`, password: Buffer.from(randomBytes(RANDOM_BYTES).toString("base64url")) };
}

/** The login as its file has it. */
export function loginText({ user, password }: RelayLogin): string {
  return `${user}:${password.toString("utf8")}\n`;
}

/**
 * The login in this file, which is made with a new one where it is missing. Throws E_CONFIG when it is not a file of ours with
 * mode 0600, or does not hold `user:password`.
 */
export function readOrMakeLogin(path: string): RelayLogin {
  return readLogin(path) ?? makeLogin(path);
}

function unusable(path: string, why: string, hint: string, cause?: unknown): TokenfwdError {
  return new TokenfwdError("E_CONFIG", `the login file ${shellWord(path)} ${why}`, { hint, cause });
}

function readLogin(path: string): RelayLogin | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") return null;
    if (code === "ELOOP") throw unusable(path, "is a symbolic link", "name the file itself", cause);
    throw unusable(path, `cannot be read (${code ?? "unknown reason"})`, "name another one, and it is made", cause);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.uid !== (process.geteuid?.() ?? stat.uid))
      throw unusable(path, "is no file of yours", "name another one, and it is made");
    if ((stat.mode & 0o077) !== 0) throw unusable(path, "can be read by others", `chmod 600 ${shellWord(path)}`);
    const bytes = wipeable(MAX_FILE_BYTES);
    const text = bytes.toString("latin1", 0, readSync(fd, bytes, 0, MAX_FILE_BYTES, 0));
    bytes.fill(0);
    const [, user, password] = LINE.exec(text) ?? [];
    if (user === undefined || password === undefined)
      throw unusable(path, "does not hold user:password on one line", "remove it, and a new one is made");
    return { user, password: Buffer.from(password) };
  } finally {
    closeSync(fd);
  }
}

function makeLogin(path: string): RelayLogin {
  const login = createLogin();
  try {
    writeFileSync(path, loginText(login), { mode: 0o600, flag: "wx" });
  } catch (cause) {
    throw unusable(
      path,
      `cannot be made (${(cause as NodeJS.ErrnoException).code ?? "unknown reason"})`,
      "name it in a directory of yours",
      cause,
    );
  }
  return login;
}
