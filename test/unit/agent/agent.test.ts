/*
 * How the agent takes streams: places, limits, and that each is given back however its stream behaves.
 */
import { Duplex } from "node:stream";
import { expect, test, vi } from "vitest";
import { type AgentLimits, createAgent } from "../../../src/agent/agent.js";
import { listTokens } from "../../../src/agent/inspect.js";
import { PING_OPTIONS } from "../../../src/agent/ping.js";
import { CKA } from "../../../src/cryptoki/attributes.js";
import { type CallName, callByName } from "../../../src/cryptoki/calls.js";
import { CKO } from "../../../src/cryptoki/constants.js";
import { localContext } from "../../../src/cryptoki/local-context.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { AnyArgs, Attribute } from "../../../src/cryptoki/types.js";
import { createP11KitClient } from "../../../src/wire/p11kit/client.js";
import { encodeFrame } from "../../../src/wire/p11kit/frame.js";
import { encodeRequest, initializeArgs } from "../../../src/wire/p11kit/requests.js";
import { createFakeTokenHost, type FakeTokenHost, fakeAttributes, forwardOrigin } from "../../support/fake-token-host.js";

async function agentWith(limits: Partial<AgentLimits> = {}) {
  const host = createFakeTokenHost({ 1: "1234" });
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "key", true));
  const inspection = { tokens: [], certificates: [], publicKeys: [] };
  const agent = await createAgent({ host, key: "all", profile: "sign", pinMode: "ask", inspection, limits });
  const violations: string[] = [];
  agent.events.on("violation", ({ reason }) => violations.push(reason));
  return { agent, host, violations, attach: (stream: Duplex, destination = "bastion") => agent.attach(stream, forwardOrigin(destination)) };
}

/** A stream whose far side says what it is told to, and reads only when it is let. */
function peer({ reads = true } = {}) {
  const got: Buffer[] = [];
  const stream = new Duplex({
    writableHighWaterMark: 64,
    read() {},
    write(chunk: Buffer, _encoding, done) {
      got.push(chunk);
      if (reads) done();
    },
  });
  return { stream, got, say: (...bytes: Buffer[]) => stream.push(Buffer.concat(bytes)), hangUp: () => stream.push(null) };
}

const request = (name: CallName, args: AnyArgs) =>
  encodeFrame(1, Buffer.alloc(0), encodeRequest(callByName(name), args, { dialect: "new" }));
const start = () => Buffer.concat([Buffer.from([2]), request("C_Initialize", initializeArgs() as AnyArgs)]);

/** A stock-like client of a new agent for the key labelled `mine` on slot 1, connected through its own wire. */
async function clientOf(host: FakeTokenHost) {
  const inspection = {
    tokens: await listTokens(host, localContext("test", new AbortController().signal)),
    certificates: [],
    publicKeys: [],
  };
  const key = "pkcs11:token=work;object=mine;type=private";
  const one = { ...inspection, tokens: inspection.tokens.filter((token) => token.slot === 1n) };
  const agent = await createAgent({ host, key, profile: "sign", pinMode: "ask", inspection: one });
  const { stream, got, hangUp } = peer();
  agent.attach(stream, forwardOrigin("bastion"));
  const client = createP11KitClient({ write: (bytes) => stream.push(bytes), end: hangUp, frameOptions: PING_OPTIONS });
  let taken = 0;
  const pump = setInterval(() => {
    while (taken < got.length) client.push(Buffer.from(got[taken++] ?? []));
  }, 1);
  const ctx = { client: "test", origin: forwardOrigin("bastion"), signal: new AbortController().signal };
  await client.call("C_Initialize", initializeArgs(), ctx);
  const slots = async () => (await client.call("C_GetSlotList", { tokenPresent: 1, room: 9 }, ctx)).slots;
  const close = async () => {
    clearInterval(pump);
    await agent.close();
  };
  return { agent, client, ctx, slots, close };
}

test("a client of a forward sees the slots and objects of its key alone, no secret of it, and not who serves it", async () => {
  const host = createFakeTokenHost({ 1: "1234", 2: "5678" });
  const value: Attribute = { type: CKA.CKA_PRIVATE_EXPONENT, value: Buffer.from("d"), length: 1 };
  for (const label of ["mine", "other"]) host.addObject(1n, [...fakeAttributes(CKO.CKO_PRIVATE_KEY, label, false), value]);
  const { client, ctx, slots, close } = await clientOf(host);
  expect(client.lastReplyOptions).toHaveLength(0);
  expect(await slots()).toEqual([1n]);
  const { session = 0n } = await client.call("C_OpenSession", { slot: 1n, flags: 4n }, ctx);
  await client.call("C_FindObjectsInit", { session, template: [] }, ctx);
  const { objects } = await client.call("C_FindObjects", { session, room: 9 }, ctx);
  expect(objects).toHaveLength(1);
  const object = (objects as readonly bigint[])[0] ?? 0n;
  const query = [CKA.CKA_LABEL, CKA.CKA_PRIVATE_EXPONENT].map((type) => ({ type, room: 9 }));
  const read = await client.call("C_GetAttributeValue", { session, object, query }, ctx);
  expect([read.rv, read.attributes?.map(({ length }) => length)]).toEqual([CKR.CKR_ATTRIBUTE_SENSITIVE, [4, -1]]);
  await close();
});

test("a token swapped for another one closes its slot and what was open on it, until the same token is back", async () => {
  const host = createFakeTokenHost({ 1: "1234" });
  host.serials.set(1n, "A");
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "mine", false));
  const { agent, client, ctx, slots, close } = await clientOf(host);
  const { session = 0n } = await client.call("C_OpenSession", { slot: 1n, flags: 4n }, ctx);
  host.swap(1n, "5678", "B");
  expect((await agent.unlock(forwardOrigin("bastion"), ctx.signal)).rv).toBe(CKR.CKR_TOKEN_NOT_PRESENT);
  expect(await slots()).toEqual([]);
  expect((await client.call("C_FindObjectsInit", { session, template: [] }, ctx)).rv).toBe(CKR.CKR_DEVICE_REMOVED);
  expect((await client.call("C_OpenSession", { slot: 1n, flags: 4n }, ctx)).rv).toBe(CKR.CKR_SLOT_ID_INVALID);
  host.swap(1n, "1234", "A");
  await vi.waitFor(async () => expect(await slots()).toEqual([1n]));
  expect((await client.call("C_FindObjectsInit", { session, template: [] }, ctx)).rv).toBe(CKR.CKR_OK);
  await close();
});

test("a stream that has gone before it was attached takes no place", async () => {
  const { agent, attach } = await agentWith();
  const { stream } = peer();
  stream.destroy();
  await new Promise((resolve) => stream.once("close", resolve));
  attach(stream);
  expect(agent.clients).toBe(0);
  await agent.close();
});

test("a peer that ends its side and reads nothing does not keep its place", async () => {
  const { agent, host, attach } = await agentWith({ lingerMs: 50 });
  const { stream, say, hangUp } = peer({ reads: false });
  attach(stream);
  say(start(), request("C_OpenSession", { slot: 1n, flags: 4n }), request("C_GetInfo", {}));
  hangUp();
  expect(agent.clients).toBe(1);
  await vi.waitFor(() => expect(agent.clients).toBe(0), { timeout: 2000 });
  expect(host.sessions.size).toBe(0);
  await agent.close();
});

test("a client that hangs up gives its sessions back, and its place", async () => {
  const { agent, host, attach } = await agentWith();
  const { stream, got, say, hangUp } = peer();
  attach(stream);
  say(start(), request("C_OpenSession", { slot: 1n, flags: 4n }));
  await vi.waitFor(() => expect(got).toHaveLength(3));
  expect(host.sessions.size).toBe(1);
  hangUp();
  await vi.waitFor(() => expect(agent.clients).toBe(0));
  expect(host.sessions.size).toBe(0);
  await agent.close();
});

test("one destination has so many places and leaves the others theirs", async () => {
  const { agent, violations, attach } = await agentWith({ maxClientsPerDestination: 1, maxClients: 2 });
  const streams = ["a", "a", "b", "c"].map((destination) => {
    const { stream } = peer();
    attach(stream, destination);
    return stream;
  });
  expect(streams.map((stream) => stream.destroyed)).toEqual([false, true, false, true]);
  expect(violations).toEqual(["too many clients", "too many clients"]);
  await agent.close();
  expect(agent.clients).toBe(0);
});

test("a stream without a version byte is closed in time", async () => {
  const { agent, violations, attach } = await agentWith({ versionByteTimeoutMs: 30 });
  const { stream } = peer();
  attach(stream);
  await vi.waitFor(() => expect(agent.clients).toBe(0));
  expect(violations).toEqual(["no version byte in 0.03 s"]);
  await agent.close();
});
