/*
 * What it costs to begin and to wait: from nothing to the token's name seen on the bastion, and memory for a client that is
 * logged in and does nothing, both beside stock p11-kit.
 */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { P11KIT_CLIENT, startAgent, startStockServer } from "../interop/agent-process.js";
import { TOKENFWD } from "../interop/cli-process.js";
import { createSoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";
import { buildSignLoop, startModuleCaller } from "./callers.js";
import type { CleanUps } from "./clean-ups.js";
import { median, short, table, withDescendants } from "./stats.js";

const CLIENT_LIBRARY = new URL("../../dist/bastion/client/index.js", import.meta.url).href;
const execute = promisify(execFile);
const TIMES = 5;
/** Stock needs a process with the module in it for each. */
const STOCK_CLIENTS = 16;
const OUR_CLIENTS = 100;

export interface StartRow {
  readonly name: string;
  readonly stock: number;
  readonly ours: number;
  readonly unit: string;
}

/** Runs a shell script and answers its wall time and the processor time of everything it waited for, in milliseconds. */
async function timed(script: string, env: NodeJS.ProcessEnv): Promise<{ wall: number; cpu: number }> {
  const started = process.hrtime.bigint();
  // The last line of `times` is the children's: user and system as 0m0.12s.
  const { stdout } = await execute("sh", ["-c", `( ${script} ) >/dev/null || exit 1; times`], { env });
  const wall = Number(process.hrtime.bigint() - started) / 1e6;
  const [user = 0, system = 0] = [...(stdout.trim().split("\n").at(-1) ?? "").matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => (Number(minutes) * 60 + Number(seconds)) * 1000,
  );
  return { wall, cpu: user + system };
}

/** Memory of a server with its children, each page counted once, in KiB. */
function memoryKiB(pid: number): number {
  let sum = 0;
  for (const one of withDescendants([pid]))
    sum += Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${one}/smaps_rollup`, "utf8"))?.[1] ?? 0);
  return sum;
}

export async function benchStart(options: { say: (text: string) => void; cleanUps: CleanUps }): Promise<StartRow[]> {
  const { say, cleanUps } = options;
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  const bastion = await startSshd();
  cleanUps.add(() => bastion.dispose());
  const pinFile = join(token.dir, "pin");
  writeFileSync(pinFile, `${token.pin}\n`, { mode: 0o600 });
  const env = { ...token.env, XDG_STATE_HOME: join(token.dir, "state") };
  const look = `pkcs11-tool --module ${P11KIT_CLIENT} -L`;
  const server = join(token.dir, "server");
  const remote = join(token.dir, "remote");
  const ours = `${process.execPath} ${TOKENFWD} connect bastion -F ${bastion.sshConfig} --module ${token.modulePath} --key all --unlock later -- ${look}`;
  // Stock's recipe: the server goes to the background and prints its pid.
  const stock = [
    `eval "$(p11-kit server --provider ${token.modulePath} --name ${server} pkcs11:)"`,
    `rm -f ${remote}`,
    `ssh -F ${bastion.sshConfig} -R ${remote}:${server} bastion env P11_KIT_SERVER_ADDRESS=unix:path=${remote} ${look}`,
    'kill "$P11_KIT_SERVER_PID"',
  ].join(" && ");
  const runs = { stock: [] as { wall: number; cpu: number }[], ours: [] as { wall: number; cpu: number }[] };
  for (let i = 0; i < TIMES; i++) {
    runs.stock.push(await timed(stock, env));
    runs.ours.push(await timed(ours, env));
  }
  say("memory of idle clients");

  const program = buildSignLoop(token.dir);
  /** What a server's memory grows by for each of so many clients, not counting the first. */
  const perClient = async (pid: number, clients: number, start: () => Promise<() => Promise<void>>): Promise<number> => {
    const add = async () => cleanUps.add(await start());
    await add();
    const before = memoryKiB(pid);
    for (let i = 0; i < clients; i++) await add();
    return (memoryKiB(pid) - before) / clients;
  };
  const pkcs11 = (address: string) => async () => {
    const environment = { ...token.env, P11_KIT_SERVER_ADDRESS: address };
    const caller = await startModuleCaller(program, P11KIT_CLIENT, token.label, "ec", { env: environment, pin: token.pin });
    return () => caller.end();
  };
  const library = (await import(CLIENT_LIBRARY)) as {
    connectClient(options: { socket: string }): Promise<{ keys(): Promise<unknown>; close(): Promise<void> }>;
  };
  const rpc = (socket: string) => async () => {
    const client = await library.connectClient({ socket });
    await client.keys();
    return () => client.close();
  };
  const served = async <T extends { readonly pid: number; dispose(): Promise<void> }>(starting: Promise<T>): Promise<T> => {
    const server = await starting;
    cleanUps.add(() => server.dispose());
    return server;
  };
  const stockServer = await served(startStockServer(token));
  const stockMemory = await perClient(stockServer.pid, STOCK_CLIENTS, pkcs11(stockServer.address));
  // An agent of its own for each: what one kind of client has left in the heap must not pay for the other.
  const p11Agent = await served(startAgent({ token, pin: "file" }));
  const ourMemory = await perClient(p11Agent.pid, OUR_CLIENTS, pkcs11(p11Agent.address));
  const rpcAgent = await served(startAgent({ token, pin: "file" }));
  const rpcMemory = await perClient(rpcAgent.pid, OUR_CLIENTS, rpc(rpcAgent.socket));
  const of = (list: readonly { wall: number; cpu: number }[], what: "wall" | "cpu") => median(list.map((one) => one[what]));
  return [
    { name: "from nothing to the token listed on the bastion", stock: of(runs.stock, "wall"), ours: of(runs.ours, "wall"), unit: "ms" },
    { name: "processor time of that, workstation", stock: of(runs.stock, "cpu"), ours: of(runs.ours, "cpu"), unit: "ms" },
    { name: "server memory per idle client, p11-kit wire", stock: stockMemory, ours: ourMemory, unit: "KiB" },
    { name: "server memory per idle client, RPC", stock: stockMemory, ours: rpcMemory, unit: "KiB" },
  ];
}

export function startTable(rows: readonly StartRow[]): string {
  return table(
    ["what", "stock", "ours", "unit"],
    rows.map((row) => [row.name, short(row.stock), short(row.ours), row.unit]),
  );
}
