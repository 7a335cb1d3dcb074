/* What a client may hear of tokens: those of its slots, and a token that is back only when it is the same one. */
import { expect, test, vi } from "vitest";
import { listTokens } from "../../../src/agent/inspect.js";
import { createSlotEvents } from "../../../src/agent/slot-events.js";
import { watchTokens } from "../../../src/agent/token-watch.js";
import { localContext } from "../../../src/cryptoki/local-context.js";
import { createFakeTokenHost } from "../../support/fake-token-host.js";

async function listening(slots: ReadonlySet<bigint> | null) {
  const host = createFakeTokenHost({ 1: "1234", 2: "5678" });
  host.serials.set(1n, "A");
  const signal = new AbortController().signal;
  const tokens = await listTokens(host, localContext("test", signal));
  const watch = watchTokens([host], tokens, signal);
  const { events, close } = createSlotEvents({ host, watch, slots });
  const told: string[] = [];
  for (const name of ["token-in", "token-gone", "locked"] as const) events.on(name, ({ slot }) => told.push(`${name} ${slot}`));
  return { host, told, close };
}

test("events of other slots are not told", async () => {
  const { host, told, close } = await listening(new Set([1n]));
  host.events.emit("token-gone", { slot: 2n });
  host.events.emit("locked", { slot: 2n });
  host.events.emit("locked", { slot: 1n });
  expect(told).toEqual(["locked 1"]);
  close();
  host.events.emit("locked", { slot: 1n });
  expect(told).toHaveLength(1);
});

test("another token in the slot is not told of, the same one is when it is back", async () => {
  const { host, told, close } = await listening(new Set([1n]));
  host.swap(1n, "5678", "B");
  host.swap(1n, "1234", "A");
  await vi.waitFor(() => expect(told).toContain("token-in 1"));
  expect(told).toEqual(["token-gone 1", "token-gone 1", "token-in 1"]);
  close();
});

test("with the whole module in play every token is told of", async () => {
  const { host, told, close } = await listening(null);
  host.swap(2n, "0000", "C");
  expect(told).toEqual(["token-gone 2", "token-in 2"]);
  close();
});
