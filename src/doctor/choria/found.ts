/*
 * Choria's client configuration, found and read in choria's own order, on the machine where doctor runs or over SSH. It must never change
 * anything. It runs from the bundle, so what reads over SSH is handed in.
 */
import { TokenfwdError } from "../../base/errors.js";
import { type ClientConfig, candidates, overlayPlaces, pluginFile, readClientConfig } from "../../choria/config/client-config.js";
import type { Look, Looked } from "../../choria/config/finding.js";
import { clientHere, lookHere } from "../../choria/config/here.js";

/** A configuration that was found, and how the files that it names are looked at. */
export interface ChoriaFound {
  readonly config: ClientConfig;
  readonly look: Look;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly root: boolean;
}

/** A bastion's files (forward/remote/command-files.ts), as far as they are needed here. */
export interface FilesThere {
  login(program: string): Promise<{ readonly home: string | null; readonly directory: string | null }>;
  present(paths: readonly string[]): Promise<{ readonly files: ReadonlySet<string>; readonly others: ReadonlySet<string> }>;
  read(path: string, maxBytes: number): Promise<Buffer | null>;
}

/** More than any configuration or CA that was seen. */
const MAX_BYTES = 64 * 1024;
const NOT_READABLE = "it is no file, or not readable for you";

/** Null where there is none. Rejects with E_CHORIA_CONFIG for one that is there and cannot be read. */
async function found(reading: Promise<ClientConfig>, rest: Omit<ChoriaFound, "config">): Promise<ChoriaFound | null> {
  try {
    return { config: await reading, ...rest };
  } catch (thrown) {
    if (thrown instanceof TokenfwdError && thrown.reason === "no-configuration") return null;
    throw thrown;
  }
}

/** This machine's; rejects as `found`. */
export async function findChoriaHere(env: NodeJS.ProcessEnv): Promise<ChoriaFound | null> {
  const here = clientHere(env);
  return found(readClientConfig(here), { look: lookHere, env, root: here.root ?? false });
}

/** The one that a choria would find which a log-in starts there; rejects as `found`, and with what the files reject with. */
export async function findChoriaThere(files: FilesThere, root: boolean): Promise<ChoriaFound | null> {
  const { home, directory } = await files.login("choria");
  const cwd = directory ?? "/";
  const main = candidates(home);
  const places = [...main, ...main.flatMap((path) => pluginFile(path, home) ?? []), ...overlayPlaces(cwd)];
  // Most are not there: asked for at once, for each question takes a trip.
  const known = new Set(places);
  const present = await files.present([...known]);
  const look: Look = async (path, want): Promise<Looked> => {
    const { files: readable, others } = known.has(path) ? present : await files.present([path]);
    if (others.has(path)) return { state: "unreadable", why: NOT_READABLE };
    if (!readable.has(path)) return { state: "missing" };
    const bytes = want === "text" ? await files.read(path, MAX_BYTES) : Buffer.alloc(0);
    // The mode is not asked for: 0600 is what nobody complains of.
    return bytes === null ? { state: "unreadable", why: NOT_READABLE } : { state: "file", bytes, mode: 0o600 };
  };
  const read = async (path: string): Promise<string | null> => {
    const looked = await look(path, "text");
    if (looked.state === "unreadable") throw new Error(looked.why);
    return looked.state === "missing" ? null : looked.bytes.toString("utf8");
  };
  return found(readClientConfig({ home, cwd, env: {}, read, root }), { look, env: {}, root });
}
