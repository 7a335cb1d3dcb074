/*
 * The checks of the way to the bastion and of the bastion's side, seen from the workstation, in their order.
 */
import type { Check } from "../check.js";
import type { DoctorContext } from "../context.js";

export const WAY_CHECKS: readonly Check<DoctorContext>[] = [];
