/*
 * The agent's memory under volume: 100,000 hostile connections leave it within 20 MB of what it was.
 */
import { expect, it } from "vitest";
import { startAgent } from "../interop/agent-process.js";
import { goodClient } from "../interop/hostile-attacks.js";
import { growthBytes } from "../interop/hostile-volume.js";
import { createSoftHsm } from "../support/softhsm.js";

it("stays within 20 MB after 100,000 hostile connections", async () => {
  await using token = await createSoftHsm({ certificates: false });
  const agent = await startAgent({ token, pin: "file" });
  try {
    expect(await growthBytes(agent, 100_000, 15_000_000, 60_000)).toBeLessThan(20_000_000);
    await goodClient(agent.socket);
  } finally {
    await agent.dispose();
  }
});
