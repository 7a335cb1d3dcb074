/*
 * Remembers a no: programs that ask again at once, as ssh does for each key, get the same answer without anybody being asked. It
 * must never remember the answer to a question that was taken back.
 */
import { CKR } from "../cryptoki/rv.js";
import type { CallContext } from "../cryptoki/types.js";

/** A no, a cancel or a time-out answers the same client for this long without asking again. */
const REFUSAL_MEMORY_MS = 10_000;

export interface RefusalMemory {
  /** The CK_RV that this client was refused with a short time ago, else the one that `ask` answers. */
  remembering(ctx: CallContext, ask: () => Promise<number>): Promise<number>;
  /** Forgets a client that has gone. */
  forget(client: string): void;
}

export function createRefusalMemory(): RefusalMemory {
  const refusals = new Map<string, { readonly rv: number; readonly untilMs: number }>();
  return {
    async remembering(ctx, ask) {
      const memory = refusals.get(ctx.client);
      if (memory !== undefined && memory.untilMs > Date.now()) return memory.rv;
      refusals.delete(ctx.client);
      const rv = await ask();
      // Nobody said no: the one who asked has taken it back.
      if (ctx.signal.aborted) return rv;
      if (rv === CKR.CKR_FUNCTION_REJECTED || rv === CKR.CKR_FUNCTION_CANCELED)
        refusals.set(ctx.client, { rv, untilMs: Date.now() + REFUSAL_MEMORY_MS });
      return rv;
    },
    forget: (client) => void refusals.delete(client),
  };
}
