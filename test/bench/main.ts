/*
 * The bench's command line: which parts run, the tables on stdout, all numbers in a file. Progress goes to stderr.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { benchChoria, choriaTable } from "./choria.js";
import { type CleanUps, createCleanUps } from "./clean-ups.js";
import { benchForward, forwardTable } from "./forward.js";
import { benchLocal, localTable } from "./local.js";
import { thisMachine, writeReport } from "./report.js";
import { benchRtt, rttTable } from "./rtt.js";
import { benchStart, startTable } from "./start.js";
import { benchTrace, traceTable } from "./trace.js";

const USAGE = `usage: npm run bench -- [options]

  --only PARTS     of local, forward, trace, rtt, start, choria, with commas (all)
  --rounds N       of the parts local, forward, trace and choria (5)
  --seconds S      of each way in each of these rounds (1)
  --rtt MS,...     round-trip times of the rtt part (0,10,50,150)
  --json FILE      writes every number there
  --doc            puts the tables into docs/performance.md
`;

const PARTS = ["local", "forward", "trace", "rtt", "start", "choria"] as const;

interface Settings {
  readonly parts: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly rtts: readonly number[];
  readonly json: string | null;
  readonly doc: boolean;
}

/** Throws an Error that says what is wrong with the arguments. */
function readSettings(argv: readonly string[]): Settings | null {
  const text = { type: "string" } as const;
  const options = {
    only: text,
    rounds: text,
    seconds: text,
    rtt: text,
    json: text,
    doc: { type: "boolean" },
    help: { type: "boolean" },
  } as const;
  const { values } = parseArgs({ args: [...argv], options });
  if (values.help === true) return null;
  const number = (name: string, given: string, least: number): number => {
    const value = Number(given);
    if (given.trim() === "" || !Number.isFinite(value) || value < least) throw new Error(`--${name} takes a number from ${least} on`);
    return value;
  };
  const parts = (values.only ?? PARTS.join(",")).split(",");
  for (const part of parts) if (!PARTS.some((one) => one === part)) throw new Error(`--only knows ${PARTS.join(", ")}`);
  if (values.doc === true && values.only !== undefined) throw new Error("--doc is for a whole run, without --only");
  return {
    parts,
    rounds: Math.floor(number("rounds", values.rounds ?? "5", 1)),
    seconds: number("seconds", values.seconds ?? "1", 0.1),
    rtts: (values.rtt ?? "0,10,50,150").split(",").map((one) => number("rtt", one, 0)),
    json: values.json ?? null,
    doc: values.doc === true,
  };
}

async function runParts(settings: Settings, cleanUps: CleanUps): Promise<void> {
  const say = (text: string) => process.stderr.write(`bench: ${text}\n`);
  const tables: { title: string; text: string }[] = [];
  const print = (title: string, text: string) => {
    tables.push({ title, text });
    process.stdout.write(`\n${title}\n\n${text}\n`);
  };
  const { parts, rounds, seconds, rtts } = settings;
  const machine = thisMachine();
  const results: Record<string, unknown> = { ...machine };
  if (parts.includes("local")) {
    const rows = await benchLocal({ rounds, seconds, say, cleanUps });
    await cleanUps.dispose();
    results["local"] = rows;
    print(`On one machine, medians of ${rounds} rounds of ${seconds} s`, localTable(rows));
  }
  if (parts.includes("forward")) {
    const rows = await benchForward({ rounds, seconds, say, cleanUps });
    await cleanUps.dispose();
    results["forward"] = rows;
    print(`Over the forward, on one machine, medians of ${rounds} rounds of ${seconds} s`, forwardTable(rows));
  }
  if (parts.includes("trace")) {
    const rows = await benchTrace({ rounds, seconds, say, cleanUps });
    await cleanUps.dispose();
    results["trace"] = rows;
    print(`Traced, on one machine, medians of ${rounds} rounds of ${seconds} s`, traceTable(rows));
  }
  if (parts.includes("rtt")) {
    const rows = await benchRtt({ rtts, say, cleanUps });
    await cleanUps.dispose();
    results["rtt"] = rows;
    print("Over a link: milliseconds by round-trip time, and round trips", typeof rows === "string" ? rows : rttTable(rows));
  }
  if (parts.includes("start")) {
    const rows = await benchStart({ say, cleanUps });
    await cleanUps.dispose();
    results["start"] = rows;
    print("Beginning, and waiting", startTable(rows));
  }
  if (parts.includes("choria")) {
    const rows = await benchChoria({ rounds, say, cleanUps });
    await cleanUps.dispose();
    results["choria"] = rows;
    print("Choria, milliseconds for one request", typeof rows === "string" ? rows : choriaTable(rows));
  }
  if (settings.json !== null) writeFileSync(settings.json, `${JSON.stringify(results, null, 1)}\n`);
  if (settings.doc) writeReport(machine, tables);
}

/** Answers the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  let settings: Settings | null;
  try {
    settings = readSettings(argv);
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n${USAGE}`);
    return 2;
  }
  if (settings === null) {
    process.stdout.write(USAGE);
    return 0;
  }
  const cleanUps = createCleanUps();
  let interrupted = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      interrupted = true;
      void cleanUps.dispose().then(() => process.exit(130));
    });
  }
  try {
    await runParts(settings, cleanUps);
    return 0;
  } catch (error) {
    // What was taken away from under it fails, and nobody asked.
    if (!interrupted) process.stderr.write(`bench: ${(error as Error).stack}\n`);
    return 1;
  } finally {
    await cleanUps.dispose();
  }
}
