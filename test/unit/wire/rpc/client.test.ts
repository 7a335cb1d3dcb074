/*
 * The tokenfwd RPC client against the server in memory: flights, many requests at once, taking back, and the faults of the
 * other end.
 */
import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { CallContext } from "../../../../src/cryptoki/types.js";
import { CONNECTION_ENDED, createRpcClient } from "../../../../src/wire/rpc/client.js";
import { decodeBody, encodeFrame, type Fields } from "../../../../src/wire/rpc/codec.js";
import { MAGIC, RpcError, type RpcEvent, type SignResult } from "../../../../src/wire/rpc/messages.js";
import { connectRpc, plainHandlers, signRequest } from "../../../support/rpc-peers.js";
import { TEST_ORIGIN } from "../../../support/wire-peers.js";

const turn = () => new Promise((resolve) => setImmediate(resolve));
const context = (signal = new AbortController().signal): CallContext => ({ client: "test", origin: TEST_ORIGIN, signal });
const HELLO_RESULT = encodeFrame({ type: "result", id: 1, version: 1, agent: "a", snapshot: null });

/** A client whose other end is the test. */
function alone(options: { readonly flight?: "eager" | "careful"; readonly limits?: { readonly maxInFlight: number } } = {}) {
  const written: Buffer[] = [];
  const ends = { count: 0 };
  const client = createRpcClient({ write: (bytes) => written.push(Buffer.from(bytes)), end: () => ends.count++, ...options });
  return { client, written, ends, bytes: () => Buffer.concat(written) };
}

describe("flights", () => {
  it("an eager one has magic, hello and the first requests in one write, before anything has come back", async () => {
    const { client, bytes, written } = alone();
    const sign = client.request("sign", signRequest());
    await turn();
    const stream = bytes();
    expect(written.length).toBe(1);
    expect(stream.subarray(0, 8)).toEqual(MAGIC);
    const hello = stream.readUInt32BE(8);
    expect(decodeBody(stream.subarray(12, 12 + hello))).toMatchObject({ type: "hello", versions: [1], snapshot: true });
    expect(decodeBody(stream.subarray(16 + hello))).toMatchObject({ type: "sign" });
    client.closed();
    await expect(sign).rejects.toThrow(CONNECTION_ENDED);
  });

  it("a careful one has the magic alone, and the rest in one write when the agent's has come", async () => {
    const { client, written } = alone({ flight: "careful" });
    const sign = client.request("sign", signRequest());
    await turn();
    expect(written).toEqual([MAGIC]);
    for (const byte of MAGIC) client.push(Buffer.from([byte]));
    expect(await client.isTokenfwd).toBe(true);
    await turn();
    expect(written.length).toBe(2);
    client.closed();
    await expect(sign).rejects.toThrow(CONNECTION_ENDED);
  });

  it.each([
    ["eager", "02"],
    ["careful", "02"],
    ["careful", "f4746f6b66776402"],
  ] as const)("an %s one writes nothing more when %s comes back, and asks for the end once", async (flight, hex) => {
    const { client, written, ends } = alone({ flight });
    await turn();
    const before = written.length;
    client.push(Buffer.from(hex, "hex"));
    client.push(Buffer.from("00", "hex"));
    expect(await client.isTokenfwd).toBe(false);
    await expect(client.ready).rejects.toThrow("does not speak");
    await expect(client.request("ping", {})).rejects.toThrow("does not speak");
    await turn();
    expect(written.length).toBe(before);
    expect(ends.count).toBe(1);
    expect(client.gone).toBe(true);
  });

  it("is no agent's when the other end closes without a byte", async () => {
    const { client, ends } = alone({ flight: "careful" });
    client.closed();
    expect(await client.isTokenfwd).toBe(false);
    expect(ends.count).toBe(0);
  });
});

describe("requests", () => {
  it("overlap, and each gets its own answer", async () => {
    const handlers = {
      sign: async ({ data }: { data: Buffer }): Promise<SignResult> => {
        await new Promise((resolve) => setTimeout(resolve, data.readUInt8(0) % 7));
        return { signature: Buffer.from(data), mechanism: 1, uri: "", spki: null };
      },
    };
    const { client, server } = connectRpc(handlers);
    const all = Array.from({ length: 200 }, (_, index) => client.request("sign", signRequest({ data: Buffer.from([index]) })));
    expect((await Promise.all(all)).map(({ signature }) => signature.readUInt8(0))).toEqual(all.map((_, index) => index));
    expect(client.inFlight).toBe(0);
    await client.close();
    await server.idle;
  });

  it("leave together in one write when they are made together", async () => {
    const { client, fromClient } = connectRpc();
    await client.ready;
    const before = fromClient.length;
    await Promise.all(Array.from({ length: 64 }, () => client.request("sign", signRequest())));
    expect(fromClient.length - before).toBe(1);
    await client.close();
  });

  it("beyond the limit wait in the client, so that the agent is never too busy", async () => {
    let running = 0;
    let most = 0;
    const sign = async () => {
      most = Math.max(most, ++running);
      await turn();
      running--;
      return { signature: Buffer.from("s"), mechanism: 1, uri: "", spki: null };
    };
    const { client } = connectRpc({ sign }, { client: { limits: { maxInFlight: 4 } }, server: { limits: { maxInFlight: 4 } } });
    await client.ready;
    await Promise.all(Array.from({ length: 40 }, () => client.request("sign", signRequest())));
    expect(most).toBe(4);
    await client.close();
  });

  it("carry results that outlive what they came in", async () => {
    const { client } = alone();
    const sign = client.request("sign", signRequest());
    const chunk = Buffer.concat([
      MAGIC,
      HELLO_RESULT,
      encodeFrame({ type: "result", id: 2, signature: Buffer.from("signature"), mechanism: 1, uri: "u", spki: Buffer.from("spki") }),
    ]);
    client.push(chunk);
    chunk.fill(0);
    expect(await sign).toEqual({ signature: Buffer.from("signature"), mechanism: 1, uri: "u", spki: Buffer.from("spki") });
    client.closed();
  });

  it("reject with the agent's error as it is", async () => {
    const error = new RpcError("cryptoki", "no", { rv: CKR.CKR_PIN_LOCKED, call: "C_Login", hint: "unlock it" });
    const { client } = connectRpc({ sign: async () => Promise.reject(error) });
    const thrown = await client.request("sign", signRequest()).catch((reason: unknown) => reason);
    expect(thrown).toBeInstanceOf(RpcError);
    expect(thrown).toMatchObject({ code: "cryptoki", message: "no", rv: CKR.CKR_PIN_LOCKED, call: "C_Login", hint: "unlock it" });
    await client.close();
  });

  it("reject with texts that are fit for a terminal, whatever the agent sends", async () => {
    const { client } = alone();
    client.push(Buffer.concat([MAGIC, HELLO_RESULT]));
    const sign = client.request("sign", signRequest());
    const error = { code: "cryptoki", message: "a\u001b[31m", call: "C\n", hint: "h\u202e" };
    client.push(Buffer.from(encodeFrame({ type: "error", id: 2, ...error })));
    await expect(sign).rejects.toMatchObject({ message: "a\\x1b[31m", call: "C\\x0a", hint: "h\\u{202e}" });
    client.closed();
  });

  it.each([0, -1, 0.5, Number.NaN, 600_001])("with a deadline of %d are refused here, and the connection lives", async (deadlineMs) => {
    const { client, violations } = connectRpc();
    await expect(client.request("ping", {}, { deadlineMs })).rejects.toMatchObject({ code: "bad-request" });
    await client.request("ping", {}, { deadlineMs: 600_000 });
    expect(violations).toEqual([]);
    await client.close();
  });

  it("that are longer than a frame are refused here, and the connection lives", async () => {
    const { client } = connectRpc();
    await expect(client.request("sign", signRequest({ data: Buffer.alloc(1024 * 1024) }))).rejects.toMatchObject({ code: "bad-request" });
    await client.request("ping", {});
    await client.close();
  });

  it("with a URI that carries a PIN end the connection, and the PIN comes back in no error", async () => {
    const { client, server, violations } = connectRpc({}, {});
    const uri = "pkcs11:id=%01?pin-value=canary-4711";
    const thrown = await client.request("sign", signRequest({ key: { uri, spki: null } })).catch((reason: unknown) => reason);
    expect(thrown).toMatchObject({ code: "protocol" });
    expect(violations.length).toBe(1);
    expect(String((thrown as Error).message) + violations.join()).not.toContain("canary");
    await server.idle;
  });

  it("in flight when the stream goes reject, once, and so does everything after", async () => {
    const { client } = alone();
    const all = [client.ready, client.request("sign", signRequest()), client.request("ping", {})];
    client.closed(new Error("reset"));
    client.closed();
    for (const one of all) await expect(one).rejects.toMatchObject({ code: "internal", message: CONNECTION_ENDED, hint: "reset" });
    await expect(client.request("ping", {})).rejects.toThrow(CONNECTION_ENDED);
    expect(client.inFlight).toBe(0);
  });
});

describe("taking back", () => {
  it("rejects at once, tells the agent, and leaves the id taken until it has answered", async () => {
    let aborted = 0;
    const sign = (_request: unknown, op: { signal: AbortSignal }) =>
      new Promise<SignResult>((_resolve, reject) => {
        op.signal.addEventListener("abort", () => {
          aborted++;
          reject(new RpcError("cancelled", "late"));
        });
      });
    const { client } = connectRpc({ sign });
    await client.ready;
    const controller = new AbortController();
    const request = client.request("sign", signRequest(), { signal: controller.signal });
    await turn();
    controller.abort();
    await expect(request).rejects.toMatchObject({ code: "cancelled" });
    expect(client.inFlight).toBe(1);
    await client.request("ping", {});
    expect(aborted).toBe(1);
    expect(client.inFlight).toBe(0);
    await client.close();
  });

  it("of a request that was never sent sends nothing", async () => {
    const { client, written } = alone({ flight: "careful" });
    const controller = new AbortController();
    const request = client.request("sign", signRequest(), { signal: controller.signal });
    controller.abort();
    await expect(request).rejects.toMatchObject({ code: "cancelled" });
    await expect(client.request("ping", {}, { signal: controller.signal })).rejects.toMatchObject({ code: "cancelled" });
    client.push(Buffer.from(MAGIC));
    await turn();
    // Magic and hello: neither the request nor a cancel of it.
    expect(written.length).toBe(2);
    client.closed();
  });
});

describe("one signal over many requests", () => {
  it("takes all of them back, costs one listener, and none when another signal is used or the client has ended", async () => {
    const { client, written } = alone();
    const controller = new AbortController();
    const { signal } = controller;
    const listening = () => getEventListeners(signal, "abort").length;
    client.push(Buffer.concat([MAGIC, HELLO_RESULT]));
    const first = client.request("ping", {}, { signal });
    expect(listening()).toBe(1);
    client.push(encodeFrame({ type: "result", id: 2 }));
    await first;
    const other = new AbortController();
    const second = client.request("ping", {}, { signal: other.signal });
    expect(listening()).toBe(0);
    client.push(encodeFrame({ type: "result", id: 3 }));
    await second;
    const all = Array.from({ length: 30 }, () => client.request("ping", {}, { signal }));
    expect(listening()).toBe(1);
    controller.abort();
    for (const one of all) await expect(one).rejects.toMatchObject({ code: "cancelled" });
    await turn();
    expect(Buffer.concat(written).toString("latin1").split("cancel").length - 1).toBe(30);
    client.closed();
    expect(getEventListeners(other.signal, "abort").length).toBe(0);
  });
});

describe("the Cryptoki", () => {
  it("carries arguments and outputs", async () => {
    const seen: Fields[] = [];
    const { client } = connectRpc({
      call: async ({ name, args }) => {
        seen.push({ name, args });
        return { rv: CKR.CKR_OK, outs: { session: 0xffffffffffffffffn } };
      },
    });
    expect(await client.cryptoki.call("C_OpenSession", { slot: 3n, flags: 4n }, context())).toEqual({
      rv: 0,
      session: 0xffffffffffffffffn,
    });
    expect(seen).toEqual([{ name: "C_OpenSession", args: { slot: 3n, flags: 4n } }]);
    await client.close();
  });

  it("never gives more than there was room for, whatever a handler answers", async () => {
    const { client } = connectRpc({ call: async () => ({ rv: 0, outs: { output: Buffer.alloc(64) } }) });
    const sign = (room: number | null) => client.cryptoki.call("C_Sign", { session: 1n, data: Buffer.alloc(1), room }, context());
    expect(await sign(64)).toEqual({ rv: CKR.CKR_OK, output: Buffer.alloc(64) });
    expect(await sign(63)).toEqual({ rv: CKR.CKR_BUFFER_TOO_SMALL, output: 64 });
    expect(await sign(null)).toEqual({ rv: CKR.CKR_OK, output: 64 });
    await client.close();
  });

  it("answers a lost connection, a call taken back and an unfit answer with CK_RVs", async () => {
    const { client } = alone();
    client.push(Buffer.concat([MAGIC, HELLO_RESULT]));
    const controller = new AbortController();
    const call = (signal?: AbortSignal) => client.cryptoki.call("C_OpenSession", { slot: 1n, flags: 4n }, context(signal));
    const [taken, unfit, lost] = [call(controller.signal), call(), call()];
    controller.abort();
    expect((await taken).rv).toBe(CKR.CKR_FUNCTION_CANCELED);
    client.push(encodeFrame({ type: "result", id: 3, rv: 0, outs: { session: "text" } }));
    expect((await unfit).rv).toBe(CKR.CKR_DEVICE_ERROR);
    client.closed();
    expect((await lost).rv).toBe(CKR.CKR_DEVICE_REMOVED);
    expect((await call()).rv).toBe(CKR.CKR_DEVICE_REMOVED);
  });

  it("tells its listeners of the events that were subscribed to", async () => {
    const { client, server } = connectRpc();
    const heard: unknown[] = [];
    for (const name of ["touch", "token-in", "epoch"] as const) client.cryptoki.events.on(name, (event) => heard.push({ name, ...event }));
    await client.request("subscribe", { events: ["touch", "token-in", "epoch"] });
    const events: RpcEvent[] = [
      { event: "touch", slot: 1n, waiting: true },
      { event: "token-in", slot: 0xffffffffffn },
      { event: "epoch", slot: null, epoch: 5_000_000_000 },
    ];
    for (const event of events) server.event(event);
    await turn();
    await turn();
    expect(heard).toEqual([
      { name: "touch", slot: 1n, waiting: true },
      { name: "token-in", slot: 0xffffffffffn },
      { name: "epoch", epoch: 5_000_000_000 },
    ]);
    await client.close();
  });

  it("gives a frame with a PIN apart, with a way to overwrite it", async () => {
    const secrets: { bytes: Buffer; wipe: () => void }[] = [];
    let others = Buffer.alloc(0);
    const client = createRpcClient({
      write(bytes, written) {
        if (written === undefined) others = Buffer.concat([others, bytes]);
        else secrets.push({ bytes, wipe: written });
      },
      end: () => {},
    });
    const login = client.cryptoki.call("C_Login", { session: 1n, userType: 1n, pin: Buffer.from("canary-4711") }, context());
    await turn();
    expect(others.includes("canary")).toBe(false);
    expect(secrets.map(({ bytes }) => bytes.includes("canary-4711"))).toEqual([true]);
    for (const { wipe } of secrets) wipe();
    expect(secrets.map(({ bytes }) => bytes.includes("canary"))).toEqual([false]);
    client.closed();
    await login;
  });
});

it("plain handlers answer what they are asked, so that nothing above passes by accident", async () => {
  const handlers = plainHandlers();
  const { client } = connectRpc(handlers);
  expect(await client.request("sign", signRequest({ data: Buffer.from("abc") }))).toMatchObject({ signature: Buffer.from("cba") });
  expect(await client.ready).toEqual({ version: 1, agent: "tokenfwd test", snapshot: null });
  await client.close();
});
