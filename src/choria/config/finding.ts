/*
 * What a look at a client's configuration can find, and what each look is handed. It must never hold a secret: no value of a
 * password, and of a seed or a token file only its shape.
 */
import type { KeyEntry } from "../../cryptoki/keys/types.js";
import type { ClientConfig } from "./client-config.js";

/** `error`: choria cannot work so. `warning`: it works, and hardly as it was meant. `note`: good to know. */
export type Severity = "error" | "warning" | "note";

export interface ConfigFinding {
  /** Lower case with hyphens, for scripts. */
  readonly id: string;
  readonly severity: Severity;
  /** True when it matters only to choria run by itself: `tokenfwd choria run` and `connect --choria` set this their own way. */
  readonly stockOnly: boolean;
  /** One line, printable: what is the case. */
  readonly text: string;
  /** One line, printable: exactly what mends it. */
  readonly mend: string;
  /** Where, null when it is not a line of a file. */
  readonly file: string | null;
  readonly line: number | null;
}

/** What is at a path. `mode` are the permission bits. */
export type Looked =
  | { readonly state: "missing" }
  | { readonly state: "unreadable"; readonly why: string }
  | { readonly state: "file"; readonly bytes: Buffer; readonly mode: number };

/** Looks at a file that the configuration names. `mode` is enough for private keys: then `bytes` is empty. */
export type Look = (path: string, want: "text" | "mode") => Promise<Looked>;

export interface CheckConfigInput {
  readonly config: ClientConfig;
  /** Where choria would run. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly root: boolean;
  readonly look: Look;
  /** The token's keys, or why they were not looked at. */
  readonly token: { readonly keys: readonly KeyEntry[] } | { readonly notLooked: string };
  /** Milliseconds since 1970. */
  readonly now: number;
}

export interface ConfigReport {
  /** Errors first, then as they were found. */
  readonly findings: readonly ConfigFinding[];
  /** What could not be looked at, a sentence each. */
  readonly notLooked: readonly string[];
}

/** Takes down what was found. */
export interface Findings {
  add(id: string, severity: Severity, text: string, mend: string, at?: Where): void;
}

/** Where something was found, and whether it matters to choria by itself only. */
export interface Where {
  readonly source?: { readonly path: string; readonly line: number } | undefined;
  readonly stockOnly?: boolean;
}

const ORDER: Readonly<Record<Severity, number>> = { error: 0, warning: 1, note: 2 };

/** A list to add to, and what it has become. */
export function createFindings(): Findings & { done(): readonly ConfigFinding[] } {
  const found: ConfigFinding[] = [];
  return {
    add(id, severity, text, mend, { source, stockOnly = false } = {}) {
      found.push({ id, severity, stockOnly, text, mend, file: source?.path ?? null, line: source?.line ?? null });
    },
    done: () => found.toSorted((a, b) => ORDER[a.severity] - ORDER[b.severity]),
  };
}
