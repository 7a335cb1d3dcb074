/*
 * The fuzzer of both wires: streams of real conversations, damaged, and streams of chance, given to our servers and
 * clients in one lump, byte by byte and in pieces. Whatever comes, they end in order: nothing is thrown but what is
 * declared, nothing stays behind, nothing hangs. One seed gives one run, so that a failure can be had again.
 */
import { setMaxListeners } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { CallArgs, CallContext } from "../../src/cryptoki/types.js";
import { createP11KitClient } from "../../src/wire/p11kit/client.js";
import { createFrameDecoder } from "../../src/wire/p11kit/frame.js";
import { DEFAULT_LIMITS } from "../../src/wire/p11kit/limits.js";
import { dialectOfVersion } from "../../src/wire/p11kit/mechanisms.js";
import { type DecodedRequest, decodeRequest } from "../../src/wire/p11kit/requests.js";
import { createRpcClient } from "../../src/wire/rpc/client.js";
import { encodeFrame } from "../../src/wire/rpc/codec.js";
import { MAGIC } from "../../src/wire/rpc/messages.js";
import { serveRpc, signRequest } from "../support/rpc-peers.js";
import { createRecordingCryptoki, serve, TEST_ORIGIN } from "../support/wire-peers.js";

const VECTORS = join(import.meta.dirname, "../../protocol/vectors");
/** What one side may write for one stream: no answer is longer than what was asked for. */
const MAX_WRITTEN_BYTES = 4 * 1024 * 1024;
/** Turns of the event loop after which a conversation hangs. */
const MAX_TURNS = 5_000;
/** What a run may leave on the heap, in bytes; a leak of one small frame per stream is far above it. */
const MAX_GROWTH_BYTES = 24 * 1024 * 1024;
/** Streams before the heap is measured: caches fill and code is compiled. */
const WARM_UP_STREAMS = 300;

type Chance = () => number;

/** Numbers from 0 to 2^32-1 from one seed (mulberry32). */
function chanceOf(seed: number): Chance {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** One decoder under test: the streams it knows, and how to give it one. Resolves when all is quiet; throws what is wrong. */
export interface FuzzTarget {
  readonly name: string;
  readonly streams: readonly Buffer[];
  feed(pieces: readonly Buffer[], stream: number): Promise<void>;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

async function until(quiet: () => boolean): Promise<void> {
  for (let turns = 0; !quiet(); turns++) {
    if (turns > MAX_TURNS) throw new Error("the conversation hangs");
    await turn();
  }
}

function checkWritten(written: readonly Buffer[]): void {
  const bytes = written.reduce((sum, { length }) => sum + length, 0);
  if (bytes > MAX_WRITTEN_BYTES) throw new Error(`${bytes} bytes were written for one stream`);
}

const readJson = <T>(path: string): T => JSON.parse(readFileSync(join(VECTORS, path), "utf8")) as T;

/** Our RPC server: conversations of all good requests, and every vector of a failure. */
export function rpcServerTarget(): FuzzTarget {
  const hello = encodeFrame({ type: "hello", id: 1, versions: [1] });
  const requests = readJson<readonly { hex: string }[]>("rpc/requests.json").map(({ hex }) => Buffer.from(hex, "hex"));
  const failures = readJson<readonly { hex: string }[]>("rpc/failures.json").map(({ hex }) => Buffer.from(hex, "hex"));
  const streams = [
    Buffer.concat([MAGIC, hello, ...requests.slice(2)]),
    ...requests.map((request) => Buffer.concat([MAGIC, hello, request])),
    ...failures.filter(({ length }) => length < 10_000),
  ];
  return {
    name: "the tokenfwd RPC server",
    streams,
    async feed(pieces) {
      const served = serveRpc();
      for (const piece of pieces) served.server.push(piece);
      await until(() => served.server.inFlight === 0);
      served.server.end();
      await served.server.idle;
      if (served.server.pendingBytes !== 0) throw new Error("bytes are still pending");
      if (served.violations.length > 1) throw new Error("more than one violation");
      checkWritten(served.writes);
    },
  };
}

/** Our RPC client, which has asked for a signature, a status, a call and events. */
export function rpcClientTarget(): FuzzTarget {
  const hello = encodeFrame({ type: "result", id: 1, version: 1, agent: "a", snapshot: null });
  const asId = (hex: string, id: number) => Buffer.from(hex.replace("a2696407", `a269640${id}`), "hex");
  const answers = readJson<readonly { hex: string; answers?: string }[]>("rpc/answers.json");
  const ids: Readonly<Record<string, number>> = { hello: 1, sign: 2, status: 3, call: 4, subscribe: 5, ping: 5 };
  const frames = answers.map(({ hex, answers: type }) => ({ type, bytes: asId(hex, ids[type ?? "hello"] ?? 1) }));
  const streams = [
    ...frames.map(({ type, bytes }) => Buffer.concat(type === "hello" ? [MAGIC, bytes] : [MAGIC, hello, bytes])),
    ...readJson<readonly { hex: string }[]>("rpc/agents.json").map(({ hex }) => Buffer.from(hex, "hex")),
  ];
  return {
    name: "the tokenfwd RPC client",
    streams,
    async feed(pieces) {
      const written: Buffer[] = [];
      const client = createRpcClient({ write: (bytes) => written.push(bytes), end: () => {} });
      const query = [{ type: 0x102, room: 4 }];
      const asked = [
        client.ready,
        client.request("sign", signRequest()),
        client.request("status", {}),
        client.request("call", { name: "C_GetAttributeValue", args: { session: 1n, object: 1n, query } }),
        client.request("subscribe", { events: ["touch"] }),
      ];
      const settled = Promise.allSettled(asked);
      for (const piece of pieces) client.push(piece);
      client.closed();
      await settled;
      // What waits for the end of this turn would otherwise wait for the end of the run.
      await turn();
      if (client.inFlight !== 0) throw new Error("requests are still in flight");
      checkWritten(written);
    },
  };
}

interface Conversation {
  readonly frames: readonly { readonly dir: "request" | "response"; readonly hex: string }[];
}

function conversations(): readonly Conversation[] {
  return readdirSync(join(VECTORS, "p11kit"))
    .filter((file) => /^\d\d-.*\.json$/.test(file))
    .map((file) => readJson<Conversation>(`p11kit/${file}`));
}

function streamOf({ frames }: Conversation, direction: "request" | "response"): Buffer {
  return Buffer.concat(frames.filter(({ dir }) => dir === direction).map(({ hex }) => Buffer.from(hex, "hex")));
}

/** Our p11-kit server: what stock clients have sent to stock servers. */
export function p11kitServerTarget(): FuzzTarget {
  return {
    name: "the p11-kit server",
    streams: conversations().map((one) => streamOf(one, "request")),
    async feed(pieces) {
      const served = serve(createRecordingCryptoki());
      for (const piece of pieces) served.server.push(piece);
      await until(() => served.server.pendingBytes === 0);
      served.server.end();
      await served.server.idle;
      if (served.violations.length > 1) throw new Error("more than one violation");
      checkWritten(served.written);
    },
  };
}

/** Our p11-kit client, which has made the calls of a stock client's conversation and hears what stock servers have answered. */
export function p11kitClientTarget(): FuzzTarget {
  const all = conversations();
  const calls = all.map((one) => callsOf(streamOf(one, "request")));
  const { signal } = new AbortController();
  // A conversation has more calls than Node thinks a signal has listeners.
  setMaxListeners(0, signal);
  const context: CallContext = { client: "fuzz", origin: TEST_ORIGIN, signal };
  return {
    name: "the p11-kit client",
    streams: all.map((one) => streamOf(one, "response")),
    async feed(pieces, stream) {
      const written: Buffer[] = [];
      const client = createP11KitClient({ write: (bytes) => written.push(bytes), end: () => {} });
      const asked = (calls[stream] ?? []).map((request) => client.call(request.call.name, request.args as CallArgs, context));
      const settled = Promise.allSettled(asked);
      for (const piece of pieces) client.push(piece);
      client.closed();
      await settled;
      // What waits for the end of this turn would otherwise wait for the end of the run.
      await turn();
      checkWritten(written);
    },
  };
}

type MadeCall = Extract<DecodedRequest, { kind: "call" }>;

function callsOf(stream: Buffer): readonly MadeCall[] {
  const made: MadeCall[] = [];
  const dialect = dialectOfVersion(stream[0] ?? 0);
  createFrameDecoder({
    ...DEFAULT_LIMITS,
    onFrame({ body }) {
      const request = decodeRequest(body, dialect);
      if (request.kind === "call") made.push(request);
    },
  }).push(Buffer.from(stream.subarray(1)));
  return made;
}

/** Numbers that lengths and counts go wrong at. */
const TELLING = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x10000, 0xfffff, 0x100000, 0x7fffffff, 0x80000000, 0xffffffff];

function damaged(stream: Buffer, other: Buffer, chance: Chance): Buffer {
  let bytes = Buffer.from(stream);
  for (let edits = 1 + (chance() % 4); edits > 0; edits--) {
    const at = bytes.length === 0 ? 0 : chance() % bytes.length;
    switch (chance() % 8) {
      case 0:
        if (bytes.length > 0) bytes[at] = chance() & 0xff;
        break;
      case 1:
        if (bytes.length > 0) bytes[at] = (bytes[at] ?? 0) ^ (1 << (chance() & 7));
        break;
      case 2:
        if (bytes.length - at >= 4) bytes.writeUInt32BE(TELLING[chance() % TELLING.length] ?? 0, at);
        break;
      case 3:
        bytes = bytes.subarray(0, at);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + (chance() % 16))]);
        break;
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, at), randomBytes(chance() % 16, chance), bytes.subarray(at)]);
        break;
      case 6:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - (chance() % 64)))]);
        break;
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(chance() % (other.length + 1))]);
    }
  }
  return bytes;
}

function randomBytes(length: number, chance: Chance): Buffer {
  return Buffer.from(Array.from({ length }, () => chance() & 0xff));
}

function piecesOf(stream: Buffer, chance: Chance): readonly Buffer[] {
  const way = chance() % 3;
  if (way === 0) return [Buffer.from(stream)];
  const pieces: Buffer[] = [];
  for (let at = 0; at < stream.length; ) {
    const size = way === 1 ? 1 : 1 + (chance() % 300);
    // Copies, because servers may overwrite what they are given.
    pieces.push(Buffer.from(stream.subarray(at, at + size)));
    at += size;
  }
  return pieces;
}

function usedBytes(): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

export interface FuzzRun {
  readonly streams: number;
  readonly grownBytes: number;
}

/**
 * Feeds a target for `ms` milliseconds, and at least with a damaged form of each of its streams. Throws with the seed, the
 * number of the stream and its bytes when anything is wrong.
 */
export async function fuzz(target: FuzzTarget, seed: number, ms: number): Promise<FuzzRun> {
  const chance = chanceOf(seed);
  const end = performance.now() + ms;
  let before = 0;
  let streams = 0;
  for (; streams < WARM_UP_STREAMS + target.streams.length || performance.now() < end; streams++) {
    if (streams === WARM_UP_STREAMS) before = usedBytes();
    const index = streams < target.streams.length ? streams : chance() % target.streams.length;
    const known = target.streams[index] ?? Buffer.alloc(0);
    const other = target.streams[chance() % target.streams.length] ?? known;
    const bytes = chance() % 10 === 0 ? randomBytes(chance() % 400, chance) : damaged(known, other, chance);
    const random = chance() % 20 === 0 ? Buffer.concat([MAGIC, randomBytes(chance() % 400, chance)]) : bytes;
    try {
      await target.feed(piecesOf(random, chance), index);
    } catch (thrown) {
      throw new Error(`${target.name}: seed ${seed}, stream ${streams}, ${random.toString("hex")}`, { cause: thrown });
    }
  }
  const grownBytes = usedBytes() - before;
  if (grownBytes > MAX_GROWTH_BYTES) throw new Error(`${target.name}: ${grownBytes} bytes more after ${streams} streams (seed ${seed})`);
  return { streams, grownBytes };
}
