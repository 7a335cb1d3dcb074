/*
 * The frame decoder: fragmentation, limits before allocation, and wiping.
 */
import { describe, expect, it } from "vitest";
import { createFrameDecoder, encodeFrame, type Frame } from "../../../../src/wire/p11kit/frame.js";

function decoder(limits = { maxFrameBytes: 1000, maxOptionsBytes: 100 }) {
  const frames: Frame[] = [];
  return { frames, decoder: createFrameDecoder({ ...limits, onFrame: (frame) => frames.push(frame) }) };
}

function header(code: number, options: number, body: number): Buffer {
  const bytes = Buffer.alloc(12);
  for (const [index, value] of [code, options, body].entries()) bytes.writeUInt32BE(value, 4 * index);
  return bytes;
}

describe("the frame decoder", () => {
  it("gives the same frames byte by byte and in one lump", () => {
    const stream = Buffer.concat([
      encodeFrame(1, Buffer.from("opt"), Buffer.from("body")),
      encodeFrame(2, Buffer.alloc(0), Buffer.alloc(0)),
    ]);
    const lump = decoder();
    lump.decoder.push(Buffer.from(stream));
    const bytewise = decoder();
    for (const byte of stream) bytewise.decoder.push(Buffer.from([byte]));
    const plain = (frames: Frame[]) => frames.map(({ code, options, body, size }) => ({ code, options, body, size }));
    expect(plain(lump.frames)).toEqual([
      { code: 1, options: Buffer.from("opt"), body: Buffer.from("body"), size: 19 },
      { code: 2, options: Buffer.alloc(0), body: Buffer.alloc(0), size: 12 },
    ]);
    expect(plain(bytewise.frames)).toEqual(plain(lump.frames));
  });

  it("refuses a frame that claims 1.5 GiB without allocating for it", () => {
    const before = process.memoryUsage();
    const { decoder: one, frames } = decoder({ maxFrameBytes: 1 << 20, maxOptionsBytes: 1 << 16 });
    expect(() => one.push(header(1, 0, 0x60000000))).toThrow("limit: frame of 1610612748 bytes");
    const after = process.memoryUsage();
    expect(after.arrayBuffers + after.external - before.arrayBuffers - before.external).toBeLessThan(1 << 20);
    expect(frames).toEqual([]);
  });

  it("refuses too many options, and a frame that is too long only with them", () => {
    expect(() => decoder().decoder.push(header(1, 101, 0))).toThrow("limit: options of 101 bytes");
    expect(() => decoder().decoder.push(header(1, 100, 889))).toThrow("limit: frame of 1001 bytes");
    expect(() => decoder().decoder.push(header(1, 100, 888))).not.toThrow();
    expect(() => decoder().decoder.push(header(1, 0xffffffff, 0xffffffff))).toThrow("limit");
  });

  it("delivers the frames before the one over the limit", () => {
    const { decoder: one, frames } = decoder();
    expect(() => one.push(Buffer.concat([encodeFrame(7, Buffer.alloc(0), Buffer.from("x")), header(8, 0, 5000)]))).toThrow("limit");
    expect(frames.map(({ code }) => code)).toEqual([7]);
  });

  it("overwrites a wiped frame and the chunks it came in", () => {
    const stream = encodeFrame(1, Buffer.from("opt"), Buffer.from("a secret"));
    const chunks = [Buffer.from(stream.subarray(0, 17)), Buffer.from(stream.subarray(17))];
    const { decoder: one, frames } = decoder();
    for (const chunk of chunks) one.push(chunk);
    frames[0]?.wipe();
    expect(frames[0]?.body.toString("hex")).toBe("00".repeat(8));
    expect(Buffer.concat(chunks).subarray(12).toString("hex")).toBe("00".repeat(11));
  });

  it("takes 4 MiB in pieces of 1,000 bytes in well under a second", () => {
    const body = Buffer.alloc(4 << 20, 1);
    const stream = encodeFrame(1, Buffer.alloc(0), body);
    const { decoder: one, frames } = decoder({ maxFrameBytes: 5 << 20, maxOptionsBytes: 0 });
    const started = performance.now();
    for (let offset = 0; offset < stream.length; offset += 1000) one.push(stream.subarray(offset, offset + 1000));
    expect(performance.now() - started).toBeLessThan(1000);
    expect(frames[0]?.body.equals(body)).toBe(true);
  });
});
