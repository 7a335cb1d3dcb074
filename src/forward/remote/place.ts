/*
 * Where our socket goes on the bastion and whether the place is free (design 4, "On the bastion" and "Who owns WS").
 * It must never remove or replace a socket that answers, nor anything that is not a socket.
 */
import { TokenfwdError } from "../../base/errors.js";
import { maxSocketPathBytes } from "../../base/paths.js";
import { printable, shellWord } from "../../base/printable.js";
import type { Transport } from "../transport.js";
import { answersVersionByte } from "../verify.js";
import type { BridgeTool } from "./bridge.js";
import type { Answer, Helper } from "./helper.js";

/** How many connects of one workstation can live on one bastion account at a time. */
const MAX_DIRECTORIES = 9;

/** What the bastion said about itself, each value checked. */
export interface Probe {
  readonly uid: number;
  readonly os: string;
  readonly runtimeDir: string;
  readonly runtimeDirFrom: "XDG_RUNTIME_DIR" | "run" | "tmp";
  /** Candidates that were not fit, `NAME why`. */
  readonly skipped: readonly string[];
  readonly tools: readonly BridgeTool[];
  readonly p11Kit: string | null;
  readonly p11KitClient: string | null;
  /** The path of the login shell, null where it has a strange one or none. */
  readonly loginShell: string | null;
}

export interface Place {
  readonly name: string;
  readonly socket: string;
  /** A dead socket lay there and was taken away. */
  readonly cleared: boolean;
}

/** The first value of a key that is not empty. */
export const first = (answer: Answer, key: string): string | null => answer.get(key)?.[0] || null;

/** Asks the helper. @throws TokenfwdError E_RUNTIME_DIR, E_REMOTE_SHELL */
export async function probeBastion(helper: Helper): Promise<Probe> {
  const answer = await helper.request("probe");
  const runtimeDir = first(answer, "rt");
  const from = first(answer, "rtkind");
  const skipped = answer.get("skipped") ?? [];
  const uid = first(answer, "uid");
  if (uid === null)
    throw new TokenfwdError("E_REMOTE_SHELL", "the bastion's shell could not tell the user id", {
      hint: "on the bastion: id -u",
      reason: "shell-answers-otherwise",
    });
  if (runtimeDir === null || (from !== "XDG_RUNTIME_DIR" && from !== "run" && from !== "tmp")) {
    throw new TokenfwdError(
      "E_RUNTIME_DIR",
      `no directory on the bastion is fit to hold the socket: ${skipped.map((text) => explainSkip(text, uid)).join("; ")}`,
      {
        hint: `on the bastion: ls -ld /tmp/tokenfwd-${uid}; it must be a directory, yours, mode 0700 (or log in so that XDG_RUNTIME_DIR is set)`,
        reason: "no-runtime-dir",
      },
    );
  }
  return {
    uid: Number(uid),
    os: first(answer, "os") ?? "unknown",
    runtimeDir,
    runtimeDirFrom: from,
    skipped,
    tools: (answer.get("tool") ?? []) as readonly BridgeTool[],
    p11Kit: first(answer, "p11kit"),
    p11KitClient: first(answer, "client"),
    loginShell: first(answer, "shell"),
  };
}

/** Why the helper's `fit` refused a directory, `missing` aside: that means another thing before and after it was made. */
const FAULTS: Readonly<Record<string, string>> = {
  owner: "belongs to somebody else",
  mode: "is open to others",
  link: "is a symbolic link",
  relative: "is not absolute",
  characters: "holds control characters",
};
const fault = (why: string | undefined): string => FAULTS[why ?? ""] ?? "is not a directory";

function explainSkip(text: string, uid: string): string {
  const [name, why] = text.split(" ");
  const what = name === "tmp" ? `/tmp/tokenfwd-${uid}` : name === "run" ? `/run/user/${uid}` : "XDG_RUNTIME_DIR";
  return `${what} ${why === "missing" ? "is missing" : fault(why)}`;
}

/** Does anything answer the version byte there? `unknown` when neither sshd nor a program on the bastion lets us look. */
export async function liveness(
  transport: Transport,
  helper: Helper,
  path: string,
  ping: readonly [string, ...string[]],
): Promise<"answers" | "silent" | "refused" | "unknown"> {
  const opened = await transport.openRemote(path);
  if (opened.ok) return await answersVersionByte(opened.value);
  // A dead socket and a sshd that does not open any look the same from here.
  const answer = first(await helper.request(...ping), "ping");
  return answer === "answers" || answer === "silent" || answer === "refused" ? answer : "unknown";
}

/**
 * Finds the directory for this connection, clears a dead socket out of it and claims it.
 * @throws TokenfwdError E_PATH_TOO_LONG, E_RUNTIME_DIR, E_SOCKET_FOREIGN, E_REMOTE_SHELL
 */
export async function claimPlace(
  transport: Transport,
  helper: Helper,
  probe: Probe,
  workstationId: string,
  connectId: string,
): Promise<Place> {
  for (let number = 1; number <= MAX_DIRECTORIES; number++) {
    const name = number === 1 ? workstationId : `${workstationId}-${number}`;
    const socket = `${probe.runtimeDir}/tokenfwd/${name}/p11.sock`;
    const length = Buffer.byteLength(socket);
    const longest = maxSocketPathBytes(probe.os.toLowerCase());
    if (length > longest) {
      throw new TokenfwdError("E_PATH_TOO_LONG", `the socket's path is ${length} bytes long and ${longest} fit: ${printable(socket)}`, {
        hint: "set XDG_RUNTIME_DIR on the bastion to a shorter directory of yours, mode 0700",
        reason: "path-too-long",
      });
    }
    const look = await helper.request("look", name);
    for (const [what, key] of [
      [`${probe.runtimeDir}/tokenfwd`, "base"],
      [`${probe.runtimeDir}/tokenfwd/${name}`, "dir"],
    ] as const) {
      const state = first(look, key);
      if (state !== "ok" && state !== "missing") throw unfit(what, state ?? "unknown");
    }
    const owner = first(look, "owner");
    const ownerAlive = first(look, "alive") === "yes";
    const lies = first(look, "sock") ?? "none";
    if (lies === "none") {
      // Its connect is about to make the socket, or is taking it away.
      if (owner !== null && ownerAlive) continue;
    } else if (lies !== "socket") {
      throw new TokenfwdError("E_SOCKET_FOREIGN", `something that is no socket lies on our path on the bastion: ${printable(socket)}`, {
        hint: `look at it there, then: rm -r ${shellWord(socket)}`,
        reason: "socket-is-none",
      });
    } else {
      const state = await liveness(transport, helper, socket, ["pingsock", name]);
      const live = state === "answers" || (state === "unknown" && (ownerAlive || owner === null));
      if (live && owner !== null) continue;
      if (live) {
        throw new TokenfwdError(
          "E_SOCKET_FOREIGN",
          `a live socket that no connect of ours made lies on our path on the bastion: ${printable(socket)}`,
          {
            hint: `find out who listens there (on the bastion: fuser ${shellWord(socket)}), stop it, and connect again`,
            reason: state === "answers" ? "socket-foreign" : "socket-doubtful",
          },
        );
      }
      await helper.request("unsock", name);
    }
    const claim = await helper.request("claim", name, connectId, ...(owner === null ? [] : [owner]));
    if (first(claim, "claim") === "ok") return { name, socket, cleared: lies !== "none" };
    const why = first(claim, "fail") ?? "unknown";
    if (why !== "taken") throw unfit(`${probe.runtimeDir}/tokenfwd/${name}`, why);
  }
  throw new TokenfwdError("E_SOCKET_FOREIGN", `${MAX_DIRECTORIES} connects of this workstation already live on the bastion`, {
    hint: "end some of them",
    reason: "too-many-connects",
  });
}

function unfit(path: string, why: string): TokenfwdError {
  return new TokenfwdError("E_RUNTIME_DIR", `${printable(path)} on the bastion ${why === "missing" ? "cannot be made" : fault(why)}`, {
    hint: `on the bastion: ls -ld ${shellWord(path)}; it must be a directory, yours, mode 0700`,
    reason:
      why === "missing"
        ? "runtime-dir-read-only"
        : why === "owner"
          ? "runtime-dir-foreign"
          : why === "mode"
            ? "runtime-dir-open"
            : "runtime-dir-unfit",
  });
}

/** Points the path that stock clients look at to our socket, when it is free, ours or dead. */
export async function linkWellKnown(transport: Transport, helper: Helper, probe: Probe): Promise<"ours" | "foreign" | "none"> {
  if (probe.runtimeDirFrom === "tmp") return "none";
  const known = await helper.request("known");
  const kind = first(known, "wk");
  const path = `${probe.runtimeDir}/p11-kit/pkcs11`;
  const ours = first(known, "ours") === "yes";
  let free = kind === "none" || ours || first(known, "dangling") === "yes";
  if (!free && (kind === "link" || kind === "socket")) free = (await liveness(transport, helper, path, ["pingknown"])) === "refused";
  if (!free) return "foreign";
  const linked = await helper.request("link");
  return first(linked, "link") === "ok" ? "ours" : "foreign";
}
