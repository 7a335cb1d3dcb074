/*
 * The table of ids and causes: every check of the workstation and of the way to the bastion, in the order in which they are walked.
 * A check is here or it does not exist; its id and its causes' names are for ever.
 */
import type { TokenfwdError } from "../base/errors.js";
import { causeOf, type NamedCause } from "./causes.js";
import type { Check } from "./check.js";
import { CHORIA_CHECKS, CHORIA_HERE_CHECKS } from "./choria/checks.js";
import type { DoctorContext } from "./context.js";
import { WAY_CHECKS } from "./way/checks.js";
import { WORKSTATION_CHECKS } from "./workstation/checks.js";

/** Every check. */
export const ALL_CHECKS: readonly Check<DoctorContext>[] = [...WORKSTATION_CHECKS, ...WAY_CHECKS, ...CHORIA_CHECKS];

/** Without a destination those that need none, with one all. */
export function checksFor(destination: string | null): readonly Check<DoctorContext>[] {
  return destination === null ? [...WORKSTATION_CHECKS, ...CHORIA_HERE_CHECKS] : ALL_CHECKS;
}

/** What doctor calls an error with which connect ends; null for what no check looks at, such as a wrong option. */
export function nameCause(error: TokenfwdError): NamedCause | null {
  return causeOf(error, ALL_CHECKS);
}
