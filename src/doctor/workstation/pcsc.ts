/*
 * What can be known of smart card access without touching a card: whether a module goes through PC/SC, whether its daemon answers, and
 * which processes are at it. It reads files under /proc and connects to one socket, and must never send the daemon anything.
 */
import { open, readdir, readFile, realpath } from "node:fs/promises";
import { connect } from "node:net";
import { basename } from "node:path";

/** A process that uses cards. */
export interface CardUser {
  readonly pid: number;
  readonly name: string;
}

const MAX_PROCESSES = 8192;
const MAX_MODULE_BYTES = 16 * 1024 * 1024;
const CONNECT_MS = 2000;
/** Where pcscd listens, on Debian, Fedora and Arch. */
const SOCKET = "/run/pcscd/pcscd.comm";

/** True when the module is one that gets to its cards through PC/SC, by its name or by what it links to. */
export async function usesPcsc(modulePath: string): Promise<boolean> {
  const real = await realpath(modulePath).catch(() => modulePath);
  if (/opensc|ykcs11|pcsc/.test(basename(real))) return true;
  const file = await open(real).catch(() => null);
  if (file === null) return false;
  try {
    const { size } = await file.stat();
    const bytes = Buffer.alloc(Math.min(size, MAX_MODULE_BYTES));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, bytesRead).includes("libpcsclite");
  } finally {
    await file.close();
  }
}

/** `none`: nobody can answer. On systems without pcscd's socket (macOS) it is `unknown`. */
export async function pcscDaemon(env: NodeJS.ProcessEnv): Promise<"answers" | "none" | "unknown"> {
  if (process.platform !== "linux") return "unknown";
  return await new Promise((resolve) => {
    const socket = connect({ path: env["PCSCLITE_CSOCK_NAME"] || SOCKET });
    const settle = (answer: "answers" | "none") => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => settle("none"), CONNECT_MS);
    socket.once("connect", () => settle("answers"));
    socket.once("error", () => settle("none"));
  });
}

/** Processes of ours that have PC/SC loaded, and any scdaemon, which may have the reader itself; `except` are not told. */
export async function cardUsers(except: readonly (number | undefined)[], signal: AbortSignal): Promise<CardUser[]> {
  const users: CardUser[] = [];
  const entries = await readdir("/proc").catch((): string[] => []);
  for (const entry of entries.filter((name) => /^[0-9]+$/.test(name)).slice(0, MAX_PROCESSES)) {
    signal.throwIfAborted();
    const pid = Number(entry);
    if (except.includes(pid)) continue;
    const name = (await readFile(`/proc/${entry}/comm`, "utf8").catch(() => "")).trim();
    if (name === "" || name === "pcscd") continue;
    // Readable of one's own processes only.
    const uses = name === "scdaemon" || (await readFile(`/proc/${entry}/maps`, "latin1").catch(() => "")).includes("libpcsclite");
    if (uses) users.push({ pid, name });
  }
  return users;
}
