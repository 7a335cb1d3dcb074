/*
 * Walks doctor's checks and writes what they find, on the workstation as on a bastion: the list as it grows, or one JSON document; then
 * the report, which is shown before it is written. It must run from the bundle.
 */
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import { homedir, release, userInfo } from "node:os";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { version } from "../../base/version.js";
import type { Check } from "../../doctor/check.js";
import { type ReportFacts, reportText } from "../../doctor/report.js";
import { walk, walkStatus } from "../../doctor/walk.js";
import { usage } from "../options.js";
import { writeResult } from "../sign/output.js";
import { createUi } from "../ui.js";
import { doctorJson, doctorLines, doctorSum } from "./output.js";

/** How a walk is written. */
export interface WalkOutput {
  readonly json: boolean;
  /** `--report`; null for none. */
  readonly report: string | null;
  readonly side: ReportFacts["side"];
  /** Names of the options that were given. */
  readonly options: readonly string[];
}

/** The names of the options that were given, as they are written. */
export function givenOptions(raw: object): string[] {
  return Object.entries(raw).flatMap(([name, value]) =>
    value === undefined || (Array.isArray(value) && value.length === 0)
      ? []
      : [name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)],
  );
}

/** Throws E_USAGE for a report that would overwrite something. */
export function checkReport(path: string | undefined): string | null {
  if (path === undefined) return null;
  if (path === "") throw usage("--report is empty", "name the file that the report is to be written to");
  if (existsSync(path)) throw usage(`--report names ${printable(path)}, which is there already`, "name a new file; nothing is overwritten");
  return path;
}

/** Answers the status of the first check that failed, 0 when none did. Rejects with the signal's reason, and E_OUTPUT. */
export async function walkAndWrite<C>(
  checks: readonly Check<C>[],
  context: C,
  signal: AbortSignal,
  { json, report, side, options }: WalkOutput,
): Promise<number> {
  const { stdout, stderr } = process;
  const colours = stdout.isTTY === true && !process.env["NO_COLOR"];
  const style = { colours, width: Math.max(...checks.map(({ title }) => title.length)) };
  const results = await walk(checks, context, {
    signal,
    onResult(result) {
      if (!json) stdout.write(doctorLines(result, style));
    },
  });
  await writeResult(stdout, json ? doctorJson(results) : doctorSum(results));
  if (report !== null) {
    const { platform, arch, versions } = process;
    const facts = {
      version: version(),
      at: new Date().toISOString(),
      node: versions.node,
      platform,
      arch,
      release: release(),
      side,
      options,
    };
    const text = reportText(results, facts, { home: homedir(), user: userName() });
    const ui = createUi(stderr);
    ui.line(`the report, as ${printable(report)} gets it:`);
    stderr.write(text);
    writeReport(report, text);
    ui.line(`the report is in ${printable(report)}; look it through before you send it`);
  }
  return walkStatus(results);
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A uid without a name.
    return "";
  }
}

function writeReport(path: string, text: string): void {
  try {
    const fd = openSync(path, "wx", 0o600);
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? "unknown reason";
    throw new TokenfwdError("E_OUTPUT", `the report cannot be written to ${printable(path)} (${why})`, {
      hint: "name a new file in a directory of yours with --report",
      cause,
    });
  }
}
