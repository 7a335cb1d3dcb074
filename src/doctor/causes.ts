/*
 * From an error of connect's own code path to the check and cause that doctor names for it, so that both say the same. Pure.
 */
import type { TokenfwdError } from "../base/errors.js";
import type { Check } from "./check.js";

/** A row of the table of ids and causes. */
export interface NamedCause {
  readonly check: string;
  readonly cause: string;
}

/** What a check finds that is over its time, and what it finds when an error is none of the table's. Every check can find them. */
export const COMMON_CAUSES = {
  "timed-out": {
    status: "fail",
    code: null,
    meaning: "The check did not come to an end in its time, and was given up. What it waited for stands in the line.",
    mend: "run it again; if it stays: tokenfwd doctor --report FILE, and report it",
  },
  unexplained: {
    status: "fail",
    code: null,
    meaning: "Something failed that has no cause in this list. The line has the error as connect would say it.",
    mend: "run it again with TOKENFWD_LOG set; if it stays: tokenfwd doctor --report FILE, and report it",
  },
} as const;

/**
 * The cause of the table that an error is: the one that its `reason` names under its code, else the usual one of its code, else null.
 */
export function causeOf(
  error: Pick<TokenfwdError, "code" | "reason">,
  checks: readonly Pick<Check<never>, "id" | "causes">[],
): NamedCause | null {
  let usual: NamedCause | null = null;
  for (const { id, causes } of checks) {
    for (const [name, { code, usual: isUsual }] of Object.entries(causes)) {
      if (code !== error.code) continue;
      if (name === error.reason) return { check: id, cause: name };
      if (isUsual === true) usual ??= { check: id, cause: name };
    }
  }
  return usual;
}
