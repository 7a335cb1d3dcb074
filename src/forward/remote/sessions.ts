/*
 * How many sessions a server allows on one connection, and opening one where it is one at a time (MaxSessions 1). It must never be used
 * for a connection's first session: a refusal of that one is final.
 */
import { within } from "../../base/within.js";
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

/** Whether a command can run beside the session that there is; answers false too where the server does not say. Costs one short command. */
export async function onlyOneSession(transport: Transport, closeMs: number): Promise<boolean> {
  const outcome = await transport.exec("exit 0");
  if (!outcome.ok) return outcome.refused === "session";
  outcome.value.stream.on("error", () => {}).resume();
  outcome.value.stderr.resume();
  await within(closeMs, outcome.value.exit);
  outcome.value.close();
  return false;
}
