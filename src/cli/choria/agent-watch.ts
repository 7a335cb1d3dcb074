/*
 * Notices that the way to the token is gone for good while nothing is asked of it: choria would wait, or work for nobody. It asks for
 * nothing that a token could mind, and never holds the process.
 */
import { setTimeout as delay } from "node:timers/promises";
import { TokenfwdError } from "../../base/errors.js";
import type { TokenfwdClient } from "../../bastion/client/index.js";
import { localContext } from "../../cryptoki/local-context.js";
import { CKR } from "../../cryptoki/rv.js";

/** Short enough for whoever waits at a terminal. */
const EVERY_MS = 2_000;

/** Resolves, never rejects, when whatever was at the other end answers no more. Not at all once `signal` was aborted. */
export async function whenAgentIsGone(
  client: Pick<TokenfwdClient, "status" | "cryptoki" | "protocol">,
  signal: AbortSignal,
): Promise<TokenfwdError> {
  const never = new Promise<never>(() => {});
  for (;;) {
    try {
      await delay(EVERY_MS, undefined, { signal, ref: false });
    } catch {
      return await never;
    }
    const lost = await lostBy(client, signal);
    if (signal.aborted) return await never;
    if (lost === null) continue;
    return new TokenfwdError("E_AGENT_LOST", "the connection to the workstation is gone, and the token with it", {
      hint: "connect again",
      cause: lost,
    });
  }
}

/** Why it does not answer; null when it does. */
async function lostBy(client: Pick<TokenfwdClient, "status" | "cryptoki" | "protocol">, signal: AbortSignal): Promise<unknown> {
  try {
    if (client.protocol === "tokenfwd") await client.status();
    else {
      const { rv } = await client.cryptoki.call(
        "C_GetSlotList",
        { tokenPresent: 1, room: 16 },
        localContext("tokenfwd choria run", signal),
      );
      if (rv === CKR.CKR_DEVICE_REMOVED) return rv;
    }
    return null;
  } catch (error) {
    return error;
  }
}
