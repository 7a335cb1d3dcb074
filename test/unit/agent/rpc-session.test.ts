/*
 * A tokenfwd RPC client of the agent beyond the good cases: what it may not say, when it stops waiting, what it is told of,
 * and that nothing of it is left. Over the fake token host, whose person takes as long as the test wants.
 */
import { expect, test, vi } from "vitest";
import { type AgentLimits, createAgent } from "../../../src/agent/agent.js";
import { CKF, CKO, CKU } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import { MAGIC, type RpcEventName, type SignMessage } from "../../../src/wire/rpc/messages.js";
import { connectP11Kit, connectRpc } from "../../support/agent-clients.js";
import { createFakeTokenHost, fakeAttributes, forwardOrigin } from "../../support/fake-token-host.js";
import { createRawRpcPeer } from "../../support/rpc-raw.js";
import { streamPair } from "../../support/stream-pair.js";

const HELLO = { type: "hello", id: 1, versions: [1] };

async function started(limits: Partial<AgentLimits> = {}) {
  const host = createFakeTokenHost({ 1: "1234" });
  host.flags = CKF.CKF_TOKEN_INITIALIZED | CKF.CKF_LOGIN_REQUIRED;
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "the key", true));
  const inspection = { tokens: [], certificates: [], publicKeys: [] };
  const agent = await createAgent({ host, key: "all", profile: "sign", pinMode: "ask", inspection, limits });
  const violations: string[] = [];
  agent.events.on("violation", ({ reason }) => violations.push(reason));
  /** A person who answers only by not answering; resolves to the signal when the question is open. */
  const askedForEver = () =>
    new Promise<AbortSignal>((open) => {
      host.onUnlock = (_request, signal) =>
        new Promise((resolve) => {
          signal.addEventListener("abort", () => resolve({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" }));
          open(signal);
        });
    });
  const raw = (magic?: Buffer) => {
    const [stream, theirs] = streamPair();
    agent.attach(theirs, forwardOrigin("bastion"), "its own");
    const closed = new Promise<void>((resolve) => stream.once("close", resolve));
    return { stream, closed, ...createRawRpcPeer(stream, magic === undefined ? {} : { magic }) };
  };
  return { agent, host, violations, askedForEver, raw };
}

const signRequest: SignMessage = {
  key: { uri: "pkcs11:object=the%20key;type=private", spki: null },
  mechanism: null,
  parameter: null,
  data: Buffer.from("data"),
  isDigest: false,
  purpose: "data",
  expect: null,
};

test("every request but those of the protocol is unknown, every call but those of Cryptoki is none, and the stream lives", async () => {
  const { agent, raw, violations } = await started();
  const peer = raw();
  const names = ["attach", "lock", "unlock", "shutdown", "control", "open", "status-all", "module", "__proto__", "constructor"];
  peer.send(HELLO, ...names.map((type, index) => ({ type, id: 100 + index, path: "/etc/passwd" })));
  for (const [index] of names.entries()) expect(await peer.answer(100 + index)).toMatchObject({ type: "error", code: "unknown-request" });
  peer.send({ type: "call", id: 50, call: "C_GetFunctionList", args: {} }, { type: "call", id: 51, call: "toString", args: {} });
  for (const id of [50, 51]) expect(await peer.answer(id)).toMatchObject({ type: "error", code: "bad-request" });
  peer.send({ type: "status", id: 60, client: "c1", connectId: "another" });
  expect(await peer.answer(60)).toMatchObject({ type: "result", connectId: "its own", origin: { destination: "bastion" } });
  expect(violations).toEqual([]);
  await agent.close();
});

test.each([
  ["a request before hello", [{ type: "status", id: 1 }], /first message is no hello/],
  ["a second hello", [HELLO, { ...HELLO, id: 2 }], /second hello/],
  [
    "an id in use",
    [HELLO, { type: "sign", id: 5, key: { uri: "pkcs11:" }, data: Buffer.from("x") }, { type: "ping", id: 5 }],
    /id that is in use/,
  ],
  [
    "query attributes",
    [HELLO, { type: "sign", id: 5, key: { uri: "pkcs11:?pin-value=canary" }, data: Buffer.from("x") }],
    /query attributes/,
  ],
] as const)("%s ends the stream with an error that says so", async (_what, messages, why) => {
  const { agent, host, raw, violations, askedForEver } = await started();
  void askedForEver();
  const peer = raw();
  peer.send(...messages);
  expect(await peer.answer(null)).toMatchObject({ type: "error", code: "protocol", message: expect.stringMatching(why) });
  await peer.closed;
  await vi.waitFor(() => expect(agent.clients).toBe(0));
  expect(violations).toEqual([expect.stringMatching(why)]);
  expect(violations[0]).not.toContain("canary");
  expect(host.sessions.size).toBe(0);
  await agent.close();
});

test("a first byte of ours with something else behind it is neither wire", async () => {
  const { agent, raw, violations } = await started();
  const peer = raw(Buffer.concat([MAGIC.subarray(0, 4), Buffer.from("nonsense")]));
  await peer.closed;
  expect(violations).toEqual(["no magic of tokenfwd RPC"]);
  await agent.close();
});

test("the magic alone keeps no place: hello has to come in the same time", async () => {
  const { agent, raw, violations } = await started({ versionByteTimeoutMs: 30 });
  await raw().closed;
  expect(violations).toEqual(["no hello in 0.03 s"]);
  await vi.waitFor(() => expect(agent.clients).toBe(0));
  await agent.close();
});

test.each(["sign", "call"] as const)("a %s that waits for a PIN ends when it is taken back, and so does the question", async (type) => {
  const { agent, host, askedForEver } = await started();
  const { rpc, cryptoki, ctx } = await connectRpc(agent, forwardOrigin("bastion"));
  const open = askedForEver();
  const { session = 0n } = await cryptoki.call("C_OpenSession", { slot: 1n, flags: 4n }, ctx);
  const stop = new AbortController();
  const request =
    type === "sign"
      ? rpc.request("sign", signRequest, { signal: stop.signal })
      : rpc.request("call", { name: "C_Login", args: { session, userType: CKU.CKU_USER, pin: null } }, { signal: stop.signal });
  const question = await open;
  expect(question.aborted).toBe(false);
  stop.abort();
  await expect(request).rejects.toMatchObject({ code: "cancelled" });
  await vi.waitFor(() => expect(question.aborted).toBe(true));
  // Nobody has said no: the next one may ask again.
  host.onUnlock = async () => ({ rv: CKR.CKR_OK, asked: true });
  expect((await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, ctx)).rv).toBe(CKR.CKR_OK);
  await agent.close();
});

test("a sign whose deadline passes while a person is asked ends, and so does the question", async () => {
  const { agent, askedForEver } = await started();
  const { rpc } = await connectRpc(agent);
  const open = askedForEver();
  const request = rpc.request("sign", signRequest, { deadlineMs: 20 });
  const question = await open;
  await expect(request).rejects.toMatchObject({ code: "deadline" });
  await vi.waitFor(() => expect(question.aborted).toBe(true));
  await agent.close();
});

test("a client that dies in the middle of a sign leaves no session, no question and no place", async () => {
  const { agent, host, askedForEver } = await started();
  const { rpc, stream } = await connectRpc(agent);
  const open = askedForEver();
  const request = rpc.request("sign", signRequest);
  const question = await open;
  stream.destroy();
  await expect(request).rejects.toMatchObject({ code: "internal" });
  await vi.waitFor(() => expect(agent.clients).toBe(0));
  expect(question.aborted).toBe(true);
  // The token's own log-in hangs on one session of the agent's, which is nobody's.
  expect(host.sessions.size).toBe(1);
  await agent.close();
});

test("a PIN that a client sends in spite of it is not used", async () => {
  const { agent, host } = await started();
  const { cryptoki, ctx } = await connectRpc(agent);
  const { session = 0n } = await cryptoki.call("C_OpenSession", { slot: 1n, flags: 4n }, ctx);
  const pin = Buffer.from("canary-161803");
  expect((await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin }, ctx)).rv).toBe(CKR.CKR_OK);
  expect([host.tries, host.asked]).toEqual([0, ["pin for ops@bastion"]]);
  await agent.close();
});

const ALL: readonly RpcEventName[] = ["touch", "token-in", "token-gone", "locked", "epoch"];

async function listener(agent: Parameters<typeof connectRpc>[0], events: readonly RpcEventName[]) {
  const client = await connectRpc(agent);
  const told: string[] = [];
  for (const name of ["touch", "token-in", "token-gone", "locked"] as const)
    client.cryptoki.events.on(name, (event) => told.push(`${name} ${event.slot}${"waiting" in event ? ` ${event.waiting}` : ""}`));
  client.cryptoki.events.on("epoch", () => told.push("epoch"));
  await client.rpc.request("subscribe", { events });
  return { ...client, told };
}

test("a touch is told to the client whose call waits, and to no other", async () => {
  const { agent, host } = await started();
  const [one, two] = [await listener(agent, ["touch"]), await listener(agent, ["touch"])];
  const { client } = one.attachment;
  host.events.emit("touch", { slot: 1n, waiting: true, client });
  host.events.emit("touch", { slot: 1n, waiting: false, client });
  host.events.emit("touch", { slot: 1n, waiting: true });
  await Promise.all([one, two].map(({ rpc }) => rpc.request("ping", {})));
  expect([one.told, two.told]).toEqual([["touch 1 true", "touch 1 false"], []]);
  await agent.close();
});

test("events are told to those who asked for them, and nothing before", async () => {
  const { agent, host } = await started();
  const [all, none, some] = [await listener(agent, ALL), await connectRpc(agent), await listener(agent, ["token-gone"])];
  const untold = vi.fn();
  for (const name of ["token-gone", "epoch"] as const) none.cryptoki.events.on(name, untold);
  host.swap(1n, "1234");
  await Promise.all([all, none, some].map(({ rpc }) => rpc.request("ping", {})));
  expect(all.told).toEqual(["token-gone 1", "epoch", "token-in 1", "epoch"]);
  expect(some.told).toEqual(["token-gone 1"]);
  expect(untold).not.toHaveBeenCalled();
  await agent.close();
});

test("a log-in moves the epoch of the client that made it, whichever way, and of no other", async () => {
  const { agent } = await started();
  const [one, two] = [await listener(agent, ["epoch"]), await listener(agent, ["epoch"])];
  const { session = 0n } = await one.cryptoki.call("C_OpenSession", { slot: 1n, flags: 4n }, one.ctx);
  await one.cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, one.ctx);
  await one.cryptoki.call("C_CloseSession", { session }, one.ctx);
  await Promise.all([one, two].map(({ rpc }) => rpc.request("ping", {})));
  expect([one.told, two.told]).toEqual([["epoch", "epoch"], []]);
  await agent.close();
});

test("what a client calls itself reaches the workstation printable, as its own word", async () => {
  const { agent } = await started();
  const hellos: string[] = [];
  agent.events.on("hello", ({ client, name }) => hellos.push(`${client}: ${name}`));
  await connectRpc(agent, forwardOrigin("bastion"), { client: "root@workstation\u202e\n" });
  expect(hellos).toEqual(["c1: root@workstation\\u{202e}\\x0a"]);
  await agent.close();
});

test("both wires share the places of a destination", async () => {
  const { agent, violations } = await started({ maxClientsPerDestination: 2 });
  await connectRpc(agent);
  await connectP11Kit(agent);
  const [stream, theirs] = streamPair();
  agent.attach(theirs, forwardOrigin("bastion"));
  await new Promise((resolve) => stream.once("close", resolve));
  expect(violations).toEqual(["too many clients"]);
  await agent.close();
});
