/*
 * The parts of the token host that need no process: framing, the PIN store, what answers say about tokens.
 */
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { secretBytes } from "../../../src/base/secret.js";
import { CKF } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import { createFaultCounter } from "../../../src/token/host/deadlines.js";
import { createFrameDecoder, decodeBody, encodeFrame } from "../../../src/token/host/frames.js";
import { createPinStore } from "../../../src/token/host/pin-store.js";
import { findPinentry } from "../../../src/token/host/pinentry.js";
import { createPresence } from "../../../src/token/host/presence.js";

describe("host frames", () => {
  const messages = [{ id: 1, big: 2n ** 63n, bytes: randomBytes(300) }, { id: 2 }, { nothing: null, list: [1n, Buffer.alloc(0)] }];

  it.each([1, 3, 7, 4096])("survive being cut into pieces of %i bytes", (size) => {
    const stream = Buffer.concat(messages.map((message) => encodeFrame(message)));
    const decoder = createFrameDecoder();
    const got: unknown[] = [];
    for (let at = 0; at < stream.length; at += size) {
      for (const body of decoder.push(Buffer.from(stream.subarray(at, at + size)))) got.push(decodeBody(body));
    }
    expect(got).toEqual(messages);
  });

  it.each([9, 4096])("in pieces of %i bytes leave a PIN nowhere once their taker has wiped the body", (size) => {
    const stream = encodeFrame({ pin: Buffer.from("hunter2") }, true);
    const pieces: Buffer[] = [];
    for (let at = 0; at < stream.length; at += size) pieces.push(Buffer.from(stream.subarray(at, at + size)));
    const decoder = createFrameDecoder();
    const [body = Buffer.alloc(0)] = pieces.flatMap((piece) => decoder.push(piece));
    const { pin } = decodeBody<{ pin: Buffer }>(body);
    expect(pin.toString()).toBe("hunter2");
    body.fill(0);
    expect(pin).toEqual(Buffer.alloc(7));
    expect(Buffer.concat(pieces).subarray(4)).toEqual(Buffer.alloc(stream.length - 4));
  });

  it.each([0, 0x7fffffff])("of %i bytes are refused before anything is allocated", (length) => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(length);
    expect(() => createFrameDecoder().push(header)).toThrow(RangeError);
  });
});

describe("the PIN store", () => {
  const card = { slot: 1n, identity: "serial-a" };
  const other = { slot: 1n, identity: "serial-b" };
  const pin = () => secretBytes(Buffer.from("1234"));

  it("gives a PIN back to the token that accepted it, and wipes it when another is in the slot", () => {
    const store = createPinStore();
    const kept = pin();
    store.keep(card, kept);
    expect(store.accepted(card)).toBe(kept);
    expect(store.accepted(other)).toBeNull();
    expect(kept.disposed).toBe(true);
    expect(store.accepted(card)).toBeNull();
  });

  it("wipes on demand, on replacement and at the end, but not when the same PIN is kept again", () => {
    const store = createPinStore();
    const [first, second] = [pin(), pin()];
    store.keep(card, first);
    store.keep(card, first);
    expect(first.disposed).toBe(false);
    store.keep(card, second);
    expect(first.disposed).toBe(true);
    store.dispose();
    expect([second.disposed, store.size]).toEqual([true, 0]);
  });

  it("remembers the refused PIN of each token and no other, until one is accepted", () => {
    const store = createPinStore();
    store.refuse(card, Buffer.from("0000"));
    expect(store.wasRefused(card, Buffer.from("0000"))).toBe(true);
    expect(store.wasRefused(card, Buffer.from("1234"))).toBe(false);
    expect(store.wasRefused(other, Buffer.from("0000"))).toBe(false);
    store.keep(card, pin());
    expect(store.wasRefused(card, Buffer.from("0000"))).toBe(false);
  });
});

describe("presence", () => {
  function watch() {
    const told: string[] = [];
    const presence = createPresence({ tell: (name, slot) => void told.push(`${name} ${slot}`), look: () => ({ rv: 0 }) });
    const list = (...slots: bigint[]) => presence.observe("C_GetSlotList", { tokenPresent: 1, room: 9 }, { rv: CKR.CKR_OK, slots });
    return { told, presence, list };
  }

  it("is told from slot lists, the first of which is no news", () => {
    const { told, list } = watch();
    list(1n, 2n);
    list(2n, 3n);
    list(2n, 3n);
    expect(told).toEqual(["token-gone 1", "token-in 3"]);
  });

  it("is told from the CK_RV of a call that names a slot or a session of it", () => {
    const { told, presence, list } = watch();
    list(1n);
    presence.observe("C_OpenSession", { slot: 1n, flags: 4n }, { rv: CKR.CKR_OK, session: 7n });
    presence.observe("C_Sign", { session: 7n }, { rv: CKR.CKR_DEVICE_REMOVED });
    presence.observe("C_Sign", { session: 7n }, { rv: CKR.CKR_DEVICE_REMOVED });
    expect(told).toEqual(["token-gone 1"]);
  });

  it("is told from the flags of a slot, which may be all that anybody asks for while the token is out", () => {
    const { told, presence, list } = watch();
    list(1n);
    presence.observe("C_GetSlotInfo", { slot: 1n }, { rv: CKR.CKR_OK, flags: CKF.CKF_TOKEN_PRESENT } as { rv: number });
    expect(told).toEqual([]);
    presence.observe("C_GetSlotInfo", { slot: 1n }, { rv: CKR.CKR_OK, flags: 0n } as { rv: number });
    presence.observe("C_GetSlotInfo", { slot: 1n }, { rv: CKR.CKR_OK, flags: 0n } as { rv: number });
    expect({ told, isMissing: presence.isMissing }).toEqual({ told: ["token-gone 1"], isMissing: true });
  });

  it("is looked for where fewer are counted than there were", () => {
    const told: string[] = [];
    const look = (slot: bigint) => ({ rv: slot === 1n ? CKR.CKR_TOKEN_NOT_PRESENT : CKR.CKR_OK });
    const presence = createPresence({ tell: (name, slot) => void told.push(`${name} ${slot}`), look });
    presence.observe("C_GetSlotList", { tokenPresent: 1, room: 9 }, { rv: CKR.CKR_OK, slots: [1n, 2n] } as { rv: number });
    presence.observe("C_GetSlotList", { tokenPresent: 1, room: null }, { rv: CKR.CKR_OK, slots: 2 } as { rv: number });
    expect(told).toEqual([]);
    presence.observe("C_GetSlotList", { tokenPresent: 1, room: null }, { rv: CKR.CKR_OK, slots: 1 } as { rv: number });
    expect(told).toEqual(["token-gone 1"]);
  });

  it("is not told from lists of slots without tokens, lengths, or failed calls", () => {
    const { told, presence, list } = watch();
    list(1n);
    presence.observe("C_GetSlotList", { tokenPresent: 0, room: 9 }, { rv: CKR.CKR_OK, slots: [] });
    presence.observe("C_GetSlotList", { tokenPresent: 1, room: null }, { rv: CKR.CKR_OK, slots: 0 });
    presence.observe("C_GetSlotList", { tokenPresent: 1, room: 9 }, { rv: CKR.CKR_GENERAL_ERROR });
    expect(told).toEqual([]);
  });
});

describe("pinentry", () => {
  it("on PATH needs a place to appear; a named one does not", () => {
    expect(findPinentry(null, { PATH: "/usr/bin:/bin" })).toBeNull();
    expect(findPinentry("sh", { PATH: "/nowhere:/bin" })).toBe("/bin/sh");
    expect(findPinentry("/bin/sh", {})).toBe("/bin/sh");
    expect(findPinentry("/nowhere/pinentry", { DISPLAY: ":0" })).toBeNull();
  });
});

describe("faults", () => {
  it("make each wait longer, the third within half a minute a rest, and are forgotten after that", () => {
    const faults = createFaultCounter();
    expect([0, 10_000, 20_000].map((now) => faults.note(now))).toEqual([
      { resting: false, waitMs: 100 },
      { resting: false, waitMs: 200 },
      { resting: true, waitMs: 5000 },
    ]);
    expect(faults.note(60_000)).toEqual({ resting: false, waitMs: 100 });
  });
});
