/*
 * Short forms for the rows of doctor's fault matrix.
 */
import type { DoctorFault } from "./doctor-fault.js";
import type { DoctorWords } from "./doctor-stage.js";
import type { SoftHsm } from "./softhsm.js";

/** The row's verdict: this check fails with this cause, and doctor ends with this status. */
export const fails = (
  id: string,
  cause: string,
  status: number,
  mend: RegExp,
): Pick<DoctorFault, "kind" | "id" | "cause" | "status" | "mend"> => ({
  kind: "fail",
  id,
  cause,
  status,
  mend,
});

/** The row's verdict: this check warns with this cause, and doctor ends with 0. */
export const warns = (id: string, cause: string, mend: RegExp): Pick<DoctorFault, "kind" | "id" | "cause" | "status" | "mend"> => ({
  kind: "warn",
  id,
  cause,
  status: 0,
  mend,
});

/** The command line with these options of ssh. */
export const ssh = (...options: string[]): DoctorWords => ({ options: options.flatMap((option) => ["--ssh-option", option]) });

/** A configuration of choria's client with which nothing is wrong. */
export const choriaConfig = ({ caFile }: Pick<SoftHsm, "caFile">): string =>
  [
    "plugin.security.provider = file",
    `plugin.security.file.ca = ${caFile}`,
    "plugin.choria.middleware_hosts = broker.example:4222",
    "discovery_timeout = 20",
    "",
  ].join("\n");
