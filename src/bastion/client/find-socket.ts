/*
 * Where the agent's socket can be on this machine, and whether one is safe to speak to. It must never offer a socket that
 * somebody else could have put there: what is sent into it may be a PIN, and what comes out is taken for a signature.
 */
import { lstatSync, readdirSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import { directoryFault } from "../../base/paths.js";
import { printable } from "../../base/printable.js";
import { pathWay, stepsFault } from "../../base/trusted-path.js";

export interface SocketPlace {
  readonly path: string;
  /** Who names it: `--socket`, an environment variable, or `well-known`. */
  readonly from: string;
  /** True where the name or the place says that it is ours: the first flight need not wait for the magic. */
  readonly known: boolean;
}

/** What the search goes by. */
export interface SocketSearch {
  /** Named by the caller: then nothing else is looked at. */
  readonly socket?: string;
  readonly env: NodeJS.ProcessEnv;
  readonly uid: number;
}

const OURS = /\/tokenfwd\/(?:([0-9a-f]{8})(?:-[0-9]+)?\/p11\.sock|agent\.sock)$/;
const CONNECTION = /^[0-9a-f]{8}(?:-[0-9]+)?$/;
const ADDRESS = /^unix:path=([^,]*)$/;

/** The paths in a P11_KIT_SERVER_ADDRESS: `unix:path=`, percent-decoded; other transports are passed over. */
function pathsOfAddress(address: string): string[] {
  return address.split(";").flatMap((each) => {
    const encoded = ADDRESS.exec(each.trim())?.[1];
    if (encoded === undefined || encoded === "" || /%(?![0-9A-Fa-f]{2})/.test(encoded)) return [];
    const bytes = Buffer.from(
      encoded.replace(/%([0-9A-Fa-f]{2})|[^%]/gu, (all, hex: string | undefined) =>
        hex === undefined ? Buffer.from(all).toString("latin1") : String.fromCharCode(Number.parseInt(hex, 16)),
      ),
      "latin1",
    );
    return bytes.includes(0) ? [] : [bytes.toString("utf8")];
  });
}

/** Where RT of the bastion can be (design, section 4). */
function runtimePlaces(env: NodeJS.ProcessEnv, uid: number): string[] {
  const xdg = env["XDG_RUNTIME_DIR"];
  return [...(xdg !== undefined && isAbsolute(xdg) ? [xdg] : []), `/run/user/${uid}`, `/var/run/user/${uid}`, `/tmp/tokenfwd-${uid}`];
}

/** The first of them that is fit; null where none is. */
function runtimeDirectory(env: NodeJS.ProcessEnv, uid: number): string | null {
  return runtimePlaces(env, uid).find((place) => directoryFault(place, uid, true) === null) ?? null;
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Sockets of the connections to this bastion, the youngest first. */
function connectionSockets(base: string): string[] {
  const found = names(base).flatMap((name) => {
    const path = join(base, name, "p11.sock");
    const stats = CONNECTION.test(name) ? lstatSync(path, { throwIfNoEntry: false }) : undefined;
    return stats?.isSocket() === true ? [{ path, at: stats.mtimeMs }] : [];
  });
  return found.sort((a, b) => b.at - a.at).map(({ path }) => path);
}

/** Which workstation's connection a socket of ours belongs to; null for every other socket. */
export function workstationOf(path: string): string | null {
  return OURS.exec(path)?.[1] ?? null;
}

/**
 * The places in the order in which they are tried. What is named stands alone, the first of: `socket`, TOKENFWD_SOCKET,
 * P11_KIT_SERVER_ADDRESS, TOKENFWD_AGENT. Otherwise the well-known ones: the sockets of connections from workstations, the
 * agent of this machine, and where stock clients look. Throws E_AGENT_SOCKET for an address without a Unix socket.
 */
export function findSockets({ socket, env, uid }: SocketSearch): readonly SocketPlace[] {
  const place = (path: string, from: string, known = OURS.test(path)): SocketPlace => ({ path: resolve(path), from, known });
  if (socket !== undefined) return [place(socket, "--socket")];
  const named = env["TOKENFWD_SOCKET"];
  if (named) return [place(named, "TOKENFWD_SOCKET", true)];
  const address = env["P11_KIT_SERVER_ADDRESS"];
  if (address) {
    const paths = pathsOfAddress(address);
    if (paths.length > 0) return paths.map((path) => place(path, "P11_KIT_SERVER_ADDRESS"));
    throw new TokenfwdError("E_AGENT_SOCKET", "P11_KIT_SERVER_ADDRESS names no Unix socket", {
      hint: "it is of the form unix:path=/PATH; unset it, or name the socket with --socket or TOKENFWD_SOCKET",
    });
  }
  const agent = env["TOKENFWD_AGENT"];
  if (agent) return [place(agent, "TOKENFWD_AGENT", true)];
  const rt = runtimeDirectory(env, uid);
  if (rt === null) return [];
  const paths = [...connectionSockets(join(rt, "tokenfwd")), join(rt, "tokenfwd", "agent.sock"), join(rt, "p11-kit", "pkcs11")];
  return paths.map((path) => place(path, "well-known"));
}

/** Where `findSockets` looks when nothing is named, for a person; it follows "looked". */
export function wellKnownPlaces(env: NodeJS.ProcessEnv, uid: number): string {
  const rt = runtimeDirectory(env, uid);
  if (rt === null) return `for a directory of mode 0700 of this user's at ${printable(runtimePlaces(env, uid).join(", "))}`;
  return `at ${["tokenfwd/*/p11.sock", "tokenfwd/agent.sock", "p11-kit/pkcs11"].map((name) => printable(join(rt, name))).join(", ")}`;
}

/**
 * Why a path is no socket to speak to: it must be a socket, ours or root's, and so must be every link and directory on the
 * way to it, which nobody else may write to. null when it is one. The text is printable.
 */
export function socketFault(path: string, uid: number): string | null {
  const { steps, missing } = pathWay(path);
  if (missing !== null) return steps.some((step) => step.path === resolve(path)) ? "is a link to nothing" : "does not exist";
  const stats = steps.at(-1)?.stats;
  if (stats?.isSocket() !== true) return "is not a socket";
  if (stats.uid !== uid && stats.uid !== 0) return `belongs to another user (uid ${stats.uid})`;
  // In a sticky directory nobody can replace what is not his own.
  const fault = stepsFault(steps, uid, false);
  return fault === null ? null : printable(`is not safe: ${fault}`);
}
