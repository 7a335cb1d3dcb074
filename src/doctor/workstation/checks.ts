/*
 * The checks of the workstation, in their order. A check belongs here when it can be made without a bastion.
 */
import type { Check } from "../check.js";
import type { DoctorContext } from "../context.js";
import { moduleCheck } from "./module.js";
import { nativeCheck } from "./native.js";
import { nodeCheck } from "./node.js";

export const WORKSTATION_CHECKS: readonly Check<DoctorContext>[] = [nodeCheck, nativeCheck, moduleCheck];
