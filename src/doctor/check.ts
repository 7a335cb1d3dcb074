/*
 * What a check of doctor is: what it looks at, what it can find, what that means and what mends it. The files beside and below
 * have one check each; the lists of them are the table of ids and causes, and docs/troubleshooting.md is generated from it. Nothing
 * here runs a check, and nothing that a bastion does not have is imported here.
 */
import type { ErrorCode } from "../base/errors.js";
import { printable } from "../base/printable.js";

/** Something that a check can find. */
export interface Cause {
  readonly status: "warn" | "fail";
  /** The code with which `connect` ends for the same thing, and the exit status of doctor; null where connect does not stop (1). */
  readonly code: ErrorCode | null;
  /** True for what an error of `code` means when its `reason` names no cause. At most one cause of all has it for a code. */
  readonly usual?: true;
  /** A sentence or two for the page: what is the case, and what comes of it. */
  readonly meaning: string;
  /** The command to type, or the sentence to send to somebody. `{name}` is filled from the finding's facts. */
  readonly mend: string;
}

/** What a check found. `detail` is one line, printable, without a secret. */
export type Finding<K extends string = string> =
  | { readonly status: "pass"; readonly detail: string }
  /** It could not be looked at, and nothing is broken for that. */
  | { readonly status: "not-reached"; readonly detail: string }
  | {
      readonly status: "broken";
      readonly cause: K;
      readonly detail: string;
      /** In the place of the cause's own, where the finder knows better: the hint of an error. */
      readonly mend?: string;
      /** What the cause's mend has in braces. A path in a command is a shellWord already. */
      readonly facts?: Readonly<Record<string, string>>;
    };

/** What a running check is handed beside its context. */
export interface Looking<K extends string> {
  /** Aborts at the check's time limit and with the whole walk. */
  readonly signal: AbortSignal;
  broken(cause: K, detail: string, facts?: Readonly<Record<string, string>>): Finding<K>;
}

/** A check over a context of type C. */
export interface Check<C> {
  /** Lower case with hyphens, for ever: bug reports and scripts name it. */
  readonly id: string;
  /** A few words for the list. */
  readonly title: string;
  /** What it looks at, for the page. */
  readonly looks: string;
  /** Ids of earlier checks: when one of them failed or was not reached, this one is not. */
  readonly needs: readonly string[];
  /** How long it may take; default 30,000. */
  readonly limitMs: number;
  readonly causes: Readonly<Record<string, Cause>>;
  /**
   * Looks. A TokenfwdError that it throws is the finding of the check that has its cause (causes.ts): of this one, or of a later
   * one, and then this one has passed.
   */
  run(context: C, looking: Looking<string>): Promise<Finding>;
}

/** As Check, with the causes' names known to the compiler. */
interface CheckDefinition<C, K extends string> {
  readonly id: string;
  readonly title: string;
  readonly looks: string;
  readonly needs?: readonly string[];
  readonly limitMs?: number;
  readonly causes: Readonly<Record<K, Cause>>;
  run(context: C, looking: Looking<K>): Promise<Finding<K>>;
}

const LIMIT_MS = 30_000;

/** A check of the table. `defineCheck<Context>()({ ... })`: the causes' names are inferred. */
export function defineCheck<C>(): <K extends string>(definition: CheckDefinition<C, K>) => Check<C> {
  return ({ needs = [], limitMs = LIMIT_MS, ...rest }) => ({ needs, limitMs, ...rest }) as Check<C>;
}

/** All is well; `detail` says what was seen. */
export function pass(detail: string): Extract<Finding, { status: "pass" }> {
  return { status: "pass", detail };
}

/** It could not be looked at, and `why` says what for. */
export function notReached(why: string): Extract<Finding, { status: "not-reached" }> {
  return { status: "not-reached", detail: why };
}

/** A mend with its facts filled in. One that is not known stands there in capitals, as on the page. */
export function fillMend(template: string, facts: Readonly<Record<string, string>> = {}): string {
  return template.replace(/\{(\w+)\}/g, (_whole, name: string) => {
    const fact = facts[name];
    return fact === undefined ? name.toUpperCase() : printable(fact, 1000);
  });
}
