/*
 * What it costs to begin and to wait, beside stock p11-kit: a client that comes and goes, a client that is there and does
 * nothing, and the whole way from nothing to the token's name seen on the bastion.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { P11KIT_CLIENT } from "../interop/agent-process.js";
import { TOKENFWD } from "../interop/cli-process.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";
import type { CleanUps } from "./clean-ups.js";
import { benchComeAndGo } from "./come-and-go.js";
import { benchIdleMemory } from "./idle-memory.js";
import { verdict } from "./paired.js";
import { median, short, table } from "./stats.js";

const execute = promisify(execFile);
const TIMES = 5;
const LEAST_TIMES_CHEAPER = 5;
const MOST_KIB = 64;

export interface StartRow {
  readonly name: string;
  /** NaN (null in the file) where stock has none of its own. */
  readonly stock: number;
  readonly ours: number;
  readonly unit: string;
  readonly targets: readonly { readonly text: string; readonly met: boolean }[];
}

interface Times {
  readonly wall: number;
  readonly cpu: number;
}

/** Runs a shell script and answers its wall time and the processor time of everything it waited for, in milliseconds. */
async function timed(script: string, env: NodeJS.ProcessEnv): Promise<Times> {
  const started = process.hrtime.bigint();
  // The last line of `times` is the children's: user and system as 0m0.12s.
  const { stdout } = await execute("sh", ["-c", `( ${script} ) >/dev/null || exit 1; times`], { env });
  const wall = Number(process.hrtime.bigint() - started) / 1e6;
  const [user = 0, system = 0] = [...(stdout.trim().split("\n").at(-1) ?? "").matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => (Number(minutes) * 60 + Number(seconds)) * 1000,
  );
  return { wall, cpu: user + system };
}

async function wholeStart(token: SoftHsm, cleanUps: CleanUps): Promise<StartRow[]> {
  const bastion = await startSshd();
  cleanUps.add(() => bastion.dispose());
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
  const runs = { stock: [] as Times[], ours: [] as Times[] };
  for (let i = 0; i < TIMES; i++) {
    runs.stock.push(await timed(stock, env));
    runs.ours.push(await timed(ours, env));
  }
  const row = (name: string, what: "wall" | "cpu"): StartRow => {
    const of = (list: readonly Times[]) => median(list.map((one) => one[what]));
    return { name, stock: of(runs.stock), ours: of(runs.ours), unit: "ms", targets: [] };
  };
  return [row("from nothing to the token listed on the bastion", "wall"), row("processor time of that, workstation", "cpu")];
}

export async function benchStart(options: { say: (text: string) => void; cleanUps: CleanUps }): Promise<StartRow[]> {
  const { say, cleanUps } = options;
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  say("clients that come and go");
  const clients = (await benchComeAndGo(token, cleanUps)).map((one): StartRow => {
    const target = { text: `${LEAST_TIMES_CHEAPER} times cheaper`, met: one.timesCheaper >= LEAST_TIMES_CHEAPER };
    return { name: one.name, stock: one.stockMs, ours: one.oursMs, unit: "CPU ms", targets: [target] };
  });
  const idle = (await benchIdleMemory(token, say, cleanUps)).map((one): StartRow => {
    const targets = [{ text: `${MOST_KIB} KiB`, met: one.ours <= MOST_KIB }];
    return { name: `${one.name}, of ${one.clients}`, stock: one.stock, ours: one.ours, unit: "KiB", targets };
  });
  say("from nothing to the token listed");
  return [...clients, ...idle, ...(await wholeStart(token, cleanUps))];
}

export function startTable(rows: readonly StartRow[]): string {
  return table(
    ["what", "stock", "ours", "unit", "stock by ours", "target", "met"],
    rows.map((row) => [row.name, short(row.stock), short(row.ours), row.unit, short(row.stock / row.ours), ...verdict(row.targets)]),
  );
}
