/*
 * What a client can reach of the sessions in which the agent signs for it: nothing, whatever handles it guesses, while both
 * have one sign each.
 */
import { expect, test } from "vitest";
import { createRpcSession } from "../../../src/agent/rpc-session.js";
import { createSessionFence } from "../../../src/agent/session-fence.js";
import { createEpochClock } from "../../../src/agent/snapshot-epoch.js";
import { createEmitter } from "../../../src/base/events.js";
import type { CallName } from "../../../src/cryptoki/calls.js";
import { CKF, CKO } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { AnyResult, CallArgs, Cryptoki } from "../../../src/cryptoki/types.js";
import { createTokenBroker } from "../../../src/token/broker.js";
import { encodeFrame } from "../../../src/wire/rpc/codec.js";
import { MAGIC } from "../../../src/wire/rpc/messages.js";
import { createFakeTokenHost, fakeAttributes, forwardOrigin } from "../../support/fake-token-host.js";
import { createRecordingCryptoki, TEST_ORIGIN } from "../../support/wire-peers.js";

const ctx = { client: "c1", origin: TEST_ORIGIN, signal: new AbortController().signal };

function fenced() {
  const handles = [5n, 6n, 5n];
  const inner = createRecordingCryptoki({ C_OpenSession: () => ({ rv: CKR.CKR_OK, session: handles.shift() ?? 0n }) });
  const { own, client } = createSessionFence(inner);
  const on = (side: Cryptoki) => async (name: CallName, args: object) => await side.call(name, args as CallArgs, ctx);
  return { inner, own: on(own), client: on(client) };
}

test("a session of the agent's is none for the client, for any call, and its own ones are", async () => {
  const { inner, own, client } = fenced();
  await own("C_OpenSession", { slot: 1n, flags: 4n });
  await client("C_OpenSession", { slot: 1n, flags: 4n });
  const names = ["C_SignInit", "C_Sign", "C_CloseSession", "C_GetSessionInfo", "C_Login", "C_SessionCancel"] as const;
  for (const name of names) expect((await client(name, { session: 5n })).rv).toBe(CKR.CKR_SESSION_HANDLE_INVALID);
  for (const name of names) expect((await client(name, { session: 6n })).rv).toBe(CKR.CKR_OK);
  expect(inner.calls.filter(({ args }) => args["session"] === 5n)).toEqual([]);
});

test.each(["own", "client"] as const)(
  "a handle that the agent gave back is the client's when it is given to it again (%s closed it)",
  async (who) => {
    const sides = fenced();
    await sides.own("C_OpenSession", { slot: 1n, flags: 4n });
    await sides.own("C_OpenSession", { slot: 1n, flags: 4n });
    if (who === "own") await sides.own("C_CloseSession", { session: 5n });
    else await sides.client("C_CloseAllSessions", { slot: 1n });
    await sides.client("C_OpenSession", { slot: 1n, flags: 4n });
    expect((await sides.client("C_GetSessionInfo", { session: 5n })).rv).toBe(CKR.CKR_OK);
  },
);

test("a client that knows the session in which its signature waits for the PIN can do nothing in it", async () => {
  const host = createFakeTokenHost({ 1: "1234" });
  host.flags = CKF.CKF_TOKEN_INITIALIZED | CKF.CKF_LOGIN_REQUIRED;
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "the key", true));
  const all = { slot: () => true, object: () => true, attribute: () => true };
  const inner = createTokenBroker(host, "ask").createClient("c1", all);
  const opened: bigint[] = [];
  const cryptoki: Cryptoki = {
    ...inner,
    async call(name, args, context) {
      const answer = await inner.call(name, args, context);
      if (name === "C_OpenSession") opened.push((answer as AnyResult)["session"] as bigint);
      return answer;
    },
  };
  const asked = new Promise<() => void>((open) => {
    host.onUnlock = () =>
      new Promise((resolve) => open(() => resolve({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" })));
  });
  const answers = createEmitter<{ answer: { readonly bytes: Buffer } }>();
  const session = createRpcSession({
    cryptoki,
    client: "c1",
    origin: forwardOrigin("bastion"),
    profile: "sign",
    pinMode: "ask",
    line: { write: (bytes) => answers.emit("answer", { bytes }), full: () => null, violate: () => {}, greeted: () => {} },
    counters: { bytesIn: 0, bytesOut: 0 },
    loggedIn: () => [],
    epoch: createEpochClock().createClient(),
    slotEvents: createEmitter(),
    touches: createEmitter(),
    describe: {},
    onRefused: () => undefined,
    onSigning: () => () => undefined,
    onHello: () => {},
  });
  const frames = (...messages: readonly object[]) => Buffer.concat(messages.map((each) => Buffer.from(encodeFrame({ ...each }))));
  const key = { uri: "pkcs11:object=the%20key;type=private" };
  const sign = { type: "sign", id: 2, key, data: Buffer.from("data") };
  session.push(Buffer.concat([MAGIC, frames({ type: "hello", id: 1, versions: [1] }, sign)]));
  const cancel = await asked;
  expect(opened.length).toBeGreaterThan(0);
  const answered = new Promise<Buffer>((resolve) => answers.on("answer", ({ bytes }) => resolve(bytes)));
  session.push(
    frames(
      ...opened.map((handle, index) => ({ type: "call", id: 10 + index, call: "C_GetSessionInfo", args: { session: Number(handle) } })),
    ),
  );
  const refused = opened.map((_, index) => ({ type: "result", id: 10 + index, rv: CKR.CKR_SESSION_HANDLE_INVALID, outs: {} }));
  expect(await answered).toEqual(frames(...refused));
  cancel();
  session.end();
  await session.idle;
  await inner.close();
});
