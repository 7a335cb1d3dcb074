/*
 * The bench on one machine: the same signatures through stock p11-kit, through our agent over both wires, and by the module
 * itself, released in turn within each round, so that each round has a ratio of its own and a busy machine shows as spread.
 */

import { P11KIT_CLIENT, startAgent, startStockServer } from "../interop/agent-process.js";
import { createSoftHsm } from "../support/softhsm.js";
import { type Algorithm, buildSignLoop, type Caller, type Measured, measure, startModuleCaller, startRpcCaller } from "./callers.js";
import type { CleanUps } from "./clean-ups.js";
import { median, short, table } from "./stats.js";

export interface LocalOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly say: (text: string) => void;
  /** Gets what has to be ended; the caller disposes of it. */
  readonly cleanUps: CleanUps;
}

/** One way to sign, over all rounds. `ratio` is to the stock row named, of the same round: its median, smallest and largest. */
export interface LocalRow {
  readonly algorithm: "P-256" | "RSA-2048";
  readonly name: string;
  readonly rounds: readonly Measured[];
  readonly ratio: { readonly to: string; readonly median: number; readonly min: number; readonly max: number } | null;
}

interface Way {
  readonly algorithm: Algorithm;
  readonly name: string;
  readonly callers: readonly Caller[];
  readonly servers: readonly number[];
  /** The stock row that it is compared with. */
  readonly beside: string | null;
}

const STOCK_1 = "stock p11-kit, 1 caller";
const STOCK_16 = "stock p11-kit, 16 processes";
const NAMES = { ec: "P-256", rsa: "RSA-2048" } as const;

function summarize(way: Way, rounds: readonly Measured[], beside: readonly Measured[] | null): LocalRow {
  const row = { algorithm: NAMES[way.algorithm], name: way.name, rounds };
  if (beside === null || way.beside === null) return { ...row, ratio: null };
  const ratios = rounds.map((one, round) => one.perSecond / (beside[round]?.perSecond ?? Number.NaN));
  return { ...row, ratio: { to: way.beside, median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) } };
}

/** Runs it and answers the rows, P-256 first. */
export async function benchLocal(options: LocalOptions): Promise<LocalRow[]> {
  const { rounds, seconds, say, cleanUps } = options;
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  const stock = await startStockServer(token);
  cleanUps.add(() => stock.dispose());
  const agent = await startAgent({ token, pin: "file" });
  cleanUps.add(() => agent.dispose());
  const program = buildSignLoop(token.dir);
  const keep = async (starting: Promise<Caller>): Promise<Caller> => {
    const caller = await starting;
    cleanUps.add(() => caller.end());
    return caller;
  };
  const pin = token.pin;
  const through = (address: string) => ({ env: { ...token.env, P11_KIT_SERVER_ADDRESS: address }, pin });
  const pkcs11 = (address: string, algorithm: Algorithm) =>
    startModuleCaller(program, P11KIT_CLIENT, token.label, algorithm, through(address));
  // One after the other: SoftHSM cannot stand several processes that start on one token at once.
  const many = async (n: number, start: () => Promise<Caller>): Promise<Caller[]> => {
    const started: Caller[] = [];
    while (started.length < n) started.push(await keep(start()));
    return started;
  };

  const rows: LocalRow[] = [];
  for (const algorithm of ["ec", "rsa"] as const) {
    say(`${NAMES[algorithm]}: starting the callers`);
    const rpc = (how: "sign" | "call", inFlight: number) => () =>
      startRpcCaller(agent.socket, algorithm, how, inFlight, { env: token.env });
    const direct = () => startModuleCaller(program, token.modulePath, token.label, algorithm, { env: token.env, pin });
    const way = async (name: string, n: number, start: () => Promise<Caller>, servers: number[], beside: string | null): Promise<Way> => ({
      algorithm,
      name,
      callers: await many(n, start),
      servers,
      beside,
    });
    const ways = [
      await way("the module itself, 1 process", 1, direct, [], STOCK_1),
      await way(STOCK_1, 1, () => pkcs11(stock.address, algorithm), [stock.pid], null),
      await way("ours, p11-kit wire, 1 caller", 1, () => pkcs11(agent.address, algorithm), [agent.pid], STOCK_1),
      await way("ours, RPC sign, 1 caller", 1, rpc("sign", 1), [agent.pid], STOCK_1),
      await way("ours, RPC call, 1 caller", 1, rpc("call", 1), [agent.pid], STOCK_1),
      await way(STOCK_16, 16, () => pkcs11(stock.address, algorithm), [stock.pid], null),
      await way("ours, p11-kit wire, 16 processes", 16, () => pkcs11(agent.address, algorithm), [agent.pid], STOCK_16),
      await way("ours, RPC sign, 16 in flight", 1, rpc("sign", 16), [agent.pid], STOCK_16),
      await way("ours, RPC call, 16 in flight", 1, rpc("call", 16), [agent.pid], STOCK_16),
    ];
    // Once unmeasured: caches fill and code gets compiled.
    for (const one of ways) await measure(one.callers, one.servers, Math.min(seconds, 1));
    const results = new Map(ways.map((one) => [one.name, [] as Measured[]]));
    for (let round = 0; round < rounds; round++) {
      // Back and forth, so that neither of a pair always comes first.
      for (const one of round % 2 === 0 ? ways : [...ways].reverse()) {
        results.get(one.name)?.push(await measure(one.callers, one.servers, seconds));
      }
      say(`${NAMES[algorithm]}: round ${round + 1} of ${rounds}`);
    }
    for (const one of ways) {
      rows.push(summarize(one, results.get(one.name) ?? [], one.beside === null ? null : (results.get(one.beside) ?? null)));
    }
    // An idle caller costs nothing, but the next algorithm's stock callers load the module once more each.
    for (const one of ways) for (const caller of one.callers) await caller.end();
  }
  return rows;
}

/** As a table of medians over the rounds. */
export function localTable(rows: readonly LocalRow[]): string {
  const head = ["key, way", "sig/s", "median ms", "p95 ms", "CPU ms/sig", "ratio to stock", "spread"];
  return table(
    head,
    rows.map((row) => {
      const of = (pick: (one: Measured) => number) => short(median(row.rounds.map(pick)));
      const ratio =
        row.ratio === null ? ["", ""] : [row.ratio.median.toFixed(2), `${row.ratio.min.toFixed(2)}..${row.ratio.max.toFixed(2)}`];
      return [
        `${row.algorithm} ${row.name}`,
        of((one) => one.perSecond),
        of((one) => one.medianMs),
        of((one) => one.p95Ms),
        of((one) => one.cpuMs),
        ...ratio,
      ];
    }),
  );
}
