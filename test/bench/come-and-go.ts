/*
 * What a server spends on one client that connects, has its first answer and goes: processor time of the server with all its
 * children, for many clients one after the other, so that a stock server's process for each is in it and the client is not.
 */
import { execFile } from "node:child_process";
import { createConnection } from "node:net";
import { promisify } from "node:util";
import { P11KIT_CLIENT, type ServerProcess, startAgent, startStockServer } from "../interop/agent-process.js";
import { childrenOf } from "../support/processes.js";
import type { SoftHsm } from "../support/softhsm.js";
import { buildProgram } from "./callers.js";
import type { CleanUps } from "./clean-ups.js";
import { cpuSecondsOfServer, median } from "./stats.js";

const execute = promisify(execFile);
const CLIENTS = 200;
const ROUNDS = 5;
const CLIENT_LIBRARY = new URL("../../dist/bastion/client/index.js", import.meta.url).href;

/** What we use of `tokenfwd/client`. */
export interface ClientLibrary {
  connectClient(options: { socket: string; snapshot?: boolean }): Promise<{ keys(): Promise<unknown>; close(): Promise<void> }>;
}

export async function clientLibrary(): Promise<ClientLibrary> {
  return (await import(CLIENT_LIBRARY)) as ClientLibrary;
}

/** Milliseconds of processor time for each client, of stock and ours in the same round, and stock's by ours. */
export interface ComeAndGoRow {
  readonly name: string;
  readonly stockMs: number;
  readonly oursMs: number;
  readonly timesCheaper: number;
}

/** One stream: the version byte of a p11-kit client, answered by one byte. */
function greet(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path, () => socket.write(Buffer.from([0])));
    let answered = false;
    socket.once("data", () => {
      answered = true;
      socket.end();
    });
    socket.once("error", reject);
    socket.once("close", () => (answered ? resolve() : reject(new Error("it closed without an answer"))));
  });
}

/** Resolves when the server has no more children than that: a stock server's process ends a little after its client. */
async function settled(pid: number, children: number): Promise<void> {
  const until = performance.now() + 10_000;
  while (childrenOf(pid).length > children) {
    if (performance.now() > until) throw new Error("a server's children have not ended");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Processor milliseconds of the server for each of the clients that `run` starts. */
async function costMs(server: ServerProcess, run: (server: ServerProcess) => Promise<unknown>): Promise<number> {
  const children = childrenOf(server.pid).length;
  const before = cpuSecondsOfServer(server.pid);
  await run(server);
  await settled(server.pid, children);
  return ((cpuSecondsOfServer(server.pid) - before) * 1000) / CLIENTS;
}

export async function benchComeAndGo(token: SoftHsm, cleanUps: CleanUps): Promise<ComeAndGoRow[]> {
  const program = buildProgram("come-and-go", token.dir);
  const stock = await startStockServer(token);
  cleanUps.add(() => stock.dispose());
  const agent = await startAgent({ token, pin: "file" });
  cleanUps.add(() => agent.dispose());
  const { connectClient } = await clientLibrary();
  const each = (one: (server: ServerProcess) => Promise<void>) => async (server: ServerProcess) => {
    for (let i = 0; i < CLIENTS; i++) await one(server);
  };
  const slots = (server: ServerProcess) =>
    execute(program, [P11KIT_CLIENT, String(CLIENTS)], { env: { ...token.env, P11_KIT_SERVER_ADDRESS: server.address } });
  const stream = each((server) => greet(server.socket));
  const hello = each(async (server) => (await connectClient({ socket: server.socket, snapshot: false })).close());
  const kinds = [
    { name: "one client, p11-kit wire: to its first byte", stock: stream, ours: stream },
    { name: "one client, p11-kit wire: to its slots", stock: slots, ours: slots },
    { name: "one client, RPC: hello (stock: to its slots)", stock: slots, ours: hello },
  ];
  const rows: ComeAndGoRow[] = [];
  for (const kind of kinds) {
    await kind.ours(agent);
    const rounds: { stock: number; ours: number }[] = [];
    while (rounds.length < ROUNDS) rounds.push({ stock: await costMs(stock, kind.stock), ours: await costMs(agent, kind.ours) });
    rows.push({
      name: kind.name,
      stockMs: median(rounds.map((one) => one.stock)),
      oursMs: median(rounds.map((one) => one.ours)),
      timesCheaper: median(rounds.map((one) => one.stock / one.ours)),
    });
  }
  return rows;
}
