/*
 * The checks of the bastion's side, for a doctor that runs there, in their order. What they import must run from the bundle: no native
 * code, no ssh2, no execa.
 */
import type { Check } from "../check.js";
import { choriaConfigCheck } from "../choria/config.js";
import { nodeCheck } from "../workstation/node.js";
import { bastionAgentCheck } from "./agent.js";
import type { BastionContext } from "./context.js";
import { bastionSignatureCheck } from "./signature.js";
import { bastionSocketCheck } from "./socket.js";
import { bastionStockCheck } from "./stock.js";
import { bastionKeysCheck, bastionTokenCheck } from "./token.js";

export const BASTION_CHECKS: readonly Check<BastionContext>[] = [
  nodeCheck,
  bastionSocketCheck,
  bastionAgentCheck,
  bastionTokenCheck,
  bastionKeysCheck,
  bastionStockCheck,
  bastionSignatureCheck,
  choriaConfigCheck<BastionContext>({
    id: "choria-config",
    title: "Choria configuration",
    where: "on this machine",
    needs: [],
    found: ({ choria }) => choria(),
    keys: async ({ keys }) =>
      keys().then(
        (found) => ({ keys: found }),
        () => ({ notLooked: "no token answers" }),
      ),
  }),
];
