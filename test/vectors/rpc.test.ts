/*
 * The vectors of tokenfwd RPC: every message is understood and written again byte for byte, and every stream that breaks
 * the protocol meets what its vector says, whether it comes whole, byte by byte or in one lump.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { CallName } from "../../src/cryptoki/calls.js";
import { decodeArgs } from "../../src/wire/rpc/call-values.js";
import { createRpcClient } from "../../src/wire/rpc/client.js";
import { decodeBody, encodeFrame, type Fields, integer } from "../../src/wire/rpc/codec.js";
import { createFrameDecoder, type Frame } from "../../src/wire/rpc/frame.js";
import { DEFAULT_RPC_LIMITS, MAGIC, RpcError, type RpcRequestType } from "../../src/wire/rpc/messages.js";
import { decodeRequest, encodeRequest, isRequestType } from "../../src/wire/rpc/requests.js";
import { decodeError, decodeEvent, decodeResult, encodeError, encodeEvent, encodeResult } from "../../src/wire/rpc/results.js";
import { scanMessage } from "../../src/wire/rpc/scan.js";
import { serveRpc, signRequest } from "../support/rpc-peers.js";

interface Vector {
  readonly name: string;
  readonly hex: string;
  readonly expect: unknown;
  readonly canonical?: boolean;
  readonly answers?: RpcRequestType;
  readonly call?: CallName;
  readonly args?: unknown;
  readonly why?: string;
  readonly ends?: boolean;
}

const read = (file: string): readonly (readonly [string, Vector])[] => {
  const list = JSON.parse(readFileSync(join(import.meta.dirname, "../../protocol/vectors/rpc", file), "utf8")) as readonly Vector[];
  return list.map((vector) => [vector.name, vector] as const);
};

/** A JSON value with its byte strings and large numbers. */
function revive(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(revive);
  if (typeof value !== "object" || value === null) return value;
  const fields = value as Fields;
  const keys = Object.keys(fields).join();
  if (keys === "bytes" && typeof fields["bytes"] === "string") return Buffer.from(fields["bytes"], "hex");
  if (keys === "number" && typeof fields["number"] === "string") return BigInt(fields["number"]);
  return Object.fromEntries(Object.entries(fields).map(([name, one]) => [name, revive(one)]));
}

/** Numbers as one type, because a decoder gives a number where it can. */
function alike(value: unknown): unknown {
  if (typeof value === "number") return BigInt(value);
  if (Buffer.isBuffer(value)) return value.toString("hex");
  if (Array.isArray(value)) return value.map(alike);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, alike(one)]));
}

function messageOf(hex: string): Fields {
  const frames: Frame[] = [];
  createFrameDecoder({ ...DEFAULT_RPC_LIMITS, onFrame: (frame) => frames.push(frame) }).push(Buffer.from(hex, "hex"));
  const [frame] = frames;
  if (frame === undefined || frames.length !== 1) throw new Error(`${frames.length} frames where one was expected`);
  scanMessage(frame.body, DEFAULT_RPC_LIMITS);
  return decodeBody(frame.body);
}

/** The ways in which a stream may arrive. */
const PIECES: readonly (readonly [string, (stream: Buffer) => readonly Buffer[]])[] = [
  ["in one lump", (stream) => [stream]],
  ["byte by byte", (stream) => [...stream].map((byte) => Buffer.from([byte]))],
  [
    "frame by frame",
    (stream) => {
      const parts = [stream.subarray(0, MAGIC.length)];
      for (let at = MAGIC.length; at < stream.length; ) {
        const end = at + 4 + (at + 4 <= stream.length ? stream.readUInt32BE(at) : 0);
        parts.push(stream.subarray(at, end));
        at = end;
      }
      return parts.map((part) => Buffer.from(part));
    },
  ],
];

describe("messages of a client", () => {
  it.each(read("requests.json"))("%s", (_name, { hex, expect: wanted, canonical }) => {
    const message = messageOf(hex);
    expect(alike(message)).toEqual(alike(revive(wanted)));
    const { type, id, deadlineMs } = message;
    if (typeof type !== "string" || typeof id !== "number") throw new Error("no message");
    if (!isRequestType(type)) {
      expect(type).toBe("cancel");
      return;
    }
    const head = deadlineMs === undefined ? { type, id } : { type, id, deadlineMs };
    const again = encodeFrame({ ...head, ...encodeRequest(type, decodeRequest(type, message) as never) }).toString("hex");
    if (canonical === false) expect(again).not.toBe(hex);
    else expect(again).toBe(hex);
  });
});

describe("messages of an agent", () => {
  it.each(read("answers.json"))("%s", (_name, { hex, expect: wanted, answers, call, args }) => {
    const message = messageOf(hex);
    expect(alike(message)).toEqual(alike(revive(wanted)));
    const { type } = message;
    let fields: Fields;
    if (type === "event") {
      const event = decodeEvent(message);
      if (event === null) throw new Error("an event that is not known");
      fields = encodeEvent(event);
    } else if (type === "error") fields = encodeError(message["id"] as number, decodeError(message));
    else {
      if (answers === undefined) throw new Error("an answer to nothing");
      const request = call === undefined ? {} : { name: call, args: decodeArgs(call, normal(revive(args))) };
      fields = { id: message["id"], ...encodeResult(answers, decodeResult(answers, message, request as never) as never, request as never) };
    }
    expect(encodeFrame({ type, ...fields }).toString("hex")).toBe(hex);
  });

  /** Numbers as a decoder gives them. */
  function normal(value: unknown): unknown {
    if (typeof value === "bigint") return integer(value);
    return value;
  }
});

describe.each(PIECES)("streams of a client that come %s", (_way, pieces) => {
  it.each(read("failures.json"))("%s", async (_name, { hex, expect: wanted, why, ends }) => {
    const served = serveRpc();
    for (const piece of pieces(Buffer.from(hex, "hex"))) served.server.push(piece);
    await served.settled();
    // The answer to hello may come before or after, or not at all when the connection ends.
    const last = served
      .messages()
      .filter(({ type, id }) => type !== "result" || id !== 1)
      .at(-1);
    expect(served.violations.length).toBe(ends ? 1 : 0);
    if (wanted === "nothing" || wanted === "magic") {
      expect(last).toBeUndefined();
      expect(served.wroteMagic()).toBe(wanted === "magic" || !ends);
      if (ends) expect(served.violations[0]).toContain(why);
    } else if (wanted === "pong") expect(last).toMatchObject({ type: "result", id: 7 });
    else if (typeof wanted === "string" && wanted.startsWith("rv:"))
      expect(last).toMatchObject({ type: "result", id: 7, rv: Number(wanted.slice(3)) });
    else {
      expect(last).toMatchObject({ type: "error", code: wanted });
      expect(last?.["id"]).toBe(wanted === "protocol" ? null : wanted === "version" ? 1 : 7);
      if (why !== undefined) expect(last?.["message"]).toContain(why);
      if (ends) expect(served.violations[0]).toBe(last?.["message"]);
    }
    expect(served.seen.filter((type) => type !== "hello" && type !== "subscribe")).toEqual([]);
    served.server.end();
    await served.server.idle;
  });
});

describe.each(PIECES)("streams of an agent that come %s", (_way, pieces) => {
  it.each(read("agents.json"))("%s", async (_name, { hex, expect: wanted }) => {
    let ended = 0;
    const client = createRpcClient({ write: () => {}, end: () => ended++, snapshot: false });
    const codeOf = (thrown: unknown) => (thrown instanceof RpcError ? thrown.code : String(thrown));
    const hello = client.ready.then(() => "ok", codeOf);
    const sign = client.request("sign", signRequest()).then(() => "ok", codeOf);
    for (const piece of pieces(Buffer.from(hex, "hex"))) client.push(piece);
    const what = String(wanted);
    const [request, code] = what.split(":");
    if (what === "not-ours") {
      expect(await client.isTokenfwd).toBe(false);
      expect([await hello, await sign, ended]).toEqual(["internal", "internal", 1]);
      return;
    }
    expect(await client.isTokenfwd).toBe(true);
    expect(await hello).toBe(code === "version" ? "version" : "ok");
    if (request === "sign" || request === "ends") expect(await sign).toBe(code);
    if (what === "signed") expect(await sign).toBe("ok");
    expect(ended).toBe(request === "ends" ? 1 : 0);
    await client.close();
    await sign;
  });
});
