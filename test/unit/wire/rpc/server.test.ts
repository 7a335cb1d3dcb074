/*
 * The tokenfwd RPC server: order, cancel, deadline, back-pressure, what it writes at once and what it wipes.
 */
import { describe, expect, it, vi } from "vitest";
import { encodeFrame, type Fields } from "../../../../src/wire/rpc/codec.js";
import { MAGIC, RpcError } from "../../../../src/wire/rpc/messages.js";
import { encodeRequest } from "../../../../src/wire/rpc/requests.js";
import type { RpcOperation } from "../../../../src/wire/rpc/server.js";
import { serveRpc, signRequest } from "../../../support/rpc-peers.js";

const HELLO = { type: "hello", id: 1, versions: [1] };
const OPENING = Buffer.concat([MAGIC, encodeFrame(HELLO)]);
const sign = (id: number, more: Fields = {}) => encodeFrame({ type: "sign", id, ...encodeRequest("sign", signRequest()), ...more });
const turn = () => new Promise((resolve) => setImmediate(resolve));
const SIGNED = { signature: Buffer.from("s"), mechanism: 0x40, uri: "pkcs11:", spki: null };

/** Handlers whose signatures wait for the test. */
function held() {
  const operations: RpcOperation[] = [];
  const release: (() => void)[] = [];
  return {
    operations,
    release,
    sign: async (_request: unknown, op: RpcOperation) => {
      operations.push(op);
      await new Promise<void>((resolve) => release.push(resolve));
      return SIGNED;
    },
  };
}

describe("what is written, and when", () => {
  it("answers the magic before any handler has run", () => {
    const served = serveRpc();
    served.server.push(Buffer.from(MAGIC));
    expect(Buffer.concat(served.writes)).toEqual(MAGIC);
    expect(served.seen).toEqual([]);
  });

  it("writes a single answer in the turn in which it became ready", async () => {
    const served = serveRpc();
    served.server.push(Buffer.from(OPENING));
    await turn();
    const before = served.writes.length;
    let wrote = 0;
    served.server.push(encodeFrame({ type: "ping", id: 2 }));
    // Before anything that the loop has next.
    setImmediate(() => {
      wrote = served.writes.length - before;
    });
    await turn();
    expect(wrote).toBe(1);
  });

  it("writes answers that become ready in one turn in one piece", async () => {
    const served = serveRpc();
    served.server.push(Buffer.from(OPENING));
    await turn();
    const before = served.writes.length;
    served.server.push(Buffer.concat(Array.from({ length: 20 }, (_, index) => sign(10 + index))));
    await served.settled();
    expect(served.writes.length - before).toBe(1);
    expect(served.messages().length).toBe(21);
  });

  it("answers in the order in which requests become ready", async () => {
    const hold = held();
    const served = serveRpc({ sign: hold.sign });
    served.server.push(Buffer.concat([OPENING, sign(2), sign(3), sign(4)]));
    await turn();
    for (const index of [2, 0, 1]) {
      hold.release[index]?.();
      await turn();
    }
    expect(served.messages().map(({ id }) => id)).toEqual([1, 4, 2, 3]);
  });

  it("carries out what came in the flight of a hello whose snapshot takes long, without waiting for it", async () => {
    let release = () => {};
    const hello = () =>
      new Promise<{ agent: string; snapshot: null }>((resolve) => (release = () => resolve({ agent: "a", snapshot: null })));
    const served = serveRpc({ hello });
    served.server.push(Buffer.concat([OPENING, sign(2)]));
    await turn();
    expect(served.messages().map(({ id }) => id)).toEqual([2]);
    release();
    await served.settled();
    expect(served.messages().map(({ id }) => id)).toEqual([2, 1]);
  });

  it("carries out nothing of a flight whose versions are not ours", async () => {
    const served = serveRpc();
    served.server.push(Buffer.concat([MAGIC, encodeFrame({ ...HELLO, versions: [9] }), sign(2)]));
    await served.settled();
    expect(served.seen).toEqual([]);
    expect(served.messages()).toMatchObject([{ type: "error", id: 1, code: "version" }]);
  });

  it("leaves the snapshot out where it would not fit into a frame", async () => {
    const key = {
      label: Buffer.alloc(0),
      id: Buffer.alloc(900),
      type: "RSA",
      bits: 1,
      curve: null,
      spki: null,
      certificate: null,
    } as const;
    const token = { slot: 1n, uri: "u", label: "", manufacturer: "", model: "", serial: "", flags: 0n, mechanisms: [] };
    const snapshot = (keys: number) => ({
      epoch: 1,
      tokens: [{ ...token, keys: Array.from({ length: keys }, () => ({ ...key, uri: "u", mechanisms: [1] })) }],
    });
    for (const [keys, fits] of [
      [500, true],
      [2000, false],
    ] as const) {
      const served = serveRpc({ hello: async () => ({ agent: "a", snapshot: snapshot(keys) }) });
      served.server.push(Buffer.from(OPENING));
      await served.settled();
      expect(served.messages()[0]?.["snapshot"] !== null).toBe(fits);
    }
  });

  it("says nothing of an error that is not meant for the wire", async () => {
    const served = serveRpc({ sign: async () => Promise.reject(new Error("/home/someone/secret")) });
    served.server.push(Buffer.concat([OPENING, sign(2)]));
    await served.settled();
    expect(served.messages().at(-1)).toEqual({ type: "error", id: 2, code: "internal", message: "internal error" });
  });

  it("makes control characters of an error's texts visible", async () => {
    const error = new RpcError("cryptoki", "a\u001b[31m", { rv: 5, call: "C\n", hint: "h\u202e" });
    const served = serveRpc({ sign: async () => Promise.reject(error) });
    served.server.push(Buffer.concat([OPENING, sign(2)]));
    await served.settled();
    expect(served.messages().at(-1)).toMatchObject({ message: "a\\x1b[31m", call: "C\\x0a", hint: "h\\u{202e}", rv: 5 });
  });

  it.each([
    ["keys to choose from", "pkcs11:token=work;id=%01;object=a%20key;type=private  ".repeat(30), 1_000],
    ["nothing but escapes", "\u202e".repeat(5_000), 100],
    ["long characters", "\u{1f511}".repeat(5_000), 100],
  ])("gives a hint of %s what room a text has, and no more", async (_what, hint, least) => {
    const served = serveRpc({ sign: async () => Promise.reject(new RpcError("key-ambiguous", "several", { hint })) });
    served.server.push(Buffer.concat([OPENING, sign(2)]));
    await served.settled();
    const bytes = Buffer.byteLength(String(served.messages().at(-1)?.["hint"]));
    expect(bytes).toBeGreaterThan(least);
    expect(bytes).toBeLessThanOrEqual(4096);
  });
});

describe("taking back", () => {
  it("answers `cancelled` at once, aborts the signal, drops the result and frees the id", async () => {
    const hold = held();
    const served = serveRpc({ sign: hold.sign });
    served.server.push(Buffer.concat([OPENING, sign(2)]));
    await turn();
    const { signal } = hold.operations[0] as RpcOperation;
    served.server.push(encodeFrame({ type: "cancel", id: 2 }));
    expect(signal.aborted).toBe(true);
    await turn();
    expect(served.messages().at(-1)).toMatchObject({ type: "error", id: 2, code: "cancelled" });
    expect(served.server.inFlight).toBe(1);
    served.server.push(sign(2));
    await turn();
    for (const go of hold.release) go();
    await served.settled();
    expect(served.messages().map(({ type, id }) => `${type} ${id}`)).toEqual(["result 1", "error 2", "result 2"]);
  });

  it("hands a signal on to the next request when its handler has ended, never before, and never one that was aborted", async () => {
    const signals: AbortSignal[] = [];
    const release: (() => void)[] = [];
    const served = serveRpc({
      sign: async (_request, op) => {
        signals.push(op.signal);
        await new Promise<void>((resolve) => release.push(resolve));
        return SIGNED;
      },
    });
    served.server.push(Buffer.concat([OPENING, sign(2), sign(3)]));
    await turn();
    // Taken back, and its handler goes on.
    served.server.push(encodeFrame({ type: "cancel", id: 2 }));
    served.server.push(sign(4));
    await turn();
    expect(new Set(signals).size).toBe(3);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, false, false]);
    for (const go of release.splice(0)) go();
    await served.settled();
    served.server.push(Buffer.concat([sign(5), sign(6), sign(7)]));
    await turn();
    expect(new Set(signals.slice(1)).size).toBe(3);
    expect(signals.slice(3).every(({ aborted }) => !aborted)).toBe(true);
    served.server.push(encodeFrame({ type: "cancel", id: 6 }));
    expect(signals.slice(3).map(({ aborted }) => aborted)).toEqual([false, true, false]);
    for (const go of release.splice(0)) go();
    await served.settled();
    expect(served.messages().flatMap(({ type, id }) => (type === "error" ? [id] : []))).toEqual([2, 6]);
  });

  it("gives a handler that asks for its signal too late an aborted one", async () => {
    let op: RpcOperation | null = null;
    let go = () => {};
    const served = serveRpc({
      sign: async (_request, operation) => {
        op = operation;
        await new Promise<void>((resolve) => (go = resolve));
        return SIGNED;
      },
    });
    served.server.push(Buffer.concat([OPENING, sign(2), encodeFrame({ type: "cancel", id: 2 })]));
    expect((op as RpcOperation | null)?.signal.aborted).toBe(true);
    go();
    await served.settled();
  });

  it("answers `deadline` when the time is over, and aborts the signal", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const hold = held();
      const served = serveRpc({ sign: hold.sign });
      served.server.push(Buffer.concat([OPENING, sign(2, { deadlineMs: 5000 })]));
      await turn();
      const op = hold.operations[0] as RpcOperation;
      expect(op.deadlineMs).toBe(5000);
      vi.advanceTimersByTime(4999);
      expect(op.signal.aborted).toBe(false);
      vi.advanceTimersByTime(1);
      expect(op.signal.aborted).toBe(true);
      await turn();
      expect(served.messages().at(-1)).toMatchObject({ type: "error", id: 2, code: "deadline" });
      hold.release[0]?.();
      await served.settled();
      expect(served.messages().length).toBe(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("leaves no timer behind a request that was answered in time", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const served = serveRpc();
      served.server.push(Buffer.concat([OPENING, sign(2, { deadlineMs: 5000 })]));
      await served.settled();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it("aborts everything when the stream ends, writes nothing more, and is idle when the last handler has ended", async () => {
    const hold = held();
    const served = serveRpc({ sign: hold.sign });
    served.server.push(Buffer.concat([OPENING, sign(2), sign(3)]));
    await turn();
    const before = served.writes.length;
    let idle = false;
    const waiting = served.server.idle.then(() => (idle = true));
    served.server.end();
    expect(hold.operations.every(({ signal }) => signal.aborted)).toBe(true);
    hold.release[0]?.();
    await turn();
    expect(idle).toBe(false);
    hold.release[1]?.();
    await waiting;
    expect(served.writes.length).toBe(before);
    expect(served.server.pendingBytes).toBe(0);
  });
});

describe("limits", () => {
  it("answers `busy` beyond its limit, counting cancelled requests whose handlers still run", async () => {
    const hold = held();
    const served = serveRpc({ sign: hold.sign }, { limits: { maxInFlight: 2 } });
    served.server.push(Buffer.from(OPENING));
    await turn();
    served.server.push(Buffer.concat([sign(2), sign(3), encodeFrame({ type: "cancel", id: 2 }), sign(4)]));
    await turn();
    expect(served.messages().at(-1)).toMatchObject({ id: 4, code: "busy" });
    hold.release[0]?.();
    await turn();
    served.server.push(sign(5));
    await turn();
    for (const go of hold.release) go();
    await served.settled();
    expect(served.messages().map(({ type, id }) => `${type} ${id}`)).toEqual(["result 1", "error 2", "error 4", "result 3", "result 5"]);
  });

  it("refuses an id that is in use", async () => {
    const hold = held();
    const served = serveRpc({ sign: hold.sign });
    served.server.push(Buffer.concat([OPENING, sign(2), sign(2)]));
    await turn();
    expect(served.violations).toEqual(["an id that is in use"]);
    for (const go of hold.release) go();
    await served.server.idle;
  });

  it("takes up nothing while the stream is full, and everything in order when it has drained", async () => {
    let drain: (() => void) | null = null;
    let full: Promise<void> | null = null;
    const served = serveRpc({}, { full: () => full });
    served.server.push(Buffer.from(OPENING));
    await turn();
    full = new Promise((resolve) => (drain = resolve));
    const frames = [sign(2), sign(3), encodeFrame({ type: "ping", id: 4 })];
    const bytes = frames.reduce((sum, { length }) => sum + length, 0);
    let drained = 0;
    served.server.onDrain = () => drained++;
    served.server.push(Buffer.concat(frames));
    await turn();
    expect(served.seen).toEqual(["hello"]);
    expect(served.server.pendingBytes).toBeGreaterThanOrEqual(bytes);
    full = null;
    (drain as unknown as () => void)();
    await served.settled();
    expect(served.seen).toEqual(["hello", "sign", "sign"]);
    expect(served.messages().length).toBe(4);
    expect(served.server.pendingBytes).toBe(0);
    expect(drained).toBe(3);
  });
});

describe("a client that fills a full stream's queue with the smallest messages", () => {
  it("is charged what they cost to hold, and they are worked off one after another", async () => {
    let drain = () => {};
    let full: Promise<void> | null = null;
    const served = serveRpc({}, { full: () => full });
    served.server.push(Buffer.from(OPENING));
    await served.settled();
    full = new Promise((resolve) => (drain = resolve));
    const smallest = Buffer.from(encodeFrame({ type: "" }));
    served.server.push(Buffer.concat([...Array.from({ length: 9_999 }, () => smallest), encodeFrame({ type: "ping", id: 2 })]));
    // A stream is no longer read above 2 MiB.
    expect(served.server.pendingBytes).toBeGreaterThan(2 * 1024 * 1024);
    full = null;
    drain();
    while (served.server.pendingBytes > 0) await turn();
    expect(served.messages().at(-1)).toEqual({ type: "result", id: 2 });
  });

  it("shares the event loop with others: a few hundred at a time, in order", async () => {
    const served = serveRpc();
    served.server.push(Buffer.from(OPENING));
    await served.settled();
    const pings = Array.from({ length: 2_000 }, (_, index) => Buffer.from(encodeFrame({ type: "ping", id: index + 2 })));
    served.server.push(Buffer.concat(pings));
    const counts: number[] = [];
    while (served.server.pendingBytes > 0) {
      await turn();
      counts.push(served.messages().length - 1);
    }
    expect(counts.length).toBeGreaterThan(3);
    expect(served.messages().map(({ id }) => id)).toEqual(Array.from({ length: 2_001 }, (_, index) => index + 1));
  });

  it("is rid of them when it ends in the middle, and the next messages are not taken for them", async () => {
    let drain = () => {};
    let full: Promise<void> | null = null;
    const served = serveRpc({}, { full: () => full });
    served.server.push(Buffer.from(OPENING));
    await served.settled();
    full = new Promise((resolve) => (drain = resolve));
    served.server.push(Buffer.concat([encodeFrame({ type: "" }), encodeFrame({ type: 1 }), sign(5)]));
    full = null;
    drain();
    await served.server.idle;
    expect(served.violations).toEqual(["a message without a type"]);
    expect(served.server.pendingBytes).toBe(0);
    expect(served.seen).toEqual(["hello"]);
  });
});

describe("events", () => {
  const subscribe = (events: readonly string[]) => encodeFrame({ type: "subscribe", id: 9, events });

  it("are sent for what was subscribed to, and for nothing else", async () => {
    const served = serveRpc();
    served.server.push(Buffer.from(OPENING));
    served.server.event({ event: "token-in", slot: 1n });
    served.server.push(subscribe(["token-in", "tomorrow"]));
    await served.settled();
    served.server.event({ event: "token-in", slot: 2n });
    served.server.event({ event: "locked", slot: 2n });
    await turn();
    expect(served.messages().filter(({ type }) => type === "event")).toEqual([{ type: "event", event: "token-in", slot: 2 }]);
  });

  it("are reduced to the last of each kind and slot while the stream is full", async () => {
    let drain = () => {};
    let full: Promise<void> | null = null;
    const served = serveRpc({}, { full: () => full });
    served.server.push(Buffer.concat([OPENING, subscribe(["touch", "epoch"])]));
    await served.settled();
    full = new Promise((resolve) => (drain = resolve));
    for (let index = 0; index < 1000; index++) {
      served.server.event({ event: "touch", slot: 1n, waiting: index % 2 === 0 });
      served.server.event({ event: "epoch", slot: null, epoch: index });
    }
    await turn();
    full = null;
    drain();
    await turn();
    const events = served.messages().filter(({ type }) => type === "event");
    expect(events).toEqual([
      { type: "event", event: "touch", slot: 1, waiting: false },
      { type: "event", event: "epoch", slot: null, epoch: 999 },
    ]);
  });
});

describe("PINs", () => {
  const PIN = "canary-4711";
  const login = encodeFrame({ type: "call", id: 2, call: "C_Login", args: { session: 1, userType: 1, pin: Buffer.from(PIN) } });

  it.each([1, 7, 4096])(
    "are overwritten in what was received in pieces of %i bytes, and in the arguments when the call has ended",
    async (size) => {
      const pieces: Buffer[] = [];
      const stream = Buffer.concat([OPENING, login]);
      for (let at = 0; at < stream.length; at += size) pieces.push(Buffer.from(stream.subarray(at, at + size)));
      let given = "";
      let pin: Buffer | null = null;
      const served = serveRpc({
        call: async ({ args }) => {
          pin = args["pin"] as Buffer;
          given = pin.toString();
          expect(Buffer.concat(pieces).includes(PIN)).toBe(false);
          return { rv: 0, outs: {} };
        },
      });
      for (const piece of pieces) served.server.push(piece);
      await served.settled();
      expect(given).toBe(PIN);
      expect(pin).toEqual(Buffer.alloc(PIN.length));
      expect(served.messages().find(({ id }) => id === 2)).toMatchObject({ type: "result", rv: 0 });
    },
  );

  it("are overwritten in a request that is answered `busy`", async () => {
    const hold = held();
    const served = serveRpc({ sign: hold.sign }, { limits: { maxInFlight: 1 } });
    served.server.push(Buffer.from(OPENING));
    await turn();
    const chunk = Buffer.concat([sign(3), login]);
    served.server.push(chunk);
    expect(chunk.includes(PIN)).toBe(false);
    for (const go of hold.release) go();
    await served.settled();
    expect(served.messages().find(({ id }) => id === 2)).toMatchObject({ code: "busy" });
  });

  it.each([
    ["in a message that cannot be read", Buffer.concat([login.subarray(0, -20), Buffer.from([0xc1]), login.subarray(-19)])],
    ["in a message of an unknown type without an id", encodeFrame({ type: "tomorrow", pin: Buffer.from(PIN) })],
    ["in a request of an unknown type", encodeFrame({ type: "tomorrow", id: 2, pin: Buffer.from(PIN) })],
    ["in a URI", encodeFrame({ type: "sign", id: 2, key: { uri: `pkcs11:id=%01?pin-value=${PIN}` }, data: Buffer.alloc(1) })],
  ])("are overwritten %s, and never repeated", async (_where, frame) => {
    const served = serveRpc();
    served.server.push(Buffer.from(OPENING));
    await served.settled();
    const chunk = Buffer.from(frame);
    served.server.push(chunk);
    await served.settled();
    expect(chunk.includes(PIN)).toBe(false);
    expect(JSON.stringify([served.messages(), served.violations])).not.toContain(PIN);
  });

  it.each([1, 64])("are overwritten in pieces of %i bytes of a message that never becomes whole", async (size) => {
    const served = serveRpc();
    served.server.push(Buffer.from(OPENING));
    await served.settled();
    const part = login.subarray(0, -1);
    const pieces = Array.from({ length: Math.ceil(part.length / size) }, (_, index) =>
      Buffer.from(part.subarray(index * size, (index + 1) * size)),
    );
    for (const piece of pieces) served.server.push(piece);
    served.server.end();
    expect(Buffer.concat(pieces).includes("4711")).toBe(false);
    await served.server.idle;
  });

  it("are overwritten in requests that were never taken up when the stream ends", async () => {
    const served = serveRpc({}, { full: () => new Promise(() => {}) });
    const chunk = Buffer.concat([OPENING, login]);
    served.server.push(chunk);
    served.server.end();
    expect(chunk.includes(PIN)).toBe(false);
    await served.server.idle;
  });
});
