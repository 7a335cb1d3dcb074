/*
 * The purposes whose documents an agent of ours reads before it signs them: the agent knows none of their formats itself.
 */
import type { DescribedPurposes } from "../agent/described.js";
import { readForAgent } from "../choria/signer/agent-reading.js";
import { CKM } from "../cryptoki/mechanisms.js";

/** For `AgentOptions.describe`. */
export const DESCRIBED_PURPOSES: DescribedPurposes = {
  "choria-request": { mechanism: CKM.CKM_SHA256_RSA_PKCS, read: readForAgent },
};
