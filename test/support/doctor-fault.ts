/*
 * What a row of doctor's fault matrix is. Types only.
 */
import type { DoctorStage, DoctorWords } from "./doctor-stage.js";
import type { SshdOptions } from "./sshd.js";

/** A fault, made for real on a stage, and what doctor has to say of it. No fault may need another one. */
export interface DoctorFault {
  readonly name: string;
  readonly kind: "fail" | "warn";
  readonly id: string;
  readonly cause: string;
  /** The exit status of doctor, and of connect where it ends with this: 0 for a warning. */
  readonly status: number;
  readonly mend: RegExp;
  readonly detail?: RegExp;
  /** doctor says that it is broken, and connect does not look at it. */
  readonly connectGoesOn?: true;
  readonly sshd?: SshdOptions;
  /** Root and Linux: mounts, other owners. */
  readonly needsRoot?: true;
  /** A program that this machine may lack. */
  readonly needsFile?: string;
  /** In `npm test` too. */
  readonly fast?: true;
  /** Makes the fault; answers what it does to the command line. */
  make?(stage: DoctorStage): Promise<DoctorWords> | DoctorWords;
}
