/*
 * A burst of quick signatures on SoftHSM through agent and module process, as processes: when it is over, neither stays awake.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { connectClient } from "../../src/bastion/client/index.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { KEY_IDS } from "../bench/callers.js";
import { cpuSeconds, withDescendants } from "../bench/stats.js";
import { createSoftHsm } from "../support/softhsm.js";
import { startAgent } from "./agent-process.js";

const BURST = 400;
const QUIET_MS = 1_000;
/** A process that stays awake takes all of it. */
const MOST_OF_IT = QUIET_MS / 1_000 / 2;

it("lets agent and module process sleep when a burst of signatures is over", { timeout: 60_000 }, async () => {
  const token = await createSoftHsm({ label: "burst", certificates: false });
  const agent = await startAgent({ token, pin: "file" });
  try {
    await using client = await connectClient({ socket: agent.socket, client: "burst" });
    const key = (await client.keys()).find((one) => one.id.toString("hex") === KEY_IDS.ec);
    if (key === undefined) throw new Error("there is no P-256 key");
    const request = { key: { uri: key.uri, spki: null }, mechanism: CKM.CKM_ECDSA, parameter: null, data: Buffer.alloc(32, 7) };
    const lengths = new Set<number>();
    for (let made = 0; made < BURST; made++) {
      const { signature } = await client.signer.sign({ ...request, isDigest: true, purpose: "test", expect: null });
      lengths.add(signature.length);
    }
    expect([...lengths]).toEqual([64]);
    const pids = withDescendants([agent.pid]);
    expect(pids).toHaveLength(2);
    const before = pids.map((pid) => cpuSeconds([pid]));
    await sleep(QUIET_MS);
    for (const [index, pid] of pids.entries()) expect(cpuSeconds([pid]) - (before[index] ?? 0)).toBeLessThan(MOST_OF_IT);
  } finally {
    await agent.dispose();
    await token.dispose();
  }
});
