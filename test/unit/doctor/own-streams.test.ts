/*
 * Whose streams doctor serves while the token is unlocked for it.
 */
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { createOwnStreams } from "../../../src/doctor/way/own-streams.js";

function scene() {
  const attached: PassThrough[] = [];
  const own = createOwnStreams();
  const service = own.guard({
    attach(stream) {
      attached.push(stream as PassThrough);
      return { onFirstFrameOptions() {} };
    },
    expectedSlots: async () => [],
  });
  const come = () => {
    const stream = new PassThrough();
    service.attach(stream);
    return stream;
  };
  return { attached, own, come };
}

describe("doctor's service on a bastion", () => {
  it("closes a stream that nobody of doctor's has opened", async () => {
    const { attached, own, come } = scene();
    expect(come().destroyed).toBe(true);
    await own.expecting(1, async () => {});
    expect(come().destroyed).toBe(true);
    expect(attached).toEqual([]);
  });

  it("lets as many through as are expected, in whatever order the two ends open", async () => {
    const { attached, own, come } = scene();
    await own.expecting(1, async () => {
      const waiting = own.arrived(60_000);
      const first = come();
      expect([await waiting, first.destroyed, come().destroyed]).toEqual([true, false, true]);
      expect(await own.arrived(0)).toBe(true);
    });
    await own.expecting(1, async () => expect(await own.arrived(0)).toBe(false));
    expect(attached.length).toBe(1);
  });

  it("keeps none of those that came for the proof", async () => {
    const { own, come } = scene();
    const streams = await own.expecting(5, async () => [come(), come()]);
    own.drop();
    expect(streams.map(({ destroyed }) => destroyed)).toEqual([true, true]);
  });
});
