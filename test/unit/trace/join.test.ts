/* Two streams joined with a tap between them: every byte, both ends, back-pressure, and a tap that fails nobody. */
import type { Duplex } from "node:stream";
import { expect, test } from "vitest";
import { joinTapped } from "../../../src/trace/join.js";
import type { Direction, StreamTap } from "../../../src/wire/trace/records.js";
import { streamPair } from "../../support/stream-pair.js";

function joined(lingerMs?: number) {
  const [client, clientSide] = streamPair();
  const [server, serverSide] = streamPair();
  const seen: Record<Direction, Buffer[]> = { client: [], server: [] };
  const closed: (Direction | null)[] = [];
  const tap: StreamTap = {
    bytes: (from, bytes) => void seen[from].push(Buffer.from(bytes)),
    closed: (by) => void closed.push(by),
  };
  const done = joinTapped(clientSide, serverSide, tap, lingerMs);
  return { client, server, clientSide, serverSide, seen, closed, done };
}

/** All that comes until its end; the stream stays open the other way. */
function readAll(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return new Promise((resolve) => stream.once("end", () => resolve(Buffer.concat(chunks))));
}

test("bytes go both ways as they are, and the tap has seen the same", async () => {
  const { client, server, seen, closed, done } = joined();
  const there = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251));
  const back = Buffer.from(there).reverse();
  client.end(there);
  expect((await readAll(server)).equals(there)).toBe(true);
  // The client has ended its side and still gets its answer.
  server.end(back);
  expect((await readAll(client)).equals(back)).toBe(true);
  await done;
  expect(Buffer.concat(seen.client).equals(there)).toBe(true);
  expect(Buffer.concat(seen.server).equals(back)).toBe(true);
  expect(closed).toEqual(["client"]);
});

test("a side that does not read holds the other back", async () => {
  const { client, server, clientSide, seen } = joined();
  for (let index = 0; index < 100; index++) client.write(Buffer.alloc(64 * 1024));
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(clientSide.isPaused()).toBe(true);
  expect(seen.client.length).toBeLessThan(20);
  const drained = new Promise((resolve) => client.once("drain", resolve));
  server.resume();
  await drained;
  client.destroy();
});

test("one side that goes takes the other along, whoever it is", async () => {
  for (const goes of ["client", "server"] as const) {
    const scene = joined(50);
    scene[goes].destroy();
    await scene.done;
    expect(scene.closed).toEqual([goes]);
    expect([scene.clientSide.destroyed, scene.serverSide.destroyed]).toEqual([true, true]);
  }
});

test("a peer that never ends is ended, some time after the other has gone", async () => {
  const { client, clientSide, serverSide, done } = joined(20);
  // Reads nothing and ends nothing.
  serverSide.pause();
  client.end();
  client.resume();
  clientSide.destroy();
  await done;
  expect(serverSide.destroyed).toBe(true);
});
