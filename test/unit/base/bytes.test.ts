/*
 * The bounds-checked reader and the growing writer.
 */
import { describe, expect, it } from "vitest";
import { createReader, createWriter, DecodeError } from "../../../src/base/bytes.js";

describe("the reader", () => {
  it("reads big-endian numbers and views of the bytes it was given", () => {
    const bytes = Buffer.from("01000000020000000000000003aabb", "hex");
    const reader = createReader(bytes);
    expect([reader.u8("a"), reader.u32("b"), reader.u64("c")]).toEqual([1, 2, 3n]);
    const view = reader.take(2, "d");
    bytes[13] = 0;
    expect(view.toString("hex")).toBe("00bb");
    expect(reader.remaining).toBe(0);
  });

  it.each([
    ["u8", (reader: ReturnType<typeof createReader>) => reader.u8("x")],
    ["u32", (reader: ReturnType<typeof createReader>) => reader.u32("x")],
    ["u64", (reader: ReturnType<typeof createReader>) => reader.u64("x")],
    ["take", (reader: ReturnType<typeof createReader>) => reader.take(0xfffffffe, "x")],
  ])("says what was cut off and where, and does not move: %s", (_name, read) => {
    const reader = createReader(Buffer.alloc(3));
    reader.take(3, "head");
    const error = (() => {
      try {
        read(reader);
      } catch (thrown) {
        return thrown;
      }
      return null;
    })();
    expect(error).toBeInstanceOf(DecodeError);
    expect(error).toMatchObject({ failure: "truncated", offset: 3, message: "truncated: x at byte 3" });
    expect(reader.offset).toBe(3);
  });
});

describe("the writer", () => {
  it("writes what the reader reads, however far it has to grow", () => {
    const writer = createWriter(1);
    writer.u8(0x1ff);
    writer.u32(0xffffffff);
    writer.u64(-1n);
    writer.bytes(Buffer.alloc(1000, 7));
    const bytes = writer.finish();
    expect(bytes.length).toBe(1013);
    expect(bytes.subarray(0, 14).toString("hex")).toBe(`${"ff".repeat(13)}07`);
  });
});
