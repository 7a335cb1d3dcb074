/*
 * Keys that take a log-in of their own for each signature, on a card that loses it with any other command: who is asked, how
 * often, and who has to wait. And a card that was reset, which says so at C_Sign at the earliest.
 */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { boolAttribute, CKA } from "../../../src/cryptoki/attributes.js";
import { CKO, CKU } from "../../../src/cryptoki/constants.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { PinMode } from "../../../src/token/login.js";
import { connect as connectClient, start as startBroker } from "../../support/broker-clients.js";
import { fakeAttributes } from "../../support/fake-token-host.js";

const mechanism = { type: CKM.CKM_ECDSA, parameter: null };
const data = Buffer.from("data");

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

function start(mode: PinMode = "ask") {
  const { host, broker } = startBroker(mode);
  const always = [...fakeAttributes(CKO.CKO_PRIVATE_KEY, "always", true), boolAttribute(CKA.CKA_ALWAYS_AUTHENTICATE, true)];
  host.addObject(1n, always);
  /** A client that is logged in and has found a key. */
  async function connect(name: string, label = "always") {
    const client = connectClient(broker, name);
    const { cryptoki, ctx } = client;
    const session = await client.open();
    expect(await client.login(session, mode === "client" ? "1234" : null)).toBe(CKR.CKR_OK);
    const [key = 0n] = (await client.find(session, label)) as readonly bigint[];
    return {
      ...client,
      session,
      init: async () => (await cryptoki.call("C_SignInit", { session, mechanism, key }, ctx)).rv,
      sign: async (room: number | null = 64) => (await cryptoki.call("C_Sign", { session, data, room }, ctx)).rv,
      loginForKey: (pin: string | null = null) => client.login(session, pin, CKU.CKU_CONTEXT_SPECIFIC),
    };
  }
  return { host, broker, connect };
}

test("a client that makes no log-in for the key signs all the same: the agent makes it, once for each signature", async () => {
  const { host, connect } = start();
  const one = await connect("one");
  host.asked.length = 0;
  for (const _ of [1, 2])
    expect([await one.init(), await one.sign(null), await one.sign(1), await one.sign()]).toEqual([0, 0, CKR.CKR_BUFFER_TOO_SMALL, 0]);
  expect(host.asked).toHaveLength(2);
});

test("a client that makes the log-in itself is not asked twice for one signature", async () => {
  const { host, connect } = start();
  const one = await connect("one");
  host.asked.length = 0;
  expect([await one.init(), await one.loginForKey(), await one.loginForKey(), await one.sign()]).toEqual([0, 0, 0, 0]);
  expect(host.asked).toHaveLength(1);
});

test("such a key's C_SignInit always reaches the token, however often it has signed", async () => {
  const { host, connect } = start();
  const one = await connect("one");
  for (const _ of [1, 2, 3]) expect([await one.init(), await one.sign()]).toEqual([0, 0]);
  expect(host.calls.filter((name) => name === "C_SignInit")).toHaveLength(3);
  expect(host.pairs).toEqual([]);
});

test("clients that sign with it at once all succeed, though any other command ends the card's log-in", async () => {
  const { connect } = start();
  const clients = [await connect("one"), await connect("two"), await connect("three")];
  const answers = clients.map(async ({ init, loginForKey, sign }) => [await init(), await loginForKey(), await sign()]);
  expect(await Promise.all(answers)).toEqual(clients.map(() => [0, 0, 0]));
});

test("without the lease the fake card does lose the log-in, so the test before proves something", async () => {
  const { host, connect } = start();
  const one = await connect("one");
  expect([await one.init(), await one.loginForKey()]).toEqual([0, 0]);
  await host.cryptoki.call("C_GetTokenInfo", { slot: 1n }, one.ctx);
  expect(await one.sign()).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
});

test("a client that leaves its operation lying holds the others up for ten seconds, and is logged in anew when it goes on", async () => {
  const { host, connect } = start();
  const [one, two] = [await connect("one"), await connect("two", "secret key")];
  expect([await one.init(), await one.loginForKey()]).toEqual([0, 0]);
  host.asked.length = 0;
  const waiting = two.init();
  let isDone = false;
  void waiting.then(() => {
    isDone = true;
  });
  await vi.advanceTimersByTimeAsync(9_900);
  expect(isDone).toBe(false);
  await vi.advanceTimersByTimeAsync(200);
  expect(await waiting).toBe(CKR.CKR_OK);
  expect(await one.sign()).toBe(CKR.CKR_OK);
  expect(host.asked).toHaveLength(1);
});

test.each(["closes its session", "leaves", "finalizes"])("who waits goes on at once when the client with the operation %s", async (how) => {
  const { connect } = start();
  const [one, two] = [await connect("one"), await connect("two", "secret key")];
  await one.init();
  const waiting = two.init();
  if (how === "closes its session") await one.close(one.session);
  else if (how === "leaves") await one.cryptoki.close();
  else await one.cryptoki.call("C_Finalize", {}, one.ctx);
  expect(await waiting).toBe(CKR.CKR_OK);
});

test("a client that goes while it waits is answered at once", async () => {
  const { connect } = start();
  const [one, two] = [await connect("one"), await connect("two", "secret key")];
  await one.init();
  const waiting = two.init();
  two.leaving.abort();
  expect(await waiting).toBe(CKR.CKR_FUNCTION_CANCELED);
});

test("a handle that waited is not sent to a module that was started again meanwhile", async () => {
  const { host, connect } = start();
  const [one, two] = [await connect("one"), await connect("two", "secret key")];
  await one.init();
  const waiting = two.sign(); // no operation, so it is not repeated either
  await new Promise((resolve) => setImmediate(resolve)); // it waits now, handle in hand
  host.restart();
  await one.close(one.session);
  expect(await waiting).toBe(CKR.CKR_DEVICE_REMOVED);
});

test("a no to the key's log-in is the answer of the signature, and leaves no operation behind", async () => {
  const { host, connect } = start();
  const one = await connect("one");
  const willing = host.onUnlock;
  host.onUnlock = async () => ({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true });
  expect([await one.init(), await one.sign()]).toEqual([0, CKR.CKR_FUNCTION_CANCELED]);
  host.onUnlock = willing;
  const other = await connect("other");
  expect([await other.init(), await other.sign()]).toEqual([0, 0]);
});

test("where the client's own PIN is used, its log-in for the key is the client's business", async () => {
  const { host, connect } = start("client");
  const one = await connect("one");
  expect([await one.init(), await one.sign()]).toEqual([0, CKR.CKR_USER_NOT_LOGGED_IN]);
  expect([await one.init(), await one.loginForKey("1234"), await one.sign()]).toEqual([0, 0, 0]);
  expect(host.asked).toEqual([]);
});

test("a card that was reset between C_SignInit and C_Sign is logged in once more, and the signature made", async () => {
  const { host, connect } = start();
  const one = await connect("one", "secret key");
  host.asked.length = 0;
  expect(await one.init()).toBe(CKR.CKR_OK);
  host.refusals.set("C_Sign", CKR.CKR_USER_NOT_LOGGED_IN);
  host.endOperationsAt("C_Sign");
  host.reset(1n);
  expect(await one.sign()).toBe(CKR.CKR_OK);
  expect(host.asked).toHaveLength(1);
  expect(host.users.get(1n)).toBe(CKU.CKU_USER);
});

test("a card that was reset under a C_SignInit that is held back is logged in once more, and the signature made", async () => {
  const { host, connect } = start();
  const one = await connect("one", "secret key");
  expect([await one.init(), await one.sign(), await one.init()]).toEqual([0, 0, 0]);
  host.asked.length = 0;
  host.refusals.set("C_Sign", CKR.CKR_USER_NOT_LOGGED_IN);
  host.endOperationsAt("C_Sign");
  expect(await one.sign()).toBe(CKR.CKR_OK);
  expect(host.asked).toHaveLength(1);
});

test("a card that stays logged out after one more log-in is believed", async () => {
  const { host, connect } = start();
  const one = await connect("one", "secret key");
  host.onUnlock = async () => {
    host.refusals.set("C_SignInit", CKR.CKR_USER_NOT_LOGGED_IN);
    return { rv: CKR.CKR_OK, asked: true };
  };
  host.refusals.set("C_SignInit", CKR.CKR_USER_NOT_LOGGED_IN);
  host.asked.length = 0;
  expect(await one.init()).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  expect(host.asked).toHaveLength(1);
});

test("of several clients that hear of the reset, one is asked for", async () => {
  const { host, connect } = start();
  const clients = [await connect("one", "secret key"), await connect("two", "secret key"), await connect("three", "secret key")];
  host.reset(1n);
  host.asked.length = 0;
  expect(await Promise.all(clients.map(({ init }) => init()))).toEqual([0, 0, 0]);
  expect(host.asked).toHaveLength(1);
});

test("a token that goes while its PIN is typed does not count as unlocked, though the module said so just before", async () => {
  const { host, broker } = start();
  const one = connectClient(broker, "one");
  const session = await one.open();
  host.onUnlock = async () => {
    // Heard in this order: the news of the token overtakes the answer.
    host.swap(1n, "1234");
    return { rv: CKR.CKR_OK, asked: true };
  };
  expect(await one.login(session)).toBe(CKR.CKR_DEVICE_REMOVED);
});

test("a card that was away for a moment, so that only the module knows, is logged in again", async () => {
  const { host, connect } = start();
  const one = await connect("one", "secret key");
  host.sessions.clear();
  host.reset(1n);
  host.asked.length = 0;
  expect(await one.find(one.session, "secret key")).toHaveLength(1);
  expect(host.asked).toHaveLength(1);
});

test("a private key's handle that the module has dropped is found again", async () => {
  const { host, connect } = start();
  const one = await connect("one", "secret key");
  host.refusals.set("C_SignInit", CKR.CKR_KEY_HANDLE_INVALID);
  expect([await one.init(), await one.sign()]).toEqual([0, 0]);
  expect(host.asked).toHaveLength(2);
});

test("a client that has the token to itself and one that logs in do not wait for each other", async () => {
  const { host, connect } = start();
  const [one, two] = [await connect("one"), await connect("two", "secret key")];
  host.restart();
  // Its question is the one that the other joins, lease in hand.
  const asking = two.init();
  expect([await one.init(), await one.sign()]).toEqual([0, 0]);
  expect(await asking).toBe(CKR.CKR_OK);
});

test("nobody has the token for more than four minutes, whatever it waits for", async () => {
  const { host, connect } = start();
  const [one, two] = [await connect("one"), await connect("two", "secret key")];
  await one.init();
  host.onUnlock = () => new Promise(() => {});
  void one.sign();
  const waiting = two.init();
  await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(240_000);
  expect(await waiting).toBe(CKR.CKR_OK);
});
