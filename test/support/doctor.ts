/*
 * Walks doctor's checks in the test's own process, and what a test says of the outcome: which checks did not pass, and why. What the
 * walk opened is closed before it answers.
 */

import { silentLog } from "../../src/base/log.js";
import { chooseKey } from "../../src/cli/key-choice.js";
import { noTerminal } from "../../src/cli/terminal.js";
import { createDoctorContext, type DoctorOptions } from "../../src/doctor/context.js";
import { checksFor } from "../../src/doctor/table.js";
import { type CheckResult, walk, walkStatus } from "../../src/doctor/walk.js";

/** The options of `tokenfwd doctor` without any. */
export const DOCTOR_DEFAULTS: DoctorOptions = {
  destination: null,
  module: null,
  token: null,
  key: null,
  pinSource: { kind: "ask" },
  profile: "sign",
  allowRawRsa: false,
  allowFullOverForward: false,
  holdMs: null,
  ssh: { sshOptions: [] },
};

export interface Walked {
  readonly results: readonly CheckResult[];
  readonly status: number;
  /** `id cause` of each check that failed or warned. */
  readonly broken: readonly string[];
}

/** Walks; `env` is what the checks look at, not what the module's process gets: that has the test's own environment. */
export async function walkDoctor(options: Partial<DoctorOptions>, env: NodeJS.ProcessEnv = {}): Promise<Walked> {
  const closers: (() => Promise<void> | void)[] = [];
  const all = { ...DOCTOR_DEFAULTS, ...options };
  const { signal } = new AbortController();
  try {
    const context = createDoctorContext(all, {
      signal,
      log: silentLog,
      env,
      defer: (close) => void closers.push(close),
      chooseKey: async (given, found, stop) => (await chooseKey(given, found, noTerminal, stop)).key,
      ask: { askPassphrase: async () => null, askLogin: async () => null },
      loadTimeoutMs: 2000,
    });
    const results = await walk(checksFor(all.destination), context, { signal });
    const broken = results.filter(({ status }) => status === "warn" || status === "fail").map(({ id, cause }) => `${id} ${cause}`);
    return { results, broken, status: walkStatus(results) };
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

/** The result of one check. */
export function resultOf({ results }: Walked, id: string): CheckResult {
  const found = results.find((one) => one.id === id);
  if (found === undefined) throw new Error(`no check ${id}`);
  return found;
}
