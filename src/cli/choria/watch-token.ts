/*
 * Hears of a token that is gone, and of an agent that is: whoever keeps something on the token's behalf lets go of it then. An
 * agent tells of its token; of its own end nobody tells, so it is asked. It must never keep a process alive.
 */
import type { TokenfwdClient } from "../../bastion/client/index.js";

/** How long an agent may be gone unnoticed. */
const LOOK_MS = 5_000;

/** Calls `gone` for each loss, with why in words. Call the answer to stop. */
export function watchToken(client: Pick<TokenfwdClient, "events" | "status">, gone: (why: string) => void, lookMs = LOOK_MS): () => void {
  let isThere = true;
  let isStopped = false;
  let timer: NodeJS.Timeout | null = null;
  const lost = (why: string): void => {
    if (!isStopped) gone(why);
  };
  const offs = [
    client.events.on("token-gone", () => lost("the token was pulled")),
    client.events.on("epoch", () => lost("the agent was gone for a while")),
  ];
  const look = async (): Promise<void> => {
    try {
      await client.status();
      isThere = true;
    } catch {
      if (isThere) lost("the agent is gone");
      isThere = false;
    }
    if (!isStopped) timer = setTimeout(() => void look(), lookMs).unref();
  };
  timer = setTimeout(() => void look(), lookMs).unref();
  return () => {
    isStopped = true;
    if (timer !== null) clearTimeout(timer);
    for (const off of offs) off();
  };
}
