/*
 * What must hold for tokenfwd RPC whatever the values: nothing is lost on the way, fields and messages that nobody knows
 * change nothing, and the pieces in which a stream arrives make no difference.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type AnyCall, CALLS } from "../../src/cryptoki/calls.js";
import type { AnyArgs, AnyResult } from "../../src/cryptoki/types.js";
import { decodeArgs, decodeOutcome, encodeArgs, encodeOutcome } from "../../src/wire/rpc/call-values.js";
import { decodeBody, encodeFrame, type Fields, HEADER_BYTES, integer } from "../../src/wire/rpc/codec.js";
import { DEFAULT_RPC_LIMITS, MAGIC, RPC_EVENTS, type SignMessage } from "../../src/wire/rpc/messages.js";
import { decodeRequest, encodeRequest } from "../../src/wire/rpc/requests.js";
import { decodeEvent, encodeEvent } from "../../src/wire/rpc/results.js";
import { scanMessage } from "../../src/wire/rpc/scan.js";
import { connectRpc, serveRpc, signRequest } from "../support/rpc-peers.js";
import { argsOf, mechanism, resultOf } from "../support/wire-arbitraries.js";

/** A message through the bytes and back, as a peer sees it. */
function over(message: Fields): Fields {
  const body = encodeFrame(message).subarray(HEADER_BYTES);
  scanMessage(body, DEFAULT_RPC_LIMITS);
  return decodeBody(body);
}

const bytes = fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array));
const orNull = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null });
const u32 = fc.nat(0xffffffff);
/** Anything that the protocol can carry. */
const anything: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    u32,
    fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }).map(integer),
    fc.boolean(),
    fc.constant(null),
    fc.string({ maxLength: 30 }),
    bytes,
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.string({ maxLength: 8 }), tie("value"), { maxKeys: 4 }),
  ),
})).value;
const strangers = fc.dictionary(
  fc.string({ maxLength: 8 }).map((name) => `x-${name}`),
  anything,
  { maxKeys: 4 },
);
const signMessage: fc.Arbitrary<SignMessage> = fc.record({
  key: fc.oneof(
    fc.record({ uri: fc.constantFrom("pkcs11:id=%01", "pkcs11:token=a;object=b"), spki: fc.constant(null) }),
    fc.record({ uri: fc.constant(null), spki: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((array) => Buffer.from(array)) }),
  ),
  mechanism: orNull(u32),
  parameter: mechanism("new").map(({ parameter }) => parameter),
  data: bytes,
  isDigest: fc.boolean(),
  purpose: fc.stringMatching(/^[a-z][a-z0-9-]{0,31}$/),
  expect: orNull(bytes),
});

describe("the codec", () => {
  it.each(CALLS.map((call: AnyCall) => [call.name, call] as const))("%s: arguments and results come back as they were", (name, call) => {
    const both = argsOf(call, "new").chain((args) => resultOf(call, args).map((result) => ({ args, result })));
    fc.assert(
      fc.property(both, ({ args, result }) => {
        expect(decodeArgs(name, over({ args: encodeArgs(name, args) })["args"])).toEqual(args);
        const { rv, ...outs } = result as AnyResult;
        const outcome = decodeOutcome(name, args, over(encodeOutcome(name, args, { rv, outs: outs as AnyArgs })));
        expect({ rv: outcome.rv, ...outcome.outs }).toEqual(result);
      }),
      { numRuns: 20 },
    );
  });

  it("carries every request to sign, with fields that nobody knows among its own", () => {
    fc.assert(
      fc.property(signMessage, strangers, (request, more) => {
        expect(decodeRequest("sign", over({ ...more, ...encodeRequest("sign", request) }))).toEqual(request);
      }),
    );
  });

  it("carries every event", () => {
    const events = fc.record({ event: fc.constantFrom(...RPC_EVENTS), slot: orNull(fc.bigInt({ min: 0n, max: 0xffffffffffffffffn })) });
    fc.assert(
      fc.property(events, strangers, (event, more) => {
        expect(decodeEvent(over({ ...more, ...encodeEvent(event) }))).toEqual(event);
      }),
    );
  });

  it("passes whatever it writes itself", () => {
    fc.assert(fc.property(fc.dictionary(fc.string({ maxLength: 40 }), anything, { maxKeys: 30 }), (message) => void over(message)));
  });
});

describe("a conversation", () => {
  const OPENING = [encodeFrame({ type: "hello", id: 1, versions: [1] })];
  const message = fc.oneof(
    { weight: 4, arbitrary: signMessage.map((request) => ({ type: "sign", ...encodeRequest("sign", request) })) },
    { weight: 2, arbitrary: fc.constant<Fields>({ type: "ping" }) },
    { weight: 1, arbitrary: strangers.map((fields) => ({ ...fields, type: "tomorrow" })) },
    { weight: 1, arbitrary: strangers.map((fields) => ({ ...fields, type: "sign" })) },
  );

  async function conversation(stream: Buffer, sizes: readonly number[]): Promise<unknown> {
    const served = serveRpc();
    for (let offset = 0, at = 0; offset < stream.length; at++) {
      const size = sizes[at % sizes.length] ?? 1;
      // A copy, because the server may overwrite what it is given.
      served.server.push(Buffer.from(stream.subarray(offset, offset + size)));
      offset += size;
    }
    await served.settled();
    served.server.end();
    await served.server.idle;
    // Answers come in any order, and one that was running when the connection ended may have none.
    const answers = served.messages().map((one) => JSON.stringify(one));
    return { answers: served.violations.length > 0 ? [answers.at(-1)] : answers.sort(), violations: served.violations };
  }

  it("is the same whether it comes byte by byte, in any pieces, or in one lump, broken messages included", async () => {
    const streams = fc
      .array(message, { maxLength: 6 })
      .map((messages) => Buffer.concat([MAGIC, ...OPENING, ...messages.map((one, index) => encodeFrame({ ...one, id: 2 + index }))]));
    await fc.assert(
      fc.asyncProperty(streams, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 5 }), async (stream, sizes) => {
        const lump = await conversation(stream, [stream.length]);
        expect(await conversation(stream, [1])).toEqual(lump);
        expect(await conversation(stream, sizes)).toEqual(lump);
      }),
      { numRuns: 30 },
    );
  });

  it("goes on over unknown messages and fields from both sides", async () => {
    const pair = connectRpc();
    await pair.client.ready;
    await fc.assert(
      fc.asyncProperty(strangers, fc.string({ maxLength: 12 }), bytes, async (fields, name, data) => {
        pair.server.push(encodeFrame({ ...fields, type: `x-${name}` }));
        pair.client.push(encodeFrame({ ...fields, type: `x-${name}` }));
        pair.client.push(encodeFrame({ ...fields, type: "event", event: `x-${name}` }));
        const { signature } = await pair.client.request("sign", signRequest({ data }));
        expect(signature).toEqual(Buffer.from(data).reverse());
      }),
      { numRuns: 100 },
    );
    expect(pair.violations).toEqual([]);
    await pair.client.close();
  });
});
