/*
 * Where things of ours lie on the workstation, and whether a directory is fit to hold them: the runtime directory, the
 * state directory with the workstation's id, and the length of a socket path.
 * It must never follow a link into, nor use, a directory that somebody else could have made or can write to.
 */
import { randomBytes } from "node:crypto";
import { linkSync, lstatSync, mkdirSync, readFileSync, type Stats, unlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { TokenfwdError } from "./errors.js";

/** What the functions here look at; tests hand in their own. */
export interface PathEnvironment {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform: NodeJS.Platform;
  /** Our effective user id. */
  readonly uid: number;
  readonly home: string;
}

/** The process's own surroundings. */
function processPaths(): PathEnvironment {
  return { env: process.env, platform: process.platform, uid: process.geteuid?.() ?? 0, home: homedir() };
}

/** The longest socket path a kernel takes, in bytes without the terminating NUL (sun_path is 108 on Linux, 104 elsewhere). */
export function maxSocketPathBytes(system: string = process.platform): number {
  return system === "linux" ? 107 : 103;
}

/** lstat, null when there is nothing; every other failure is thrown as it is. */
export function lstatOrNull(path: string): Stats | null {
  return lstatSync(path, { throwIfNoEntry: false }) ?? null;
}

/** Why `path` is not a directory of ours that nobody else can write to; null when it is. `exact` wants mode 0700. */
export function directoryFault(path: string, uid: number, exact: boolean): string | null {
  const found = lstatOrNull(path);
  if (found === null) return "does not exist";
  if (found.isSymbolicLink()) return "is a symbolic link";
  if (!found.isDirectory()) return "is not a directory";
  if (found.uid !== uid) return `belongs to another user (uid ${found.uid})`;
  const mode = found.mode & 0o777;
  if (exact && mode !== 0o700) return `has mode 0${mode.toString(8)}, which must be 0700`;
  if ((mode & 0o022) !== 0) return `can be written by others (mode 0${mode.toString(8)})`;
  return null;
}

/**
 * RT of the workstation (design 4): `$XDG_RUNTIME_DIR`, else on macOS `$TMPDIR`, else `/tmp/tokenfwd-UID`, which is made
 * when missing. Checked by lstat: a directory, ours, 0700. Rejects with E_SOCKET_PATH.
 */
export function runtimeDirectory(surroundings: PathEnvironment = processPaths()): string {
  const { env, platform, uid } = surroundings;
  const xdg = env["XDG_RUNTIME_DIR"];
  const macTemp = platform === "darwin" ? env["TMPDIR"] : undefined;
  const given = xdg ? { name: "XDG_RUNTIME_DIR", path: xdg } : macTemp ? { name: "TMPDIR", path: macTemp.replace(/(.)\/+$/, "$1") } : null;
  const path = given?.path ?? `/tmp/tokenfwd-${uid}`;
  if (!isAbsolute(path)) throw unusable(path, "is not an absolute path", given?.name);
  if (given === null) makeDirectory(path, false);
  const fault = directoryFault(path, uid, true);
  if (fault !== null) throw unusable(path, fault, given?.name);
  return path;
}

function unusable(path: string, fault: string, variable: string | undefined): TokenfwdError {
  return new TokenfwdError("E_SOCKET_PATH", `the runtime directory ${path} ${fault}`, {
    hint: variable
      ? `let ${variable} name a directory of yours with mode 0700, or unset it`
      : `remove ${path}, or let XDG_RUNTIME_DIR name a directory of yours with mode 0700`,
  });
}

/** Makes a directory with mode 0700 whatever the umask says; true when it was missing, with its parents if `recursive`. */
export function makeDirectory(path: string, recursive: boolean): boolean {
  try {
    return mkdirSync(path, { mode: 0o700, recursive }) !== undefined || !recursive;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** `$XDG_STATE_HOME/tokenfwd`, else `~/.local/state/tokenfwd`; not made here. */
export function stateDirectory(surroundings: PathEnvironment = processPaths()): string {
  const xdg = surroundings.env["XDG_STATE_HOME"];
  return join(xdg && isAbsolute(xdg) ? xdg : join(surroundings.home, ".local", "state"), "tokenfwd");
}

const WORKSTATION_ID = /^[0-9a-f]{8}$/;

/**
 * The random id of this workstation, 8 hex digits, made at the first call and kept in the state directory with mode 0600.
 * Two processes that make it at once agree on one. Rejects with E_CONFIG when it can be neither read nor made.
 */
export function workstationId(surroundings: PathEnvironment = processPaths()): string {
  const directory = stateDirectory(surroundings);
  const path = join(directory, "workstation-id");
  try {
    const kept = readId(path);
    if (kept !== null) return kept;
    makeDirectory(directory, true);
    const temporary = `${path}.${randomBytes(6).toString("hex")}`;
    writeFileSync(temporary, `${randomBytes(4).toString("hex")}\n`, { mode: 0o600, flag: "wx" });
    try {
      linkSync(temporary, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    } finally {
      unlinkSync(temporary);
    }
    const made = readId(path);
    if (made === null) throw new Error("it vanished");
    return made;
  } catch (error) {
    if (error instanceof TokenfwdError) throw error;
    throw new TokenfwdError("E_CONFIG", `cannot keep the workstation's id in ${path}: ${(error as Error).message}`, {
      hint: `make ${dirname(path)} writable for you, or let XDG_STATE_HOME name another directory`,
      cause: error,
    });
  }
}

function readId(path: string): string | null {
  const found = lstatOrNull(path);
  if (found === null) return null;
  const text = found.isFile() ? readFileSync(path, "utf8").trim() : "";
  if (WORKSTATION_ID.test(text)) return text;
  throw new TokenfwdError("E_CONFIG", `${path} does not hold 8 hex digits`, { hint: `remove ${path}; a new id is made at the next start` });
}
