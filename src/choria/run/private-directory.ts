/*
 * The directory that one run keeps its configuration and secrets in. It must never be one that others can look into, and what a run left
 * that was killed goes at the next start.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import { directoryFault, makeDirectory, runtimeDirectory } from "../../base/paths.js";
import { printable } from "../../base/printable.js";

export interface PrivateDirectory {
  readonly path: string;
  /** Writes a file of mode 0600 that is not there yet; answers its path. */
  write(name: string, bytes: string | Buffer): string;
  /** Takes it away with all that is in it. Safe to call twice. */
  remove(): void;
}

/** `run.PID.RANDOM`: the process says whether somebody still needs it. */
const NAME = /^run\.(\d{1,10})\.[0-9a-f]{16}$/;
/** Somebody else may be removing the empty directory around ours in the moment that we use it. */
const TRIES = 10;

/**
 * Makes one in `tokenfwd` below a runtime directory, which is asked for and checked anew for each try, and takes away what dead runs left
 * there. @throws TokenfwdError E_CHORIA where it cannot be made or is not ours alone, E_SOCKET_PATH
 */
export function createPrivateDirectory(runtimeDir: () => string = runtimeDirectory): PrivateDirectory {
  const uid = process.geteuid?.() ?? 0;
  const name = `run.${process.pid}.${randomBytes(8).toString("hex")}`;
  let base = "";
  for (let attempt = 1; ; attempt++) {
    base = join(runtimeDir(), "tokenfwd");
    try {
      makeDirectory(base, false);
      const fault = directoryFault(base, uid, true);
      if (fault !== null) throw unusable(base, fault);
      mkdirSync(join(base, name), { mode: 0o700 });
      break;
    } catch (error) {
      if (error instanceof TokenfwdError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" || attempt === TRIES) throw unusable(base, `cannot be used: ${printable(message)}`);
    }
  }
  const path = join(base, name);
  sweep(base);
  return {
    path,
    write(file, bytes) {
      const to = join(path, file);
      writeFileSync(to, bytes, { mode: 0o600, flag: "wx" });
      return to;
    },
    remove() {
      rmSync(path, { recursive: true, force: true });
      removeEmpty(base);
      // One that we may have made: the system has no runtime directory then.
      if (/^tokenfwd-\d+$/.test(basename(dirname(base)))) removeEmpty(dirname(base));
    },
  };
}

function unusable(path: string, why: string): TokenfwdError {
  return new TokenfwdError("E_CHORIA", `${printable(path)} ${why}`, {
    hint: "let XDG_RUNTIME_DIR name a directory of yours with mode 0700, with room in it",
  });
}

/** Takes away the directories of runs whose process is no more. */
function sweep(base: string): void {
  for (const name of readdirSync(base)) {
    const pid = NAME.exec(name)?.[1];
    if (pid !== undefined && !lives(Number(pid))) rmSync(join(base, name), { recursive: true, force: true });
  }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // One of another user's is not the one that made a directory of ours.
    return false;
  }
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Others have something in it.
  }
}
