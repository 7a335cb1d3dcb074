/*
 * What crosses the pipe to the token host comes out as it went in, and bytes that a module has written over are refused.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pack, unpack } from "../../../src/token/host/pack.js";

/** All that messages are made of. */
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom(null, undefined, true, false, -1, 2 ** 31, 0.5, Number.NaN, 0n, 2n ** 64n - 1n, "C_Sign", "rv", ""),
    fc.integer(),
    fc.double(),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.string({ unit: "binary" }),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc.array(tie("value"), { maxLength: 5 }),
    fc.dictionary(
      fc.oneof(
        fc.constantFrom("session", "key", "args"),
        fc.string().filter((key) => key !== "__proto__"),
      ),
      tie("value"),
      { maxKeys: 5, noNullPrototype: true },
    ),
  ),
}));

describe("a packed value", () => {
  it("is what it was, when it is unpacked", () => {
    fc.assert(
      fc.property(value, fc.boolean(), fc.nat(8), (given, secret, before) => {
        expect(unpack(pack(given, before, secret).subarray(before))).toEqual(given);
      }),
      { numRuns: 500 },
    );
  });

  it("is refused when it is cut short, goes on, or holds what cannot be", () => {
    const whole = pack({ kind: "result", id: 7, result: { rv: 0, output: Buffer.alloc(64, 1) } }, 0, false);
    for (let length = 0; length < whole.length; length += 1) expect(() => unpack(whole.subarray(0, length))).toThrow(RangeError);
    expect(() => unpack(Buffer.concat([whole, Buffer.alloc(1)]))).toThrow(RangeError);
    expect(() => unpack(Buffer.from([99]))).toThrow(RangeError);
    // An array of 2^32 - 1 elements, and one that holds itself a thousand times over.
    expect(() => unpack(Buffer.from([10, 255, 255, 255, 255]))).toThrow(RangeError);
    expect(() => unpack(Buffer.from(Array.from({ length: 1000 }, () => [10, 1, 0, 0, 0]).flat()))).toThrow(RangeError);
  });

  it("never makes anything but a value or a RangeError out of any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          unpack(Buffer.from(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("cannot set a prototype", () => {
    const packed = pack(JSON.parse('{"__proto__":{"admin":true}}'), 0, false);
    expect(() => unpack(packed)).toThrow(RangeError);
  });

  it("carries a number that is no CK_ULONG as text, for the driver to refuse", () => {
    expect(unpack(pack([-1n, 2n ** 64n], 0, false))).toEqual(["-1", "18446744073709551616"]);
  });
});
