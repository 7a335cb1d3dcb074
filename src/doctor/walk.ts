/*
 * Runs checks in their order and says of each: pass, warn, fail, or not reached, because something that it needs is broken. It
 * must never run longer than the checks' limits together, and never end because a check failed: what does not depend on it is still looked at.
 */
import { ERRORS, type ErrorCode, TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import { COMMON_CAUSES, causeOf } from "./causes.js";
import { type Cause, type Check, type Finding, fillMend, type Looking } from "./check.js";

/** What is known of a check after the walk. Texts are printable. */
export interface CheckResult {
  readonly id: string;
  readonly title: string;
  readonly status: "pass" | "warn" | "fail" | "not-reached";
  readonly cause: string | null;
  readonly detail: string;
  readonly mend: string | null;
  /** Of a failed or warned check, where connect has a code for it. */
  readonly code: ErrorCode | null;
}

export interface WalkOptions {
  /** Ends the walk: `walk` rejects with its reason. */
  readonly signal: AbortSignal;
  /** Told of each check when it is known. */
  onResult?(result: CheckResult): void;
}

const OTHER = 1;
const MAX_DETAIL = 1000;

/** The exit status: of the first check that failed, 0 when none did. Warnings do not count. */
export function walkStatus(results: readonly CheckResult[]): number {
  const failed = results.find(({ status }) => status === "fail");
  if (failed === undefined) return 0;
  return failed.code === null ? OTHER : ERRORS[failed.code].exitCode;
}

/** Runs them one after the other. Rejects only with the signal's reason. */
export async function walk<C>(checks: readonly Check<C>[], context: C, { signal, onResult }: WalkOptions): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  /** Errors that an earlier check met and that are a later one's finding. */
  const ahead = new Map<string, TokenfwdError>();
  /** Errors that are a check's finding already. */
  const reported = new Map<TokenfwdError, string>();
  for (const [index, check] of checks.entries()) {
    signal.throwIfAborted();
    const missed = results.find((one) => check.needs.includes(one.id) && isBroken(one));
    const met = ahead.get(check.id);
    let finding: Finding;
    let code: ErrorCode | null = null;
    if (missed !== undefined) finding = { status: "not-reached", detail: `needs ${missed.id}` };
    else {
      const outcome = met ?? (await look(check, context, signal));
      if (outcome instanceof TokenfwdError) {
        const owner = causeOf(outcome, checks);
        const named = owner === null ? index : checks.findIndex(({ id }) => id === owner.check);
        // Two checks that look for the same in two places share their causes, and then it is the one that looked.
        const where = checks[named]?.causes === check.causes ? index : named;
        if (where > index) {
          ahead.set(checks[where]?.id ?? "", outcome);
          finding = { status: "pass", detail: "" };
        } else {
          // What an earlier check has passed can break later: then it is this one's, and only the first one's that meets it.
          const earlier = where < index ? results[where] : undefined;
          const before = reported.get(outcome) ?? (earlier !== undefined && isBroken(earlier) ? earlier.id : undefined);
          const cause = where === index ? (owner?.cause ?? "unexplained") : "unexplained";
          if (cause === "unexplained") code = outcome.code;
          if (before === undefined) reported.set(outcome, check.id);
          finding =
            before !== undefined
              ? { status: "not-reached", detail: `needs ${before}` }
              : { status: "broken", cause, detail: outcome.message, ...(outcome.hint === undefined ? {} : { mend: outcome.hint }) };
        }
      } else finding = outcome;
    }
    const result = resultOf(check, finding, code);
    results.push(result);
    onResult?.(result);
  }
  return results;
}

/** Whether what needs this one cannot be looked at. */
function isBroken({ status }: CheckResult): boolean {
  return status === "fail" || status === "not-reached";
}

/** The finding, or the error in its place. Rejects with the reason of the walk's own end. */
async function look<C>(check: Check<C>, context: C, signal: AbortSignal): Promise<Finding | TokenfwdError> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), check.limitMs);
  const both = AbortSignal.any([signal, limit.signal]);
  const looking: Looking<string> = {
    signal: both,
    broken: (cause, detail, facts) => ({ status: "broken", cause, detail, ...(facts === undefined ? {} : { facts }) }),
  };
  let stop = (): void => {};
  const over = new Promise<Finding>((resolve) => {
    const detail = `nothing came of it in ${check.limitMs / 1000} s`;
    stop = () => resolve({ status: "broken", cause: "timed-out", detail });
    both.addEventListener("abort", stop, { once: true });
  });
  const running = (async () => check.run(context, looking))();
  try {
    const finding = await Promise.race([running, over]);
    signal.throwIfAborted();
    return finding;
  } catch (thrown) {
    signal.throwIfAborted();
    return TokenfwdError.from(thrown);
  } finally {
    clearTimeout(timer);
    both.removeEventListener("abort", stop);
    // What it still does after its time is of no interest.
    running.catch(() => undefined);
  }
}

function resultOf<C>(check: Check<C>, finding: Finding, code: ErrorCode | null): CheckResult {
  const { id, title } = check;
  const detail = printable(finding.detail, MAX_DETAIL);
  if (finding.status !== "broken") return { id, title, status: finding.status, cause: null, detail, mend: null, code: null };
  const cause: Cause | undefined = check.causes[finding.cause] ?? COMMON_CAUSES[finding.cause as keyof typeof COMMON_CAUSES];
  if (cause === undefined) throw new TokenfwdError("E_BUG", `the check ${id} has no cause ${finding.cause}`);
  const mend = printable(finding.mend ?? fillMend(cause.mend, finding.facts), MAX_DETAIL);
  return { id, title, status: cause.status, cause: finding.cause, detail, mend, code: code ?? cause.code };
}
