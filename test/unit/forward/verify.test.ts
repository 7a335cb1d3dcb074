/* What counts as proof that a socket leads to this agent, on streams in memory. */
import { Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import { answersVersionByte, createNonceWatch, verifyStream } from "../../../src/forward/verify.js";
import { createFakeP11Server } from "../../support/fake-p11-server.js";

/** Two ends of one stream in memory. */
function pair(): [Duplex, Duplex] {
  const ends: Duplex[] = [];
  for (const other of [1, 0]) {
    ends.push(
      new Duplex({
        read() {},
        write(chunk, _encoding, done) {
          ends[other]?.push(chunk);
          done();
        },
        final(done) {
          ends[other]?.push(null);
          done();
        },
      }),
    );
  }
  return ends as [Duplex, Duplex];
}

describe("verification", () => {
  it("passes when the nonce arrives on our own stream and the slots are ours, and measures the way", async () => {
    const [near, far] = pair();
    const watch = createNonceWatch();
    createFakeP11Server({ slots: [1n, 2n] })
      .attach(far)
      .onFirstFrameOptions((options) => watch.seen(options));
    const result = await verifyStream(near, watch, [1n, 2n]);
    expect(result).toMatchObject({ passed: true });
    expect(near.destroyed).toBe(true);
  });

  it("passes for an agent without a slot", async () => {
    const [near, far] = pair();
    const watch = createNonceWatch();
    createFakeP11Server({ slots: [] })
      .attach(far)
      .onFirstFrameOptions((options) => watch.seen(options));
    expect(await verifyStream(near, watch, [])).toMatchObject({ passed: true });
  });

  it("fails as foreign when somebody else answers, even with the same slots", async () => {
    const [near, far] = pair();
    createFakeP11Server({ slots: [1n] }).attach(far);
    expect(await verifyStream(near, createNonceWatch(), [1n])).toMatchObject({ passed: false, foreign: true, answered: true });
  });

  it("fails without blame when nobody answers", async () => {
    const [near, far] = pair();
    far.on("data", () => far.end());
    expect(await verifyStream(near, createNonceWatch(), [1n])).toMatchObject({ passed: false, foreign: false, answered: false });
  });

  it("fails when the slots differ in number or order", async () => {
    for (const slots of [[1n], [2n, 1n], [1n, 2n, 3n]]) {
      const [near, far] = pair();
      const watch = createNonceWatch();
      createFakeP11Server({ slots })
        .attach(far)
        .onFirstFrameOptions((options) => watch.seen(options));
      expect(await verifyStream(near, watch, [1n, 2n])).toMatchObject({ passed: false, foreign: false });
    }
  });

  it("takes a nonce once it was sent, never one that was made up", () => {
    const watch = createNonceWatch();
    const sent = watch.expect();
    expect(sent.options.toString()).toMatch(/^tokenfwd-verify:[0-9a-f]{32}$/);
    watch.seen(Buffer.from(`tokenfwd-verify:${"0".repeat(32)}`));
    watch.seen(Buffer.from("client"));
    expect(sent.arrived()).toBe(false);
    watch.seen(sent.options);
    expect(sent.arrived()).toBe(true);
    expect(watch.expect().arrived()).toBe(false);
  });
});

describe("the version byte", () => {
  it("is answered, or not within the time, or the stream ends", async () => {
    const [near, far] = pair();
    far.on("data", () => far.write(Buffer.from([0])));
    expect(await answersVersionByte(near)).toBe("answers");
    const [silent, listener] = pair();
    listener.resume();
    expect(await answersVersionByte(silent, 30)).toBe("silent");
    const [ended, closer] = pair();
    closer.on("data", () => closer.end());
    expect(await answersVersionByte(ended)).toBe("silent");
  });
});
