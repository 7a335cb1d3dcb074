/*
 * The checks of the workstation, in their order. A check belongs here when it can be made without a bastion.
 */
import type { Check } from "../check.js";
import type { DoctorContext } from "../context.js";
import { agentSocketCheck } from "./agent-socket.js";
import { cardCheck } from "./card.js";
import { certificateCheck } from "./certificate.js";
import { keyCheck } from "./key.js";
import { moduleCheck } from "./module.js";
import { nativeCheck } from "./native.js";
import { nodeCheck } from "./node.js";
import { pinCheck } from "./pin.js";
import { pinSourceCheck } from "./pin-source.js";
import { policyCheck } from "./policy.js";
import { tokenCheck } from "./token.js";
import { validityCheck } from "./validity.js";

export const WORKSTATION_CHECKS: readonly Check<DoctorContext>[] = [
  nodeCheck,
  nativeCheck,
  pinSourceCheck,
  policyCheck,
  moduleCheck,
  cardCheck,
  tokenCheck,
  pinCheck,
  keyCheck,
  certificateCheck,
  validityCheck,
  agentSocketCheck,
];
