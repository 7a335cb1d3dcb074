/*
 * Many hostile connections against a running agent, and what they cost it. Shared by the test of every commit and the long one.
 */
import { setTimeout as delay } from "node:timers/promises";
import { residentBytes, type ServerProcess } from "./agent-process.js";
import { ATTACKS, goodClient } from "./hostile-attacks.js";
import { RPC_ATTACKS } from "./hostile-rpc-attacks.js";

/** Those that cost the attacker little, so that volume is possible; the large ones are played once each elsewhere. */
const CHEAP = [...ATTACKS, ...RPC_ATTACKS].filter((attack) => !/templates|levels/.test(attack.name));
const AT_ONCE = 8;

/** Plays `count` connections, a few at once, all attacks in turn. */
export async function playVolume(agent: ServerProcess, count: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let number = next++; number < count; number = next++) {
      const attack = CHEAP[number % CHEAP.length];
      if (attack === undefined) throw new Error("no attacks");
      const reaction = await attack.play(agent.socket);
      if (!attack.expected.includes(reaction)) throw new Error(`${attack.name}: ${reaction}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/**
 * By how many bytes the resident memory of a fresh idle agent and its module process grows over `count` connections. Nothing is
 * warmed up: what is compiled and kept for the first client counts. The collector works when it likes, so the smallest of the
 * readings within `settleMs` counts, and reading stops early below `enoughBytes`.
 */
export async function growthBytes(agent: ServerProcess, count: number, enoughBytes: number, settleMs: number): Promise<number> {
  const before = residentBytes(agent.pid);
  await playVolume(agent, count);
  const until = Date.now() + settleMs;
  let growth = residentBytes(agent.pid) - before;
  while (growth > enoughBytes && Date.now() < until) {
    await goodClient(agent.socket);
    await delay(100);
    growth = Math.min(growth, residentBytes(agent.pid) - before);
  }
  return growth;
}
