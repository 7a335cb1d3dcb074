/*
 * Puts a run's tables into docs/performance.md, between its two marks, so that the page always shows one whole run.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { fileURLToPath } from "node:url";

const PAGE = fileURLToPath(new URL("../../docs/performance.md", import.meta.url));
const BEGIN = "<!-- the last run begins -->";
const END = "<!-- the last run ends -->";

/** What the numbers were taken on. `load` is how much others had to do when the run began: above 0.5 do not trust it. */
export interface Machine {
  readonly date: string;
  readonly node: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly load: number;
}

export function thisMachine(): Machine {
  const [load = 0] = loadavg();
  const processor = (cpus()[0]?.model ?? "unknown").trim();
  const memoryGiB = Math.round(totalmem() / 2 ** 30);
  return { date: new Date().toISOString().slice(0, 10), node: process.version, processor, cores: cpus().length, memoryGiB, load };
}

/** Throws when the page has lost its marks. */
export function writeReport(machine: Machine, tables: readonly { readonly title: string; readonly text: string }[]): void {
  const page = readFileSync(PAGE, "utf8");
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`docs/performance.md has no ${BEGIN} before an ${END}`);
  const { date, cores, memoryGiB, node, load } = machine;
  const about = `${date}, ${cores} cores, ${memoryGiB} GiB, Node ${node.slice(1)}, load average ${load.toFixed(1)} when the run began.`;
  const parts = tables.map(({ title, text }) => `### ${title}\n\n\`\`\`\n${text}\n\`\`\`\n`);
  writeFileSync(PAGE, `${page.slice(0, from)}${BEGIN}\n\n${about}\n\n${parts.join("\n")}\n${page.slice(to)}`);
}
