/*
 * What a client that is there and does nothing costs a server in memory: of the server with its children, each page counted
 * once. Clients of the p11-kit wire are logged in and have found their key; those of RPC have asked for the keys.
 */
import { readFileSync } from "node:fs";
import { P11KIT_CLIENT, startAgent, startStockServer } from "../interop/agent-process.js";
import type { SoftHsm } from "../support/softhsm.js";
import { buildProgram, startModuleCaller } from "./callers.js";
import { type CleanUps, createCleanUps } from "./clean-ups.js";
import { clientLibrary } from "./come-and-go.js";
import { forwardByConnect, withPin } from "./forward.js";
import { median, withDescendants } from "./stats.js";

/** Stock needs a process with the module in it for each. */
const STOCK_CLIENTS = 16;
/** Our agent serves 256 at once, and no option of the command makes it more. */
const LOCAL_CLIENTS = 250;
/** And 64 of one destination. */
const FORWARDED_CLIENTS = 60;
/** The heap of a server grows in steps, which few clients have to share. */
const SERVERS = 3;

/** Starts a client and answers what ends it. */
type Start = () => Promise<() => Promise<void>>;
type Served = { readonly pid: number; readonly socket: string };

/** KiB for each client. `stock` is NaN where it is not another than on one machine. */
export interface IdleRow {
  readonly name: string;
  readonly clients: number;
  readonly stock: number;
  readonly ours: number;
}

/** What a process has for itself and its share of what others have too; nothing when it has ended. */
function proportionalKiB(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0; // the child of a client that has gone
  }
}

const memoryKiB = (pid: number): number => withDescendants([pid]).reduce((sum, one) => sum + proportionalKiB(one), 0);

export async function benchIdleMemory(token: SoftHsm, say: (text: string) => void, cleanUps: CleanUps): Promise<IdleRow[]> {
  const program = buildProgram("sign-loop", token.dir);
  const { connectClient } = await clientLibrary();
  /** What a server grows by for each of so many clients. The first makes it load what it needs for any, and goes before the count. */
  const perClient = async (pid: number, clients: number, start: Start): Promise<number> => {
    await (await start())();
    const before = memoryKiB(pid);
    const ends: (() => Promise<void>)[] = [];
    cleanUps.add(() => Promise.all(ends.splice(0).map((end) => end())));
    while (ends.length < clients) ends.push(await start());
    const grown = memoryKiB(pid) - before;
    await Promise.all(ends.splice(0).map((end) => end()));
    return grown / clients;
  };
  const pkcs11 =
    (socket: string): Start =>
    async () => {
      const env = { ...token.env, P11_KIT_SERVER_ADDRESS: `unix:path=${socket}` };
      const caller = await startModuleCaller(program, P11KIT_CLIENT, token.label, "ec", { env, pin: token.pin });
      return () => caller.end();
    };
  const rpc =
    (socket: string): Start =>
    async () => {
      const client = await connectClient({ socket });
      await client.keys();
      return () => client.close();
    };
  /** The median of several servers, each for itself: what one lot of clients has left in a heap must not pay for the next. */
  const ofSeveral = async (clients: number, serve: (own: CleanUps) => Promise<Served>, start: (socket: string) => Start) => {
    const found: number[] = [];
    while (found.length < SERVERS) {
      const own = createCleanUps();
      cleanUps.add(() => own.dispose());
      const { pid, socket } = await serve(own);
      found.push(await perClient(pid, clients, start(socket)));
      await own.dispose();
    }
    return median(found);
  };
  const stock = await startStockServer(token);
  cleanUps.add(() => stock.dispose());
  const stockKiB = await perClient(stock.pid, STOCK_CLIENTS, pkcs11(stock.socket));
  const local = async (own: CleanUps) => {
    const server = await startAgent({ token, pin: "file" });
    own.add(() => server.dispose());
    return server;
  };
  const forwarded = (own: CleanUps) => forwardByConnect(token, withPin(token), own);
  const rows: IdleRow[] = [];
  for (const [wire, start] of [["p11-kit wire", pkcs11] as const, ["RPC", rpc] as const]) {
    say(`memory of idle clients, ${wire}`);
    const name = `memory per idle client, ${wire}`;
    const here = await ofSeveral(LOCAL_CLIENTS, local, start);
    rows.push({ name, clients: LOCAL_CLIENTS, stock: stockKiB, ours: here });
    const there = await ofSeveral(FORWARDED_CLIENTS, forwarded, start);
    rows.push({ name: `${name}, forwarded`, clients: FORWARDED_CLIENTS, stock: Number.NaN, ours: there });
  }
  return rows;
}
