/*
 * What doctor found, as one JSON for a bug report. It holds what the list on the terminal holds, what runs it, and which options were
 * given; never an environment, a value of an option, a PIN or a key. Names of users in paths are taken out, for a report goes far.
 */
import { printable } from "../base/printable.js";
import type { CheckResult } from "./walk.js";

/** What the report says of the machine. */
export interface ReportFacts {
  readonly version: string;
  /** RFC 3339 UTC. */
  readonly at: string;
  readonly node: string;
  readonly platform: string;
  readonly arch: string;
  /** Of the kernel. */
  readonly release: string;
  readonly side: "workstation" | "bastion";
  /** Names of the options that were given, in their order. */
  readonly options: readonly string[];
}

/** Whose names are taken out of it. */
export interface ReportNames {
  readonly home: string;
  readonly user: string;
}

/** The report's text, with a line break at its end. */
export function reportText(results: readonly CheckResult[], facts: ReportFacts, names: ReportNames): string {
  const clean = (text: string): string => withoutSecrets(text, names);
  const checks = results.map(({ id, status, cause, code, detail, mend }) => ({
    id,
    status,
    cause,
    code,
    detail: clean(detail),
    mend: mend === null ? null : clean(mend),
  }));
  return `${JSON.stringify({ v: 1, ...facts, options: facts.options.map((one) => printable(one, 40)), checks }, null, 2)}\n`;
}

/** The text without what a report must not hold, should it ever have come into a line: PINs, keys, and who the user is. */
export function withoutSecrets(text: string, { home, user }: ReportNames): string {
  const literal = (part: string): string => part.replace(/[.*+?^$(){}|[\]\\]/g, "\\$&");
  let clean = text
    .replace(/-----BEGIN [A-Z ]+-----[\s\S]*?(-----END [A-Z ]+-----|$)/g, "(removed)")
    .replace(/\b(pin-value|pin-source|pin|password|passphrase)([=:])[^\s;&?,'"]+/gi, "$1$2(removed)");
  if (home.length > 1) clean = clean.replace(new RegExp(`${literal(home)}(?=/|\\b)`, "g"), "~");
  if (user !== "") clean = clean.replace(new RegExp(`(?<=/)${literal(user)}(?=/|\\b)`, "g"), "USER");
  // Users of other machines, and not the vendors that SSH's algorithms are named by.
  return clean
    .replace(/(?<=\/(?:home|Users)\/)[^/\s'"]+/g, "USER")
    .replace(/(?<![\w.-])[\w.-]+(?=@(?!openssh\.com|libssh\.org|lysator\.liu\.se)[\w[])/g, "USER");
}
