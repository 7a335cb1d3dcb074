/*
 * How the client comes to a version with servers of every release, and how options are read out of bytes that pass by.
 */
import { describe, expect, it } from "vitest";
import { createP11KitClient, type P11KitClient } from "../../../../src/wire/p11kit/client.js";
import { createFirstOptionsReader } from "../../../../src/wire/p11kit/first-options.js";
import { encodeFrame } from "../../../../src/wire/p11kit/frame.js";
import { negotiateP11Kit, type OpenedClient } from "../../../../src/wire/p11kit/negotiate.js";

interface FakeStream extends OpenedClient {
  readonly offer: number;
  abandoned: boolean;
}

/** Servers by what they do with an offered byte: answer a byte, close, or say nothing. */
function releases(behaviour: (offer: number, client: P11KitClient) => void) {
  const streams: FakeStream[] = [];
  const open = async (offerVersion: 0 | 2): Promise<FakeStream> => {
    const client = createP11KitClient({ offerVersion, write: () => {}, end: () => {} });
    const stream: FakeStream = {
      client,
      offer: offerVersion,
      abandoned: false,
      abandon() {
        stream.abandoned = true;
      },
    };
    streams.push(stream);
    queueMicrotask(() => behaviour(offerVersion, client));
    return stream;
  };
  return { streams, open };
}

const answers = (most: number) => (offer: number, client: P11KitClient) => client.push(Buffer.from([Math.min(offer, most)]));
const negotiate = (open: (offer: 0 | 2) => Promise<FakeStream>, signal = new AbortController().signal, firstByteMs = 5_000) =>
  negotiateP11Kit(open, { firstByteMs, signal });

describe("a server of", () => {
  it.each([
    ["0.24.1", 0],
    ["0.25.0 to 0.25.5", 1],
    ["0.25.6 to 0.26.4", 2],
  ] as const)("%s answers the first offer with %i and is taken on that stream", async (_, version) => {
    const { open, streams } = releases(answers(version));
    expect(await negotiate(open)).toMatchObject({ ok: true, version, opened: streams[0] });
    expect(streams.map(({ offer, abandoned }) => [offer, abandoned])).toEqual([[2, false]]);
  });

  it("0.23 closes at 2, and is asked with 0 on a second stream", async () => {
    const { open, streams } = releases((offer, client) => (offer === 0 ? client.push(Buffer.from([0])) : client.closed()));
    expect(await negotiate(open)).toMatchObject({ ok: true, version: 0, opened: streams[1] });
    expect(streams.map(({ offer, abandoned }) => [offer, abandoned])).toEqual([
      [2, true],
      [0, false],
    ]);
  });
});

describe("what is no server", () => {
  it("closes at both offers, and no third is made", async () => {
    const { open, streams } = releases((_, client) => client.closed());
    expect(await negotiate(open)).toEqual({ ok: false, why: "closed" });
    expect(streams.map(({ abandoned }) => abandoned)).toEqual([true, true]);
  });

  it("answers what is no version, and is not asked again", async () => {
    const { open, streams } = releases((_, client) => client.push(Buffer.from("SSH-2.0")));
    expect(await negotiate(open)).toEqual({ ok: false, why: "foreign" });
    expect(streams.map(({ abandoned }) => abandoned)).toEqual([true]);
  });

  it("says nothing, and is not asked again: it may only be slow", async () => {
    const { open, streams } = releases(() => {});
    expect(await negotiate(open, undefined, 1)).toEqual({ ok: false, why: "silent" });
    expect(streams.map(({ abandoned }) => abandoned)).toEqual([true]);
  });

  it("is waited for no longer than the signal lets, with its reason", async () => {
    const abort = new AbortController();
    const { open, streams } = releases(() => abort.abort(new Error("enough")));
    await expect(negotiate(open, abort.signal)).rejects.toThrow("enough");
    expect(streams.map(({ abandoned }) => abandoned)).toEqual([true]);
  });
});

describe("the options of the first frame", () => {
  const stream = (options: string) =>
    Buffer.concat([Buffer.from([2]), encodeFrame(1, Buffer.from(options), Buffer.from("a body with 1234"))]);

  it.each([1, 5, 1_000])("are found in pieces of %i bytes, once, and nothing of the body is kept", (size) => {
    const seen: string[] = [];
    const reader = createFirstOptionsReader((options) => seen.push(options.toString()));
    const bytes = Buffer.concat([stream("tokenfwd-verify:abc"), encodeFrame(2, Buffer.from("other"), Buffer.alloc(3))]);
    for (let at = 0; at < bytes.length; at += size) reader.push(bytes.subarray(at, at + size));
    expect(seen).toEqual(["tokenfwd-verify:abc"]);
    expect(reader.push(bytes)).toBe(false);
    expect(seen).toHaveLength(1);
  });

  it("are empty where there are none, and passed over where they are long", () => {
    const seen: Buffer[] = [];
    expect(createFirstOptionsReader((options) => seen.push(options)).push(stream(""))).toBe(false);
    expect(seen).toEqual([Buffer.alloc(0)]);
    expect(createFirstOptionsReader((options) => seen.push(options)).push(stream("x".repeat(257)))).toBe(false);
    expect(seen).toHaveLength(1);
    expect(createFirstOptionsReader((options) => seen.push(options)).push(stream("y".repeat(256)))).toBe(false);
    expect(seen[1]?.toString()).toBe("y".repeat(256));
  });

  it("are waited for while the stream has said less", () => {
    const reader = createFirstOptionsReader(() => {
      throw new Error("too soon");
    });
    expect(reader.push(Buffer.alloc(0))).toBe(true);
    expect(reader.push(stream("tokenfwd-verify:abc").subarray(0, 31))).toBe(true);
  });
});
