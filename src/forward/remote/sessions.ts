/*
 * Opening a session on a server that allows one at a time (MaxSessions 1). It must never be used for a connection's
 * first session: a refusal of that one is final.
 */
import type { Transport } from "../transport.js";

const TRIES = 20;
const RETRY_MS = 50;

/** The same transport; a refused session is tried again for a second, as sshd frees the last one after its channel closed. */
export function retryingSessions(transport: Transport): Transport {
  return {
    ...transport,
    async exec(command, options) {
      for (let attempt = 1; ; attempt++) {
        const outcome = await transport.exec(command, options);
        if (outcome.ok || outcome.refused !== "session" || attempt === TRIES) return outcome;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    },
  };
}
