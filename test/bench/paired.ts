/*
 * Ways to sign that are measured in turn within each round, so that each round has ratios of its own and a busy machine shows
 * as spread; and what each way is held to. It starts no process and ends none.
 */
import { type Caller, type Measured, measure } from "./callers.js";
import { median, short, table } from "./stats.js";

/** One way to sign. */
export interface Way {
  readonly name: string;
  readonly callers: readonly Caller[];
  /** Processes whose time counts beside the callers', with their children. */
  readonly servers: readonly number[];
  /** By column of the table: the way of the same round that it is compared with. */
  readonly beside: Readonly<Record<string, string>>;
  readonly targets: readonly Target[];
}

export interface Ratio {
  readonly to: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** One way over all rounds. */
export interface PairedRow {
  readonly key: string;
  readonly name: string;
  readonly rounds: readonly Measured[];
  readonly ratios: Readonly<Record<string, Ratio>>;
  readonly targets: readonly { readonly text: string; readonly met: boolean }[];
}

/** What a way is held to, in as few words as a table has room for. */
export interface Target {
  readonly text: string;
  met(rounds: readonly Measured[], ratios: Readonly<Record<string, Ratio>>): boolean;
}

/** The median of the rounds' ratios in this column. */
export function ratioTarget(column: string, least: number): Target {
  return { text: `${column} ${least}`, met: (_, ratios) => (ratios[column]?.median ?? Number.NaN) >= least };
}

/** The median signature of every round. */
export function latencyTarget(mostMs: number): Target {
  return { text: `${mostMs} ms`, met: (rounds) => rounds.every((one) => one.medianMs <= mostMs) };
}

/** Measures them, once unmeasured and then round by round. `key` is the name of the key in the rows. */
export async function runPaired(options: {
  readonly key: string;
  readonly ways: readonly Way[];
  readonly rounds: number;
  readonly seconds: number;
  readonly say: (text: string) => void;
}): Promise<PairedRow[]> {
  const { key, ways, rounds, seconds, say } = options;
  // Caches fill and code gets compiled.
  for (const one of ways) await measure(one.callers, one.servers, Math.min(seconds, 1));
  const results = new Map(ways.map((one) => [one.name, [] as Measured[]]));
  for (let round = 0; round < rounds; round++) {
    // Back and forth, so that neither of a pair always comes first.
    for (const one of round % 2 === 0 ? ways : [...ways].reverse()) {
      results.get(one.name)?.push(await measure(one.callers, one.servers, seconds));
    }
    say(`${key}: round ${round + 1} of ${rounds}`);
  }
  return ways.map((way) => {
    const measured = results.get(way.name) ?? [];
    const ratios: Record<string, Ratio> = {};
    for (const [column, to] of Object.entries(way.beside)) {
      const other = results.get(to) ?? [];
      const each = measured.map((one, round) => one.perSecond / (other[round]?.perSecond ?? Number.NaN));
      ratios[column] = { to, median: median(each), min: Math.min(...each), max: Math.max(...each) };
    }
    const targets = way.targets.map((one) => ({ text: one.text, met: one.met(measured, ratios) }));
    return { key, name: way.name, rounds: measured, ratios, targets };
  });
}

/** Medians over the rounds, with the ratios and their spread in the columns named. */
export function pairedTable(rows: readonly PairedRow[], columns: readonly string[]): string {
  const head = ["key, way", "sig/s", "median ms", "p95 ms", "CPU ms", ...columns.map((column) => `to ${column}`), "target", "met"];
  return table(
    head,
    rows.map((row) => {
      const of = (pick: (one: Measured) => number) => short(median(row.rounds.map(pick)));
      const ratio = (column: string) => {
        const one = row.ratios[column];
        return one === undefined ? "" : `${short(one.median)} (${short(one.min)}..${short(one.max)})`;
      };
      return [
        `${row.key} ${row.name}`,
        of((one) => one.perSecond),
        of((one) => one.medianMs),
        of((one) => one.p95Ms),
        of((one) => one.cpuMs),
        ...columns.map(ratio),
        ...verdict(row.targets),
      ];
    }),
  );
}

/** The cells `target` and `met` of a row. */
export function verdict(targets: readonly { readonly text: string; readonly met: boolean }[]): [string, string] {
  return [targets.map((one) => one.text).join(", "), targets.map((one) => (one.met ? "yes" : "no")).join(", ")];
}
