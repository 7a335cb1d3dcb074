/*
 * What doctor found, as JSON (pinned, version 1) and as a list for a person. Marks stand first, so that the list reads the same without
 * colours; colours come only on a terminal. Every text in it is printable already.
 */
import type { CheckResult } from "../../doctor/walk.js";

const MARKS = { pass: "✓", warn: "!", fail: "✗", "not-reached": "-" } as const;
/** Green, yellow, red, grey. */
const COLOURS = { pass: "32", warn: "33", fail: "31", "not-reached": "90" } as const;

/** The document of `doctor --json`. */
export function doctorJson(results: readonly CheckResult[]): string {
  const checks = results.map(({ id, status, cause, detail, mend }) => ({ id, status, cause, detail, mend }));
  return `${JSON.stringify({ v: 1, checks }, null, 2)}\n`;
}

/** How a list is written. */
export interface ListStyle {
  readonly colours: boolean;
  /** The width of the column with the checks' titles. */
  readonly width: number;
}

/** The lines of one check, each with its line break: the check, and below it what mends it. */
export function doctorLines({ title, status, cause, detail, mend, code }: CheckResult, { colours, width }: ListStyle): string {
  const paint = (text: string) => (colours ? `\u001b[${COLOURS[status]}m${text}\u001b[0m` : text);
  const said = status === "not-reached" ? `not reached: ${detail}` : detail;
  const named = cause === null ? "" : ` [${[cause, code].filter((part) => part !== null).join(" ")}]`;
  const line = `${paint(MARKS[status])} ${title.padEnd(width)}  ${said}${named}`.trimEnd();
  return mend === null ? `${line}\n` : `${line}\n${" ".repeat(width + 4)}mend: ${mend}\n`;
}

/** The last line: how many of each. */
export function doctorSum(results: readonly CheckResult[]): string {
  const count = (status: CheckResult["status"]) => results.filter((one) => one.status === status).length;
  const parts = [
    `${count("pass")} passed`,
    ...(count("warn") > 0 ? [`${count("warn")} warned`] : []),
    ...(count("fail") > 0 ? [`${count("fail")} failed`] : []),
    ...(count("not-reached") > 0 ? [`${count("not-reached")} not reached`] : []),
  ];
  return `${parts.join(", ")}\n`;
}
