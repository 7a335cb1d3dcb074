/*
 * The p11-kit server over a Cryptoki that answers from a table: what it writes for what it is sent.
 */
import { describe, expect, it } from "vitest";
import { createWriter } from "../../../../src/base/bytes.js";
import { type CallName, callByName } from "../../../../src/cryptoki/calls.js";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult } from "../../../../src/cryptoki/types.js";
import { encodeFrame } from "../../../../src/wire/p11kit/frame.js";
import { encodeRequest, initializeArgs } from "../../../../src/wire/p11kit/requests.js";
import { createRecordingCryptoki, type ServedCryptoki, serve } from "../../../support/wire-peers.js";

let nextCode = 0x10;

function request(name: CallName, args: AnyArgs, options = "client"): Buffer {
  const body = encodeRequest(callByName(name), args, { dialect: "new" });
  return encodeFrame(nextCode++, Buffer.from(options), body);
}

const initialize = () => request("C_Initialize", initializeArgs() as AnyArgs);
const SESSION = { session: 1n };
const sign = (room: number | null) => request("C_Sign", { ...SESSION, data: Buffer.from("data"), room });

/** Starts a conversation: version byte 2 and C_Initialize, both answered. */
async function started(served: ServedCryptoki): Promise<void> {
  served.server.push(Buffer.from([2]));
  served.server.push(initialize());
  await served.wrote(2);
}

/** The body of the last message: without header (the options of a reply are empty) and as hex. */
const lastBody = (served: ServedCryptoki) => served.written.at(-1)?.subarray(12).toString("hex");
const error = (rv: number) => `000000000000000175${rv.toString(16).padStart(16, "0")}`;
const head = (id: number, signature: string) =>
  `${id.toString(16).padStart(8, "0")}${signature.length.toString(16).padStart(8, "0")}${Buffer.from(signature).toString("hex")}`;

describe("the version byte", () => {
  it.each([
    [0, "00"],
    [1, "01"],
    [2, "02"],
    [255, "02"],
  ])("an offer of %i is answered at once with %s", (offer, answer) => {
    const served = serve(createRecordingCryptoki());
    served.server.push(Buffer.from([offer]));
    expect(served.hex()).toBe(answer);
  });
});

describe("initialising", () => {
  it("refuses every call before C_Initialize and lives", async () => {
    const served = serve(createRecordingCryptoki());
    served.server.push(Buffer.concat([Buffer.from([2]), request("C_GetInfo", {})]));
    await served.wrote(2);
    expect(lastBody(served)).toBe(error(0x190));
    served.server.push(initialize());
    await served.wrote(3);
    expect(lastBody(served)).toBe(head(1, ""));
  });

  it("refuses another handshake and takes the right one afterwards", async () => {
    const served = serve(createRecordingCryptoki());
    served.server.push(Buffer.from([2]));
    served.server.push(request("C_Initialize", { handshake: Buffer.from("HELLO"), hasReserved: 0, reserved: null }));
    await served.wrote(2);
    expect(lastBody(served)).toBe(error(0x05));
    served.server.push(initialize());
    await served.wrote(3);
    expect(lastBody(served)).toBe(head(1, ""));
  });

  it("counts repeated C_Initialize, and works again after the last C_Finalize", async () => {
    const cryptoki = createRecordingCryptoki();
    const served = serve(cryptoki);
    await started(served);
    served.server.push(Buffer.concat([initialize(), request("C_Finalize", {}), request("C_Logout", SESSION)]));
    served.server.push(
      Buffer.concat([request("C_Finalize", {}), request("C_Logout", SESSION), initialize(), request("C_Logout", SESSION)]),
    );
    await served.wrote(9);
    const names = cryptoki.calls.map(({ name }) => name);
    expect(names).toEqual(["C_Initialize", "C_Logout", "C_Finalize", "C_Initialize", "C_Logout"]);
    expect(served.written[6]?.subarray(12).toString("hex")).toBe(error(0x190));
    expect(served.violations).toEqual([]);
  });
});

describe("answers", () => {
  it("echo the call code, come in order, one write each", async () => {
    const release: (() => void)[] = [];
    const cryptoki = createRecordingCryptoki({
      C_GenerateRandom: async () => {
        await new Promise<void>((resolve) => release.push(resolve));
        return { rv: 0, output: Buffer.from([9]) };
      },
    });
    const served = serve(cryptoki);
    await started(served);
    const first = request("C_GenerateRandom", { ...SESSION, room: 1 });
    const second = request("C_Logout", SESSION);
    served.server.push(Buffer.concat([first, second]));
    expect(served.server.pendingBytes).toBeGreaterThan(first.length + second.length);
    while (release.length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(served.written.length).toBe(2);
    for (const go of release) go();
    await served.wrote(4);
    expect(served.written[2]?.readUInt32BE(0)).toBe(first.readUInt32BE(0));
    expect(served.written[3]?.readUInt32BE(0)).toBe(second.readUInt32BE(0));
  });

  it("give ERROR CKR_FUNCTION_NOT_SUPPORTED to a call id nobody knows, and the connection lives", async () => {
    const served = serve(createRecordingCryptoki());
    await started(served);
    served.server.push(encodeFrame(0xffffffff, Buffer.alloc(0), Buffer.from("0000005b00000000", "hex")));
    served.server.push(request("C_Logout", SESSION));
    await served.wrote(4);
    expect(served.written[2]?.toString("hex")).toBe(`ffffffff0000000000000011${error(0x54)}`);
    expect(lastBody(served)).toBe(head(19, ""));
  });

  it("leave room for other clients between those of one that asks for thousands at once", async () => {
    const served = serve(createRecordingCryptoki());
    await started(served);
    const many = 3_000;
    served.server.push(Buffer.concat(Array.from({ length: many }, () => request("C_Logout", SESSION))));
    const perTurn: number[] = [];
    for (let before = served.written.length; served.written.length < many + 2; before = served.written.length) {
      await new Promise((resolve) => setImmediate(resolve));
      perTurn.push(served.written.length - before);
    }
    expect(Math.max(...perTurn)).toBeLessThanOrEqual(512);
    expect(served.server.pendingBytes).toBe(0);
  });

  const output = Buffer.from("signature");
  it.each<[string, number | null, AnyResult, string]>([
    ["bytes that fit", 9, { rv: 0, output }, `${head(43, "ay")}0100000009${output.toString("hex")}`],
    ["no bytes at all", 9, { rv: 0, output: Buffer.alloc(0) }, `${head(43, "ay")}0100000000`],
    ["a length query", null, { rv: 0, output: 9 }, `${head(43, "ay")}0000000009`],
    ["too small a room", 5, { rv: 0x150, output: 9 }, `${head(43, "ay")}0000000009`],
    ["more than there was room for", 8, { rv: 0, output }, `${head(43, "ay")}0000000009`],
    ["bytes where only the length was asked", null, { rv: 0, output }, `${head(43, "ay")}0000000009`],
    ["bytes for a buffer of no bytes", 0, { rv: 0, output }, `${head(43, "ay")}0000000009`],
    ["any other error", 9, { rv: 0x101 }, error(0x101)],
    ["a vendor error", 9, { rv: 0x80000001 }, error(0x80000001)],
    ["OK without an output", 9, { rv: 0 }, error(0x05)],
    ["an rv that is no CK_RV", 9, { rv: -1 }, error(0x05)],
  ])("are right for %s", async (_name, room, result, expected) => {
    const served = serve(createRecordingCryptoki({ C_Sign: () => result }));
    await started(served);
    served.server.push(sign(room));
    await served.wrote(3);
    expect(lastBody(served)).toBe(expected);
  });

  it("give CKR_GENERAL_ERROR for a layer below that rejects", async () => {
    const served = serve(createRecordingCryptoki({ C_Sign: () => Promise.reject(new Error("closed")) }));
    await started(served);
    served.server.push(sign(9));
    await served.wrote(3);
    expect(lastBody(served)).toBe(error(0x05));
    expect(served.violations).toEqual([]);
  });

  it("write unavailable numbers as all ones", async () => {
    const size = () => ({ rv: 0, size: 0xffffffffffffffffn });
    const served = serve(createRecordingCryptoki({ C_GetObjectSize: size }));
    await started(served);
    served.server.push(request("C_GetObjectSize", { ...SESSION, object: 2n }));
    await served.wrote(3);
    expect(lastBody(served)).toBe(`${head(23, "u")}${"ff".repeat(8)}`);
  });

  it("never hold an attribute value beyond its room, nor attributes that were not asked for", async () => {
    const label = Buffer.from("a long label");
    let attributes = [{ type: 3, value: label, length: label.length }];
    const served = serve(createRecordingCryptoki({ C_GetAttributeValue: () => ({ rv: 0, attributes }) }));
    await started(served);
    const read = () => request("C_GetAttributeValue", { ...SESSION, object: 2n, query: [{ type: 3, room: 5 }] });
    served.server.push(read());
    await served.wrote(3);
    expect(lastBody(served)).toBe(`${head(24, "aAu")}000000010000000300${"0000000000000150"}`);
    attributes = [...attributes, ...attributes];
    served.server.push(read());
    await served.wrote(4);
    expect(lastBody(served)).toBe(error(0x05));
  });

  it("count the elements of CKA_ALLOWED_MECHANISMS as none in a length answer", async () => {
    const attributes = [{ type: 0x40000600, value: null, length: 16 }];
    const served = serve(createRecordingCryptoki({ C_GetAttributeValue: () => ({ rv: 0, attributes }) }));
    await started(served);
    served.server.push(request("C_GetAttributeValue", { ...SESSION, object: 2n, query: [{ type: 0x40000600, room: null }] }));
    await served.wrote(3);
    expect(lastBody(served)).toBe(`${head(24, "aAu")}0000000140000600010000001000000000${"00".repeat(8)}`);
  });
});

describe("a peer that breaks the protocol", () => {
  it("is answered up to there, told apart once, and finalised", async () => {
    const cryptoki = createRecordingCryptoki();
    const served = serve(cryptoki);
    await started(served);
    served.server.push(
      Buffer.concat([request("C_Logout", SESSION), encodeFrame(1, Buffer.alloc(0), Buffer.from("00000004", "hex")), sign(9)]),
    );
    await served.server.idle;
    expect(served.written.length).toBe(3);
    expect(served.violations).toEqual(["truncated: signature length at byte 4"]);
    expect(cryptoki.calls.map(({ name }) => name)).toEqual(["C_Initialize", "C_Logout", "C_Finalize"]);
    served.server.push(sign(9));
    expect(served.written.length).toBe(3);
  });

  it("is closed for a header over the limit, after what came before it was answered", async () => {
    const served = serve(createRecordingCryptoki());
    await started(served);
    served.server.push(Buffer.concat([request("C_Logout", SESSION), Buffer.from(`00000001${"00000000"}60000000`, "hex")]));
    await served.server.idle;
    expect(lastBody(served)).toBe(head(19, ""));
    expect(served.violations).toEqual(["limit: frame of 1610612748 bytes at byte 8"]);
  });

  it("cannot cost time or stack with 200,000 templates within templates", async () => {
    const served = serve(createRecordingCryptoki(), { limits: { maxFrameBytes: 8 << 20 } });
    await started(served);
    const writer = createWriter();
    writer.u32(26);
    writer.u32(3);
    writer.bytes(Buffer.from("uaA"));
    writer.u64(1n);
    for (let level = 0; level < 200_000; level++) {
      writer.u32(1);
      writer.u32(0x40000211);
      writer.u8(1);
      writer.u32(24);
    }
    writer.u32(0);
    const startedAt = performance.now();
    served.server.push(encodeFrame(1, Buffer.alloc(0), writer.finish()));
    await served.wrote(3);
    expect(performance.now() - startedAt).toBeLessThan(500);
    expect(lastBody(served)).toBe(error(0x30));
  });
});

describe("a peer that asks and does not read", () => {
  it("is answered no further until the stream has drained", async () => {
    let drain: () => void = () => {};
    let held: Promise<void> | null = null;
    const cryptoki = createRecordingCryptoki();
    const served = serve(cryptoki, { full: () => held });
    await started(served);
    held = new Promise((resolve) => {
      drain = resolve;
    });
    served.server.push(Buffer.concat([request("C_Logout", SESSION), request("C_Logout", SESSION)]));
    await new Promise((resolve) => setImmediate(resolve));
    expect(cryptoki.calls.length).toBe(1);
    held = null;
    drain();
    await served.wrote(4);
    expect(cryptoki.calls.length).toBe(3);
  });

  it("is let go when its stream closes meanwhile", async () => {
    let close: () => void = () => {};
    const closed = new Promise<void>((resolve) => {
      close = resolve;
    });
    const cryptoki = createRecordingCryptoki();
    const served = serve(cryptoki, { full: () => closed });
    served.server.push(Buffer.concat([Buffer.from([2]), initialize()]));
    served.server.end();
    close();
    await served.server.idle;
    expect(cryptoki.calls).toEqual([]);
  });
});

describe("the end of the stream", () => {
  it("aborts the running call, drops what waits, and finalises with a signal of its own", async () => {
    const cryptoki = createRecordingCryptoki({
      C_Sign: (_args, ctx) =>
        new Promise((resolve) => ctx.signal.addEventListener("abort", () => resolve({ rv: CKR.CKR_FUNCTION_CANCELED }))),
    });
    const served = serve(cryptoki);
    await started(served);
    served.server.push(Buffer.concat([sign(9), request("C_Logout", SESSION)]));
    served.server.end();
    served.server.end();
    await served.server.idle;
    expect(cryptoki.calls.map(({ name }) => name)).toEqual(["C_Initialize", "C_Sign", "C_Finalize"]);
    expect(cryptoki.calls.at(-1)?.ctx.signal.aborted).toBe(false);
    expect(served.written.length).toBe(2);
    expect(served.server.pendingBytes).toBe(0);
  });

  it("overwrites what has come of a message that is not whole", async () => {
    const served = serve(createRecordingCryptoki());
    await started(served);
    const whole = request("C_Login", { ...SESSION, userType: 1n, pin: Buffer.from("secret-pin") });
    const part = Buffer.from(whole.subarray(0, whole.length - 1));
    served.server.push(part);
    served.server.end();
    await served.server.idle;
    expect(part.includes("secret-pi")).toBe(false);
  });

  it("does not finalise twice after C_Finalize, nor at all before C_Initialize", async () => {
    const cryptoki = createRecordingCryptoki();
    const served = serve(cryptoki);
    await started(served);
    served.server.push(request("C_Finalize", {}));
    await served.wrote(3);
    served.server.end();
    await served.server.idle;
    expect(cryptoki.calls.map(({ name }) => name)).toEqual(["C_Initialize", "C_Finalize"]);

    const silent = createRecordingCryptoki();
    const never = serve(silent);
    never.server.end();
    await never.server.idle;
    expect(silent.calls).toEqual([]);
  });
});

describe("PINs", () => {
  it("reach the call as copies, and are gone from frame, chunk and arguments after it", async () => {
    let seen = "";
    const cryptoki = createRecordingCryptoki({
      C_Login: (args) => {
        seen = (args["pin"] as Buffer).toString();
        return { rv: 0 };
      },
    });
    const served = serve(cryptoki);
    await started(served);
    const chunk = request("C_Login", { ...SESSION, userType: 1n, pin: Buffer.from("472913") });
    served.server.push(chunk);
    await served.wrote(3);
    expect(seen).toBe("472913");
    expect(chunk.includes("472913")).toBe(false);
    expect(cryptoki.calls.at(-1)?.args["pin"]).toEqual(Buffer.alloc(6));
  });

  it("are gone too when the call that carries one is refused", async () => {
    const served = serve(createRecordingCryptoki());
    await started(served);
    const body = Buffer.concat([
      Buffer.from(`${head(9, "uayz")}000000000000000101`, "hex"),
      Buffer.from("00000006", "hex"),
      Buffer.from("472913"),
      Buffer.from("00000001", "hex"),
      Buffer.from("x"),
    ]);
    const chunk = encodeFrame(1, Buffer.alloc(0), body);
    served.server.push(chunk);
    await served.wrote(3);
    expect(lastBody(served)).toBe(error(0x07));
    expect(chunk.includes("472913")).toBe(false);
  });
});

describe("PINs of a client that has gone", () => {
  it("are wiped from what was never read", async () => {
    const served = serve(createRecordingCryptoki({ C_Sign: () => new Promise(() => {}) }));
    await started(served);
    const chunk = request("C_Login", { ...SESSION, userType: 1n, pin: Buffer.from("472913") });
    served.server.push(sign(64));
    served.server.push(chunk);
    served.server.end();
    expect(chunk.includes("472913")).toBe(false);
  });
});

describe("the options of the first frame", () => {
  it("are told once, before the answer, which carries what was returned", async () => {
    const told: string[] = [];
    const served = serve(createRecordingCryptoki(), {
      onFirstFrameOptions: (options) => {
        told.push(options.toString());
        return Buffer.from("pong");
      },
    });
    served.server.push(Buffer.from([2]));
    served.server.push(request("C_Initialize", initializeArgs() as AnyArgs, "ping"));
    served.server.push(request("C_Logout", SESSION));
    await served.wrote(3);
    expect(told).toEqual(["ping"]);
    expect(served.written[1]?.subarray(12, 16).toString()).toBe("pong");
    expect(served.written[2]?.readUInt32BE(4)).toBe(0);
  });
});
