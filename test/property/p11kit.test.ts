/*
 * What must hold for the p11-kit codec whatever the values: nothing is lost on the way, and nothing a peer sends can do
 * more than be refused.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DecodeError } from "../../src/base/bytes.js";
import { type AnyCall, CALLS } from "../../src/cryptoki/calls.js";
import { encodeFrame } from "../../src/wire/p11kit/frame.js";
import { DEFAULT_LIMITS, Refusal } from "../../src/wire/p11kit/limits.js";
import type { Dialect } from "../../src/wire/p11kit/mechanisms.js";
import { decodeRequest, encodeRequest, initializeArgs } from "../../src/wire/p11kit/requests.js";
import { decodeResponse, encodeResponse } from "../../src/wire/p11kit/responses.js";
import { argsOf, resultOf } from "../support/wire-arbitraries.js";
import { createRecordingCryptoki, serve } from "../support/wire-peers.js";

const DIALECTS: readonly Dialect[] = ["legacy", "new"];
const ROWS = DIALECTS.flatMap((dialect) => CALLS.map((call: AnyCall) => [call.name, dialect, call] as const));
const ANY_REQUEST = fc
  .tuple(fc.constantFrom<AnyCall>(...CALLS), fc.constantFrom(...DIALECTS))
  .chain(([call, dialect]) => argsOf(call, dialect).map((args) => encodeRequest(call, args, { dialect })));

/** A body with some bytes overwritten, cut or added. */
function damaged(body: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  return fc.tuple(body, edits, fc.integer({ min: -8, max: 8 })).map(([bytes, changes, grow]) => {
    const copy = Buffer.alloc(Math.max(0, bytes.length + grow));
    bytes.copy(copy);
    for (const [at, value] of changes) if (copy.length > 0) copy[at % copy.length] = value;
    return copy;
  });
}

describe("the codec", () => {
  it.each(ROWS)("%s in the %s dialect: arguments and results come back as they were", (_name, dialect, call) => {
    const both = argsOf(call, dialect).chain((args) => resultOf(call, args).map((result) => ({ args, result })));
    fc.assert(
      fc.property(both, ({ args, result }) => {
        expect(decodeRequest(encodeRequest(call, args, { dialect }), dialect)).toMatchObject({ kind: "call", call, args, dialect });
        expect(decodeResponse(encodeResponse(call, args, result), call, args, DEFAULT_LIMITS)).toEqual(result);
      }),
      { numRuns: 40 },
    );
  });

  it("understands what a peer of the other dialect writes for a mechanism without a parameter", () => {
    const calls = CALLS.filter((call: AnyCall) => call.request.includes("M"));
    const sample = fc
      .constantFrom<AnyCall>(...calls)
      .chain((call) => fc.constantFrom(...DIALECTS).chain((written) => argsOf(call, written).map((args) => ({ call, written, args }))));
    fc.assert(
      fc.property(sample, ({ call, written, args }) => {
        const plain = { ...args, mechanism: { type: 0x40, parameter: null } };
        const body = encodeRequest(call, plain, { dialect: written });
        expect(decodeRequest(body, written === "new" ? "legacy" : "new")).toMatchObject({ kind: "call", args: plain, dialect: written });
      }),
    );
  });

  it("answers any request body with a call, a refusal or a DecodeError", () => {
    fc.assert(
      fc.property(fc.oneof(damaged(ANY_REQUEST), fc.uint8Array({ maxLength: 80 })), fc.constantFrom(...DIALECTS), (body, dialect) => {
        try {
          decodeRequest(Buffer.from(body), dialect);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(DecodeError);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it("answers any response body with a result, a refusal or a DecodeError", () => {
    const sample = fc
      .constantFrom<AnyCall>(...CALLS)
      .chain((call) =>
        argsOf(call, "new").chain((args) =>
          damaged(resultOf(call, args).map((result) => encodeResponse(call, args, result))).map((body) => ({ call, args, body })),
        ),
      );
    fc.assert(
      fc.property(sample, ({ call, args, body }) => {
        try {
          expect(decodeResponse(body, call, args, DEFAULT_LIMITS).rv).toBeTypeOf("number");
        } catch (thrown) {
          expect(thrown instanceof DecodeError || thrown instanceof Refusal).toBe(true);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

describe("the server", () => {
  /** What a server writes for a stream that comes in pieces of these sizes (repeated). */
  async function conversation(stream: Buffer, sizes: readonly number[]): Promise<{ hex: string; violations: string[] }> {
    const served = serve(createRecordingCryptoki());
    for (let offset = 0, turn = 0; offset < stream.length; turn++) {
      const size = sizes[turn % sizes.length] ?? 1;
      // A copy, because the server may overwrite what it is given.
      served.server.push(Buffer.from(stream.subarray(offset, offset + size)));
      offset += size;
    }
    while (served.server.pendingBytes > 0) await new Promise((resolve) => setImmediate(resolve));
    served.server.end();
    await served.server.idle;
    return { hex: served.hex(), violations: served.violations };
  }

  it("writes the same whether a stream comes byte by byte, in any pieces, or in one lump, damaged frames included", async () => {
    const initialize = encodeRequest(CALLS[0] as AnyCall, initializeArgs(), { dialect: "new" });
    const frames = fc.array(fc.oneof({ weight: 4, arbitrary: ANY_REQUEST }, { weight: 1, arbitrary: damaged(ANY_REQUEST) }), {
      maxLength: 6,
    });
    const streams = fc.tuple(fc.nat(3), frames).map(([version, bodies]) => {
      const all = [initialize, ...bodies].map((body, index) => encodeFrame(0x10 + index, Buffer.from("client"), body));
      return Buffer.concat([Buffer.from([version]), ...all]);
    });
    await fc.assert(
      fc.asyncProperty(streams, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 5 }), async (stream, sizes) => {
        const lump = await conversation(stream, [stream.length]);
        expect(await conversation(stream, [1])).toEqual(lump);
        expect(await conversation(stream, sizes)).toEqual(lump);
      }),
      { numRuns: 60 },
    );
  });

  it("survives any bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (stream) => {
        const { violations } = await conversation(Buffer.from(stream), [7]);
        expect(violations.length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 300 },
    );
  });
});
