/*
 * The frame decoder of tokenfwd RPC: any fragmentation, no copy where none is needed, limits before memory.
 */
import { describe, expect, it } from "vitest";
import { DecodeError } from "../../../../src/base/bytes.js";
import { createFrameDecoder, type Frame } from "../../../../src/wire/rpc/frame.js";

function frameOf(body: string): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(body.length);
  return Buffer.concat([header, Buffer.from(body)]);
}

const STREAM = Buffer.concat(["a", "bc", "d".repeat(300)].map(frameOf));

describe("the decoder", () => {
  it.each([1, 2, 3, 5, 7, 100, 10_000])("gives the same frames from pieces of %i bytes", (size) => {
    const frames: Frame[] = [];
    const decode = createFrameDecoder({ maxFrameBytes: 1000, onFrame: (frame) => frames.push(frame) });
    for (let at = 0; at < STREAM.length; at += size) decode.push(Buffer.from(STREAM.subarray(at, at + size)));
    expect(frames.map(({ body }) => body.toString())).toEqual(["a", "bc", "d".repeat(300)]);
    expect(frames.map((frame) => frame.size)).toEqual([5, 6, 304]);
  });

  it("copies nothing of a frame that lies within its chunk", () => {
    const frames: Frame[] = [];
    createFrameDecoder({ maxFrameBytes: 1000, onFrame: (frame) => frames.push(frame) }).push(STREAM);
    for (const { body } of frames) expect(body.buffer).toBe(STREAM.buffer);
  });

  it.each([1, 3, 64])("wipes a frame and the pieces of %i bytes that it came in, and nothing else", (size) => {
    const stream = Buffer.concat([frameOf("before"), frameOf("secret-4711"), frameOf("behind")]);
    const pieces: Buffer[] = [];
    for (let at = 0; at < stream.length; at += size) pieces.push(Buffer.from(stream.subarray(at, at + size)));
    const frames: Frame[] = [];
    const decode = createFrameDecoder({ maxFrameBytes: 1000, onFrame: (frame) => frames.push(frame) });
    for (const piece of pieces) decode.push(piece);
    frames[1]?.wipe();
    const left = Buffer.concat(pieces).toString("latin1");
    expect(left).toContain("before");
    expect(left).toContain("behind");
    expect(left).not.toMatch(/secret|4711/);
    expect(frames[1]?.body).toEqual(Buffer.alloc(11));
  });

  it("refuses a frame over the limit at its header, before it has memory for it, and after the frames before it", () => {
    const frames: Frame[] = [];
    const decode = createFrameDecoder({ maxFrameBytes: 10, onFrame: (frame) => frames.push(frame) });
    const bytes = Buffer.concat([frameOf("fine"), Buffer.from("ffffffff", "hex")]);
    const before = process.memoryUsage().arrayBuffers;
    expect(() => decode.push(bytes)).toThrow(DecodeError);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024);
    expect(frames.length).toBe(1);
  });

  it.each([10, 11])("takes a frame of the limit and refuses one byte more (%i)", (length) => {
    const decode = createFrameDecoder({ maxFrameBytes: 10, onFrame: () => {} });
    const push = () => decode.push(frameOf("x".repeat(length)));
    if (length > 10) expect(push).toThrow("limit");
    else expect(push).not.toThrow();
  });
});
