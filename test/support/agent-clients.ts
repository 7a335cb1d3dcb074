/*
 * Clients of an agent over streams in memory, on either wire. Each is a stream of its own, as one that came through a
 * forward is; whoever connects one closes it.
 */
import type { Duplex } from "node:stream";
import type { AgentPort, Attachment } from "../../src/agent/agent.js";
import type { CallContext, Cryptoki, Origin } from "../../src/cryptoki/types.js";
import { createP11KitClient } from "../../src/wire/p11kit/client.js";
import { initializeArgs } from "../../src/wire/p11kit/requests.js";
import { createRpcClient, type RpcClient, type RpcClientOptions } from "../../src/wire/rpc/client.js";
import { forwardOrigin } from "./fake-token-host.js";
import { streamPair } from "./stream-pair.js";

export type WireName = "p11-kit" | "rpc";

export interface AgentClient {
  readonly cryptoki: Cryptoki;
  readonly ctx: CallContext;
  readonly attachment: Attachment;
  /** The client's end. */
  readonly stream: Duplex;
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

export interface RpcAgentClient extends AgentClient {
  readonly rpc: RpcClient;
}

const ended = (stream: Duplex) => new Promise<void>((resolve) => stream.once("close", resolve));
const contextOf = (origin: Origin): CallContext => ({ client: "test", origin, signal: new AbortController().signal });

/** A p11-kit client that has said C_Initialize. */
export async function connectP11Kit(agent: AgentPort, origin: Origin = forwardOrigin("bastion")): Promise<AgentClient> {
  const [stream, theirs] = streamPair();
  const client = createP11KitClient({ write: (bytes) => void stream.write(bytes), end: () => void stream.end() });
  const closed = ended(stream).then(() => client.closed());
  stream.on("data", (chunk: Buffer) => client.push(chunk));
  const attachment = agent.attach(theirs, origin);
  const ctx = contextOf(origin);
  await client.call("C_Initialize", initializeArgs(), ctx);
  const close = async () => {
    stream.destroy();
    await closed;
  };
  return { cryptoki: client, ctx, attachment, stream, closed, close };
}

/** A tokenfwd RPC client that has been answered its hello. */
export async function connectRpc(
  agent: AgentPort,
  origin: Origin = forwardOrigin("bastion"),
  options: Partial<RpcClientOptions> = {},
): Promise<RpcAgentClient> {
  const [stream, theirs] = streamPair();
  const attachment = agent.attach(theirs, origin);
  const rpc = createRpcClient({ write: (bytes) => void stream.write(bytes), end: () => void stream.end(), ...options });
  const closed = ended(stream).then(() => rpc.closed());
  stream.on("data", (chunk: Buffer) => rpc.push(chunk));
  await rpc.ready;
  const close = async () => {
    stream.destroy();
    await closed;
  };
  return { cryptoki: rpc.cryptoki, ctx: contextOf(origin), attachment, stream, closed, close, rpc };
}

/** A client of either wire. */
export const connectOver = (wire: WireName, agent: AgentPort, origin?: Origin): Promise<AgentClient> =>
  wire === "rpc" ? connectRpc(agent, origin) : connectP11Kit(agent, origin);
