/*
 * Runs rows of doctor's fault matrix as tests: the faults on a fresh stage, the command as a process, and the verdict. With `connect` it
 * also asks whether a failing connect names the same cause.
 */
import { existsSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ERRORS } from "../../src/base/errors.js";
import { ALL_CHECKS } from "../../src/doctor/table.js";
import type { DoctorFault } from "./doctor-fault.js";
import { createDoctorStage, createStageToken, type DoctorRun, type DoctorStage, type DoctorWords, leftOnBastion } from "./doctor-stage.js";
import type { SoftHsm } from "./softhsm.js";
import type { SshdOptions } from "./sshd.js";

const root = process.getuid?.() === 0 && process.platform === "linux";
const canMake = ({ needsRoot, needsFile }: DoctorFault): boolean =>
  (needsRoot !== true || root) && (needsFile === undefined || existsSync(needsFile));

/** Registers the hooks of a test file; the answer registers its tests. */
export function doctorMatrix(): { row(fault: DoctorFault, connect: boolean): void; pair(one: DoctorFault, other: DoctorFault): void } {
  let token: SoftHsm;
  beforeAll(async () => {
    token = await createStageToken();
  }, 60_000);
  afterAll(() => token?.dispose());
  const on = async (faults: readonly DoctorFault[], look: (stage: DoctorStage, words: DoctorWords) => Promise<void>): Promise<void> => {
    const stage = await createDoctorStage(token, together(faults.map(({ sshd = {} }) => sshd)));
    try {
      const words: DoctorWords[] = [];
      for (const fault of faults) words.push((await fault.make?.(stage)) ?? {});
      await look(stage, joined(words));
    } finally {
      await stage.dispose();
    }
  };
  return {
    row(fault, connect) {
      test.skipIf(!canMake(fault))(`${fault.name}: ${fault.id} ${fault.kind}s with ${fault.cause}`, () =>
        on([fault], async (stage, words) => {
          const before = leftOnBastion(stage.sshd);
          const run = await stage.doctor(words);
          expectNamed(run, [fault]);
          const others = run.checks.filter(({ id }) => id !== fault.id).map(({ status }) => status);
          if (fault.kind === "warn") expect(new Set(others)).toEqual(new Set(["pass"]));
          expect(run.exit.code).toBe(fault.status);
          // A dead socket of ours is cleared away, as connect would.
          expect(leftOnBastion(stage.sshd).filter((path) => !before.includes(path))).toEqual([]);
          if (connect) await expectConnect(stage, words, fault);
        }),
      );
    },
    pair(one, other) {
      test.skipIf(!canMake(one) || !canMake(other))(`${one.name}, and ${other.name}`, () =>
        on([one, other], async (stage, words) => {
          const run = await stage.doctor(words);
          expectNamed(run, [one, other]);
          const order = ALL_CHECKS.map(({ id }) => id);
          const failed = [one, other].filter(({ kind }) => kind === "fail").sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
          expect(run.exit.code).toBe(failed[0]?.status ?? 0);
        }),
      );
    },
  };
}

/** Each fault is named by its check, with its cause and mend, and nothing else is. */
function expectNamed({ checks, broken, exit }: DoctorRun, faults: readonly DoctorFault[]): void {
  const named = (all: readonly { id: string; cause: string | null; status: string }[]) =>
    all.map(({ id, cause, status }) => `${id} ${status} ${cause}`).sort();
  const wanted = faults.map(({ id, cause, kind }) => ({ id, cause, status: kind }));
  expect({ broken: named(broken), why: broken.map(({ detail }) => detail) }).toMatchObject({ broken: named(wanted) });
  for (const { id, mend, detail = /./ } of faults) {
    const found = broken.find((one) => one.id === id);
    expect(found?.mend).toMatch(mend);
    expect(found?.detail).toMatch(detail);
  }
  expect(checks.map(({ id }) => id)).toEqual(ALL_CHECKS.map(({ id }) => id));
  for (const { status, cause, mend, detail } of checks) {
    expect(typeof detail).toBe("string");
    if (status === "pass" || status === "not-reached") expect([cause, mend]).toEqual([null, null]);
  }
  expect(exit.stderr).toBe("");
}

/** A connect that ends with this fault ends with its status and, where its code has several causes, names the same one. */
async function expectConnect(stage: DoctorStage, words: DoctorWords, fault: DoctorFault): Promise<void> {
  const cause = ALL_CHECKS.find(({ id }) => id === fault.id)?.causes[fault.cause];
  if (fault.kind === "warn" || fault.connectGoesOn === true || cause?.code === null || cause === undefined) return;
  const { code, error } = await stage.connect(words);
  expect({ code, error }).toMatchObject({ code: ERRORS[cause.code].exitCode, error: { code: cause.code } });
  expect(error?.["cause"] ?? (cause.usual === true ? fault.cause : null)).toBe(fault.cause);
}

function together(all: readonly SshdOptions[]): SshdOptions {
  const config = all.flatMap((one) => one.config ?? []);
  return { ...Object.assign({}, ...all), ...(config.length === 0 ? {} : { config }) };
}

function joined(all: readonly DoctorWords[]): DoctorWords {
  const options = all.flatMap((one) => one.options ?? []);
  return { ...Object.assign({}, ...all), env: Object.assign({}, ...all.map(({ env }) => env)), options };
}
