/*
 * A server that means harm: the client answers its caller, keeps its memory, and ends the stream where nothing can be understood any more.
 */
import { describe, expect, it } from "vitest";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { CallContext } from "../../../../src/cryptoki/types.js";
import { createP11KitClient } from "../../../../src/wire/p11kit/client.js";
import { encodeFrame } from "../../../../src/wire/p11kit/frame.js";
import { TEST_ORIGIN } from "../../../support/wire-peers.js";

const ctx: CallContext = { client: "test", origin: TEST_ORIGIN, signal: new AbortController().signal };
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};
const u64 = (value: number): Buffer => Buffer.concat([u32(0), u32(value)]);
/** An answer's body: call id, signature, and what follows. */
const body = (id: number, signature: string, ...rest: readonly Buffer[]): Buffer =>
  Buffer.concat([u32(id), u32(signature.length), Buffer.from(signature), ...rest]);

function connected() {
  let ends = 0;
  const client = createP11KitClient({ write: () => {}, end: () => ends++ });
  client.push(Buffer.from([2]));
  return { client, ends: () => ends };
}

const find = (client: ReturnType<typeof connected>["client"]) => client.call("C_FindObjects", { session: 1n, room: 2 }, ctx);
const read = (client: ReturnType<typeof connected>["client"]) =>
  client.call("C_GetAttributeValue", { session: 1n, object: 2n, query: [{ type: 3, room: 8 }] }, ctx);

describe("an answer", () => {
  it("with more objects than were asked for gives the caller none of them", async () => {
    const { client, ends } = connected();
    const call = find(client);
    const many = Array.from({ length: 6 }, (_, index) => u64(index));
    client.push(encodeFrame(0x10, Buffer.alloc(0), body(27, "au", Buffer.from([1]), u32(6), ...many)));
    const answer = await call;
    expect(answer.rv).not.toBe(CKR.CKR_OK);
    expect(Array.isArray(answer.objects)).toBe(false);
    expect(ends()).toBe(0);
  });

  it("that announces four thousand million elements is refused by what it holds, at once", async () => {
    const { client, ends } = connected();
    const call = find(client);
    client.push(encodeFrame(0x10, Buffer.alloc(0), body(27, "au", Buffer.from([1]), u32(0xffffffff), u64(1))));
    expect(await call).toEqual({ rv: CKR.CKR_DEVICE_ERROR });
    expect(ends()).toBe(0);
  });

  it.each([
    [
      "more attributes than a call may have",
      Buffer.concat([u32(2_000), ...Array.from({ length: 2_000 }, () => Buffer.concat([u32(3), Buffer.from([0])]))]),
    ],
    [
      "templates in templates without end",
      Buffer.concat(Array.from({ length: 5_000 }, () => Buffer.concat([u32(1), u32(0x40000211), Buffer.from([1]), u32(24)]))),
    ],
  ])("with %s costs this call and no other", async (_, attributes) => {
    const { client, ends } = connected();
    const call = read(client);
    client.push(encodeFrame(0x10, Buffer.alloc(0), body(24, "aAu", attributes, u64(0))));
    expect((await call).rv).not.toBe(CKR.CKR_OK);
    const next = client.call("C_Logout", { session: 1n }, ctx);
    client.push(encodeFrame(0x11, Buffer.alloc(0), body(19, "")));
    expect(await next).toEqual({ rv: CKR.CKR_OK });
    expect(ends()).toBe(0);
  });

  it("given twice ends the stream: nobody waits for the second", async () => {
    const { client, ends } = connected();
    const call = client.call("C_Logout", { session: 1n }, ctx);
    const frame = encodeFrame(0x10, Buffer.alloc(0), body(19, ""));
    client.push(Buffer.concat([frame, frame]));
    expect(await call).toEqual({ rv: CKR.CKR_OK });
    expect(ends()).toBe(1);
    expect(await client.call("C_Logout", { session: 1n }, ctx)).toEqual({ rv: CKR.CKR_DEVICE_REMOVED });
  });
});

describe("a frame", () => {
  it.each([
    ["a body of 2 GiB", [0x10, 0, 0x7fffffff]],
    ["options of 64 KiB and one byte", [0x10, 65_537, 8]],
    ["lengths whose sum wraps around", [0x10, 0xffffffff, 0xffffffff]],
  ])("with %s ends the stream before anything is kept for it", async (_, [code = 0, options = 0, length = 0]) => {
    const { client, ends } = connected();
    const calls = [find(client), read(client)];
    const before = process.memoryUsage().arrayBuffers;
    client.push(Buffer.concat([u32(code), u32(options), u32(length)]));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024);
    expect((await Promise.all(calls)).map(({ rv }) => rv)).toEqual([CKR.CKR_DEVICE_REMOVED, CKR.CKR_DEVICE_REMOVED]);
    expect(ends()).toBe(1);
    // What still comes is not looked at.
    client.push(Buffer.alloc(100_000, 0xff));
    expect(ends()).toBe(1);
  });
});
