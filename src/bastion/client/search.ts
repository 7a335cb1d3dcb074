/*
 * From the places where a socket can be to a link. What was named and cannot be used is an error; a usual place that cannot is
 * passed over. It must never choose between the workstations of what may be different people.
 */
import { TokenfwdError } from "../../base/errors.js";
import { shellWord } from "../../base/printable.js";
import { isListening, socketError } from "./dial.js";
import { clientError } from "./errors.js";
import { findSockets, type SocketPlace, type SocketSearch, socketFault, wellKnownPlaces, workstationOf } from "./find-socket.js";
import { openAgentLink, openLink } from "./link.js";
import type { Link, LinkSettings } from "./link-types.js";

/** A link to the first place that can be used. Rejects with E_AGENT_NOT_FOUND, E_AGENT_SOCKET, or with the signal's reason. */
export async function openFirst(where: SocketSearch, settings: LinkSettings, signal: AbortSignal): Promise<Link> {
  const { env, uid } = where;
  const places = findSockets(where);
  await refuseSeveral(places, uid, settings, signal);
  const faults: string[] = [];
  let last: TokenfwdError | null = null;
  for (const place of places) {
    const fault = socketFault(place.path, uid);
    try {
      if (fault !== null) throw socketError(place.path, `${fault} (named by ${place.from})`);
      // Where only the answer to a request is wanted, nothing is waited for before it is sent.
      return await (place.known && !settings.snapshot ? openAgentLink : openLink)(place, settings, signal);
    } catch (thrown) {
      signal.throwIfAborted();
      last = clientError(thrown);
      if (last.code !== "E_AGENT_SOCKET" && last.code !== "E_AGENT_LOST") throw last;
      faults.push(last.message);
    }
  }
  if (last !== null && places.every(({ from }) => from !== "well-known")) throw last;
  const tried = faults.filter((text) => !text.includes("does not exist")).map((text) => `; ${text}`);
  throw new TokenfwdError("E_AGENT_NOT_FOUND", `no agent was found; looked ${wellKnownPlaces(env, uid)}${tried.join("")}`, {
    hint: "run this under tokenfwd connect, or name the socket with --socket or TOKENFWD_SOCKET",
  });
}

/**
 * Where nothing is named and several workstations are connected, it may be several people who share this account: the
 * youngest connection is then no better than another.
 */
async function refuseSeveral(places: readonly SocketPlace[], uid: number, { times }: LinkSettings, signal: AbortSignal): Promise<void> {
  const connections = places.flatMap(({ path, from }) => {
    const workstation = from === "well-known" && socketFault(path, uid) === null ? workstationOf(path) : null;
    return workstation === null ? [] : [{ path, workstation }];
  });
  if (new Set(connections.map(({ workstation }) => workstation)).size < 2) return;
  const live = new Map<string, string>();
  for (const { path, workstation } of connections) {
    if (!live.has(workstation) && (await isListening(path, times.connectMs, signal))) live.set(workstation, path);
  }
  if (live.size < 2) return;
  throw new TokenfwdError("E_AGENT_SOCKET", `${live.size} workstations are connected to this account, and one must be named`, {
    hint: `tokenfwd connect says which socket is its own: ${[...live.values()].map((path) => `--socket ${shellWord(path)}`).join(" or ")}`,
    reason: "several-workstations",
  });
}
