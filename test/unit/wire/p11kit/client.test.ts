/*
 * The p11-kit client, answered by hand and by our own server.
 */
import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { CallContext, Cryptoki } from "../../../../src/cryptoki/types.js";
import { createP11KitClient } from "../../../../src/wire/p11kit/client.js";
import { encodeFrame } from "../../../../src/wire/p11kit/frame.js";
import { initializeArgs } from "../../../../src/wire/p11kit/requests.js";
import { encodeError } from "../../../../src/wire/p11kit/responses.js";
import { createP11KitServer } from "../../../../src/wire/p11kit/server.js";
import { createRecordingCryptoki, TEST_ORIGIN } from "../../../support/wire-peers.js";

const context = (signal = new AbortController().signal): CallContext => ({ client: "test", origin: TEST_ORIGIN, signal });

/** A client whose bytes are kept, to be answered by hand. */
function byHand(options: { offerVersion?: 0 | 1 | 2; maxFrameBytes?: number } = {}) {
  const written: Buffer[] = [];
  let ended = 0;
  const client = createP11KitClient({ ...options, write: (bytes) => written.push(bytes), end: () => ended++ });
  return { client, written, ends: () => ended };
}

/** A client and a server joined back to back. */
function joined(cryptoki: Cryptoki, offerVersion: 0 | 1 | 2 = 2) {
  const toServer: Buffer[] = [];
  const client = createP11KitClient({ offerVersion, write: (bytes) => toServer.push(bytes), end: () => server.end() });
  const server = createP11KitServer({ cryptoki, client: "c", origin: TEST_ORIGIN, write: (bytes) => client.push(bytes) });
  for (const bytes of toServer.splice(0)) server.push(bytes);
  toServer.push = (...chunks) => {
    for (const chunk of chunks) server.push(chunk);
    return 0;
  };
  return client;
}

describe("the client", () => {
  it.each([0, 1, 2] as const)("offers %i, and speaks to our server in the dialect of the answer", async (version) => {
    const cryptoki = createRecordingCryptoki({ C_Sign: () => ({ rv: 0, output: Buffer.from("sig") }) });
    const client = joined(cryptoki, version);
    expect(await client.negotiated).toBe(version);
    expect(await client.call("C_Initialize", initializeArgs(), context())).toEqual({ rv: 0 });
    const mechanism = { type: 0x40, parameter: null };
    await client.call("C_SignInit", { session: 1n, mechanism, key: 2n }, context());
    const signed = await client.call("C_Sign", { session: 1n, data: null, room: 512 }, context());
    expect(signed).toEqual({ rv: 0, output: Buffer.from("sig") });
    expect(cryptoki.calls[1]).toMatchObject({ name: "C_SignInit", args: { session: 1n, mechanism, key: 2n } });
    expect(cryptoki.calls[2]?.args).toEqual({ session: 1n, data: null, room: 512 });
  });

  it("leaves nothing of a PIN behind once the bytes were written, however long it is", async () => {
    let forget = (): void => {};
    const memory = new Set<ArrayBufferLike>();
    const client = createP11KitClient({
      write(bytes, written) {
        memory.add(bytes.buffer);
        if (written !== undefined) forget = written;
      },
      end: () => {},
    });
    client.push(Buffer.from([2]));
    for (const length of [8, 500]) {
      const pin = Buffer.from(new ArrayBuffer(length)).fill("PIN-");
      void client.call("C_Login", { session: 1n, userType: 1n, pin }, context());
      const left = () => [...memory].some((each) => Buffer.from(each).includes("PIN-PIN-"));
      expect(left()).toBe(true);
      forget();
      expect(left()).toBe(false);
    }
    client.closed();
  });

  it("sends nothing but the version byte before it is answered, then all that waited, in order", async () => {
    const { client, written } = byHand();
    const calls = [client.call("C_Finalize", {}, context()), client.call("C_GetInfo", {}, context())];
    expect(Buffer.concat(written).toString("hex")).toBe("02");
    client.push(Buffer.from([2]));
    expect(written.slice(1).map((bytes) => bytes.readUInt32BE(18))).toEqual([2, 3]);
    client.closed();
    expect(await Promise.all(calls)).toEqual([{ rv: CKR.CKR_DEVICE_REMOVED }, { rv: CKR.CKR_DEVICE_REMOVED }]);
  });

  it("matches answers by call code in any order", async () => {
    const { client } = byHand();
    client.push(Buffer.from([2]));
    const first = client.call("C_Logout", { session: 1n }, context());
    const second = client.call("C_Logout", { session: 2n }, context());
    client.push(encodeFrame(0x11, Buffer.from("options"), encodeError(0x101)));
    expect(await second).toEqual({ rv: 0x101 });
    expect(client.lastReplyOptions?.toString()).toBe("options");
    client.push(encodeFrame(0x10, Buffer.alloc(0), Buffer.from("0000001300000000", "hex")));
    expect(await first).toEqual({ rv: 0 });
  });

  it("writes NULL as 01 ffffffff, and never a buffer of no bytes to a version 0 server", () => {
    const { client, written } = byHand();
    client.push(Buffer.from([0]));
    void client.call("C_Sign", { session: 1n, data: null, room: 0 }, context());
    expect(written[1]?.subarray(-9).toString("hex")).toBe("01ffffffff00000000");
    const modern = byHand();
    modern.client.push(Buffer.from([1]));
    void modern.client.call("C_Sign", { session: 1n, data: null, room: 0 }, context());
    expect(modern.written[1]?.subarray(-9).toString("hex")).toBe("01ffffffffffffffff");
  });

  it("answers CKR_DEVICE_ERROR for an answer that does not fit, and lives", async () => {
    const { client, ends } = byHand();
    client.push(Buffer.from([2]));
    for (const [index, body] of ["", "0000001300000000", "0000001400000000", "0000000000000001750000000000000000"].entries()) {
      const call = client.call("C_GetInfo", {}, context());
      client.push(encodeFrame(0x10 + index, Buffer.alloc(0), Buffer.from(body, "hex")));
      expect(await call).toEqual({ rv: CKR.CKR_DEVICE_ERROR });
    }
    expect(ends()).toBe(0);
  });

  it("ends the stream at an answer to no call and at one over the limit", async () => {
    const stranger = byHand();
    stranger.client.push(Buffer.from([2]));
    const call = stranger.client.call("C_GetInfo", {}, context());
    stranger.client.push(encodeFrame(0x99, Buffer.alloc(0), encodeError(5)));
    expect(await call).toEqual({ rv: CKR.CKR_DEVICE_REMOVED });
    expect(stranger.ends()).toBe(1);

    const huge = byHand({ maxFrameBytes: 100 });
    huge.client.push(Buffer.from([2]));
    huge.client.push(encodeFrame(0x10, Buffer.alloc(0), Buffer.alloc(89)).subarray(0, 12));
    expect(huge.ends()).toBe(1);
  });

  it("stops waiting when the signal is aborted, and drops the late answer", async () => {
    const { client, ends } = byHand();
    client.push(Buffer.from([2]));
    const abort = new AbortController();
    const call = client.call("C_GetInfo", {}, context(abort.signal));
    abort.abort();
    expect(await call).toEqual({ rv: CKR.CKR_FUNCTION_CANCELED });
    client.push(encodeFrame(0x10, Buffer.alloc(0), encodeError(5)));
    expect(ends()).toBe(0);
  });

  it("puts one listener on a signal that many calls are under, and none once it has gone", async () => {
    const { client } = byHand();
    client.push(Buffer.from([2]));
    const { signal } = new AbortController();
    const calls = Array.from({ length: 64 }, () => client.call("C_GetInfo", {}, context(signal)));
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    client.closed();
    expect(new Set((await Promise.all(calls)).map(({ rv }) => rv))).toEqual(new Set([CKR.CKR_DEVICE_REMOVED]));
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
  });

  it("sends nothing for a call that was given up before the version was known", async () => {
    const { client, written } = byHand();
    const abort = new AbortController();
    const call = client.call("C_GetInfo", {}, context(abort.signal));
    abort.abort();
    expect(await call).toEqual({ rv: CKR.CKR_FUNCTION_CANCELED });
    client.push(Buffer.from([2]));
    expect(written.length).toBe(1);
  });

  it("takes a stock server's length of 0 for an empty result, and any other length for too small a buffer", async () => {
    const { client } = byHand();
    client.push(Buffer.from([2]));
    for (const [index, [length, result]] of [
      ["00000000", { rv: 0, output: Buffer.alloc(0) }],
      ["00000009", { rv: CKR.CKR_BUFFER_TOO_SMALL, output: 9 }],
    ].entries()) {
      const call = client.call("C_DecryptFinal", { session: 1n, room: 4 }, context());
      client.push(encodeFrame(0x10 + index, Buffer.alloc(0), Buffer.from(`0000002400000002617900${length}`, "hex")));
      expect(await call).toEqual(result);
    }
  });

  it("rejects `negotiated` when the stream goes first, and answers later calls", async () => {
    const { client } = byHand();
    const call = client.call("C_GetInfo", {}, context());
    client.closed(new Error("gone"));
    await expect(client.negotiated).rejects.toThrow("gone");
    expect(await call).toEqual({ rv: CKR.CKR_DEVICE_REMOVED });
    expect(await client.call("C_GetInfo", {}, context())).toEqual({ rv: CKR.CKR_DEVICE_REMOVED });
  });

  it("refuses a mechanism parameter that the wire cannot carry without sending anything", async () => {
    const { client, written } = byHand();
    client.push(Buffer.from([2]));
    const mechanism = { type: 0x1085, parameter: { kind: "bytes", bytes: Buffer.alloc(7) } } as const;
    expect(await client.call("C_EncryptInit", { session: 1n, mechanism, key: 1n }, context())).toEqual({ rv: 0x71 });
    expect(written.length).toBe(1);
  });
});
