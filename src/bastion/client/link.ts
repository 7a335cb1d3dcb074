/*
 * One connection to whatever lives on a socket: our agent, or a stock p11-kit server. It must never send a request to a
 * second place once the first may have understood it.
 */
import { orAborted } from "../../base/single-flight.js";
import { createKeyRing } from "../../cryptoki/keys/key-ring.js";
import { createRpcClient } from "../../wire/rpc/client.js";
import { RpcError } from "../../wire/rpc/messages.js";
import { dial, hangUp, socketError } from "./dial.js";
import { clientError } from "./errors.js";
import type { SocketPlace } from "./find-socket.js";
import type { AgentLink, Link, LinkSettings } from "./link-types.js";
import { openStockLink } from "./stock-link.js";
import { createStockLogins } from "./stock-login.js";

const cancelledBy = (signal: AbortSignal) => () => signal.reason as Error;

/**
 * Opens the socket and writes the first flight: magic and hello where the place is known to be ours, else the magic alone.
 * Resolves as soon as the socket is connected: `isAgent` says what it was.
 */
export async function openAgentLink(place: SocketPlace, settings: LinkSettings, signal: AbortSignal): Promise<AgentLink> {
  const { path, known } = place;
  const { times, client, snapshot } = settings;
  // Nothing is read before the turn in which it connects is over, and in that turn the client is made.
  const socket = await dial(path, times.connectMs, signal, (bytes) => rpc.push(bytes));
  // Until this turn of the loop is over: the first request joins the hello in one write.
  socket.cork();
  setImmediate(() => socket.uncork());
  const rpc = createRpcClient({
    write: (bytes, written) => void socket.write(bytes, written),
    end: () => hangUp(socket),
    client,
    snapshot,
    flight: known ? "eager" : "careful",
  });
  socket.once("close", () => rpc.closed());
  let isSilent = false;
  const late = setTimeout(() => {
    isSilent = true;
    rpc.closed(new Error("no answer"));
    socket.destroy();
  }, times.firstByteMs);
  const isAgent = rpc.isTokenfwd.then((ours) => {
    clearTimeout(late);
    // Silence is no answer: an agent that is only slow may yet do what it was sent.
    if (isSilent && known) throw socketError(path, `takes connections and does not answer in ${times.firstByteMs / 1000} s`);
    return ours;
  });
  isAgent.catch(() => {});
  // An agent that asks for the PIN itself says so by a token flag; one that wants the client's is a stock server in that.
  const logins = createStockLogins({ cryptoki: rpc.cryptoki, pin: settings.pin, tries: settings.tries });
  const ring = createKeyRing({ cryptoki: rpc.cryptoki, ...logins });
  return { protocol: "tokenfwd", path, rpc, isAgent, cryptoki: rpc.cryptoki, ring, isGone: () => rpc.gone, close: () => void rpc.close() };
}

/**
 * Opens the socket and finds out who is there: waits for the agent's magic, and with `snapshot` for its hello. A stock
 * server is opened on a connection of its own. Rejects with a TokenfwdError, or with the signal's reason.
 */
export async function openLink(place: SocketPlace, settings: LinkSettings, signal: AbortSignal): Promise<Link> {
  const agent = await openAgentLink(place, settings, signal);
  try {
    if (!(await orAborted(agent.isAgent, signal, cancelledBy(signal)))) return await openStockLink(place.path, settings, signal);
    if (settings.snapshot) await snapshotOf(agent, settings.times.snapshotMs, signal);
    return agent;
  } catch (thrown) {
    agent.close();
    throw thrown instanceof RpcError ? clientError(thrown) : thrown;
  }
}

async function snapshotOf({ path, rpc }: AgentLink, ms: number, signal: AbortSignal): Promise<void> {
  const late = AbortSignal.timeout(ms);
  const most = AbortSignal.any([signal, late]);
  await orAborted(rpc.ready, most, () =>
    signal.aborted ? cancelledBy(signal)() : socketError(path, `is an agent's that does not name its keys in ${ms / 1000} s`),
  );
}
