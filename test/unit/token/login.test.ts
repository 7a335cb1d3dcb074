/*
 * Who counts as logged in, who is asked, and which tries a PIN may cost: two modes, several clients and destinations.
 */
import { expect, test, vi } from "vitest";
import { CKF, CKO, CKU } from "../../../src/cryptoki/constants.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import { destinationKey } from "../../../src/token/origins.js";
import { connect, start } from "../../support/broker-clients.js";
import { fakeAttributes, forwardOrigin } from "../../support/fake-token-host.js";

test("after a restart a client whose own PIN it takes is logged out, and may log in again", async () => {
  const { host, broker } = start("client");
  const one = connect(broker, "one");
  const session = await one.open();
  await one.login(session, "1234");
  host.restart();
  expect(await one.find(session, "secret key")).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  expect(await one.login(session, "1234")).toBe(CKR.CKR_OK);
  expect(await one.find(session, "secret key")).toHaveLength(1);
});

test("a client that knew one token's PIN is not logged in to the next one by another client's log-in", async () => {
  const { host, broker } = start("client");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  await one.login(sessionOne, "1234");
  host.swap(1n, "9999");
  expect(await two.login(sessionTwo, "9999")).toBe(CKR.CKR_OK);
  expect(await one.find(sessionOne, "secret key")).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  expect(await one.login(sessionOne, "1234")).toBe(CKR.CKR_PIN_INCORRECT);
});

test("a token that was pulled and unlocked again by one destination needs a yes for the other that had it before", async () => {
  const { host, broker } = start("ask");
  const [one, two] = [connect(broker, "one", { destination: "a" }), connect(broker, "two", { destination: "b" })];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  expect(await one.login(sessionOne)).toBe(CKR.CKR_OK);
  host.swap(1n, "9999");
  expect(await two.login(sessionTwo)).toBe(CKR.CKR_OK);
  host.onConfirm = async () => false;
  expect(await one.find(sessionOne, "secret key")).toBe(CKR.CKR_FUNCTION_REJECTED);
  expect(host.asked.at(-1)).toBe("let ops@a use the token as well?");
});

test("a log-in that the module has lost without a word is made again before a client is told that it is in", async () => {
  const { host, broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  expect(await one.login(await one.open())).toBe(CKR.CKR_OK);
  host.reset(1n);
  const session = await two.open();
  expect(await two.login(session)).toBe(CKR.CKR_OK);
  expect(await two.find(session, "secret key")).toHaveLength(1);
  expect(host.asked).toHaveLength(2);
});

test("two destinations that look alike in the question are two: the second needs a yes of its own", async () => {
  const { host, broker } = start("ask");
  const [one, two] = [connect(broker, "one", { port: 22 }), connect(broker, "two", { port: 2222 })];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  host.onConfirm = async () => false;
  expect(await Promise.all([one.login(sessionOne), two.login(sessionTwo)])).toEqual([CKR.CKR_OK, CKR.CKR_FUNCTION_REJECTED]);
});

test("clients that log in with the PIN at once all succeed, and the token sees it once", async () => {
  const { host, broker } = start("client");
  const clients = Array.from({ length: 8 }, (_, index) => connect(broker, `c${index}`));
  const sessions = await Promise.all(clients.map((client) => client.open()));
  const answers = await Promise.all(clients.map((client, index) => client.login(sessions[index] ?? 0n, "1234")));
  expect(new Set(answers)).toEqual(new Set([CKR.CKR_OK]));
  expect(host.tries).toBe(1);
});

test("wrong PINs sent at once spend no more tries than the destination has", async () => {
  const { host, broker } = start("client");
  host.onConfirm = async () => false;
  const clients = Array.from({ length: 8 }, (_, index) => connect(broker, `c${index}`));
  const sessions = await Promise.all(clients.map((client) => client.open()));
  const answers = await Promise.all(clients.map((client, index) => client.login(sessions[index] ?? 0n, "0000")));
  expect(answers.filter((rv) => rv === CKR.CKR_PIN_INCORRECT)).toHaveLength(3);
  expect(answers.filter((rv) => rv === CKR.CKR_FUNCTION_REJECTED)).toHaveLength(5);
  expect(host.tries).toBe(3);
  // One question, whoever waited for its answer.
  expect(host.asked).toEqual(["ops@bastion has sent 3 wrong PINs; let it try again?"]);
  const elsewhere = connect(broker, "elsewhere", { destination: "other" });
  expect(await elsewhere.login(await elsewhere.open(), "1234")).toBe(CKR.CKR_OK);
});

test("wrong PINs in C_SetPIN and in a key's own log-in are counted as well", async () => {
  const { host, broker } = start("client");
  host.onConfirm = async () => false;
  const one = connect(broker, "one");
  const session = await one.open();
  await one.login(session, "1234");
  const pins = { oldPin: Buffer.from("0000"), newPin: Buffer.from("1111") };
  expect((await one.cryptoki.call("C_SetPIN", { session, ...pins }, one.ctx)).rv).toBe(CKR.CKR_PIN_INCORRECT);
  expect(await one.login(session, "0000", CKU.CKU_CONTEXT_SPECIFIC)).toBe(CKR.CKR_PIN_INCORRECT);
  expect(await one.login(session, "0000", CKU.CKU_CONTEXT_SPECIFIC)).toBe(CKR.CKR_PIN_INCORRECT);
  expect((await one.cryptoki.call("C_SetPIN", { session, ...pins }, one.ctx)).rv).toBe(CKR.CKR_FUNCTION_REJECTED);
  expect(host.tries).toBe(4);
});

test.each([
  [CKU.CKU_USER, CKF.CKF_USER_PIN_FINAL_TRY],
  [CKU.CKU_SO, CKF.CKF_SO_PIN_FINAL_TRY],
])("with client PINs the last try of user type %s needs a yes", async (userType, flag) => {
  const { host, broker } = start("client");
  host.flags |= flag;
  host.onConfirm = async () => false;
  const one = connect(broker, "one");
  const { session = 0n } = await one.cryptoki.call("C_OpenSession", { slot: 1n, flags: 6n }, one.ctx);
  expect(await one.login(session, "1234", userType)).toBe(CKR.CKR_FUNCTION_REJECTED);
  expect(host.tries).toBe(0);
  host.onConfirm = async () => true;
  const two = connect(broker, "two");
  await one.close(session);
  const { session: other = 0n } = await two.cryptoki.call("C_OpenSession", { slot: 1n, flags: 6n }, two.ctx);
  expect(await two.login(other, "1234", userType)).toBe(CKR.CKR_OK);
});

test.each([
  ["a no", CKR.CKR_FUNCTION_REJECTED, 1],
  ["a cancel", CKR.CKR_FUNCTION_CANCELED, 1],
  ["a token that is not there", CKR.CKR_TOKEN_NOT_PRESENT, 2],
])("%s is answered to the same client's C_Login, %i, after so many questions", async (_what, rv, questions) => {
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    const { host, broker } = start("ask");
    const one = connect(broker, "one");
    host.onUnlock = async () => ({ rv, asked: true });
    expect(await one.login(await one.open())).toBe(rv);
    // A new start of the program on the same connection is the same client.
    await one.cryptoki.call("C_Finalize", {}, one.ctx);
    expect(await one.login(await one.open())).toBe(rv);
    expect(host.asked).toHaveLength(questions);
    vi.advanceTimersByTime(10_001);
    await one.login(await one.open());
    expect(host.asked).toHaveLength(questions + 1);
  } finally {
    vi.useRealTimers();
  }
});

test("a no to a key's own log-in is remembered too, and leaves what needs no log-in alone", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one");
  const session = await one.open();
  await one.login(session);
  host.onUnlock = async () => ({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true });
  for (const _ of [1, 2]) expect(await one.login(session, null, CKU.CKU_CONTEXT_SPECIFIC)).toBe(CKR.CKR_FUNCTION_CANCELED);
  expect(host.asked).toHaveLength(2);
  expect(await one.find(session, "secret key")).toHaveLength(1);
});

test("after a restart a cancelled question is not put again at each call, and a later one makes the log-in good", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    const { host, broker } = start("ask");
    const one = connect(broker, "one");
    const session = await one.open();
    await one.login(session);
    const willing = host.onUnlock;
    host.onUnlock = async () => ({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true });
    host.restart();
    for (const _ of [1, 2, 3]) expect(await one.find(session, "secret key")).toBe(CKR.CKR_FUNCTION_CANCELED);
    expect(host.asked).toHaveLength(2);
    host.onUnlock = willing;
    vi.advanceTimersByTime(10_001);
    expect(await one.find(session, "secret key")).toHaveLength(1);
  } finally {
    vi.useRealTimers();
  }
});

test("a client that leaves while its question is open is answered at once, and the next one is asked anew", async () => {
  const { host, broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  const willing = host.onUnlock;
  const ended = new Promise<void>((resolve) => {
    // A person who never answers, and a terminal that takes its time to give the question up.
    host.onUnlock = (_request, signal) =>
      new Promise(() => {
        signal.addEventListener("abort", () => resolve());
      });
  });
  const first = one.login(sessionOne);
  await vi.waitFor(() => expect(host.asked).toHaveLength(1));
  one.leaving.abort();
  expect(await first).toBe(CKR.CKR_FUNCTION_CANCELED);
  await ended;
  host.onUnlock = willing;
  expect(await two.login(sessionTwo)).toBe(CKR.CKR_OK);
});

test("the security officer's log-in, which a workstation cannot be asked for, leaves the unlocked token alone", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one");
  const session = await one.open();
  await one.login(session);
  await one.logout(session);
  expect(await one.login(session, "so", CKU.CKU_SO)).toBe(CKR.CKR_FUNCTION_NOT_SUPPORTED);
  expect(host.calls).not.toContain("lock");
  expect(host.users.get(1n)).toBe(CKU.CKU_USER);
});

test("every real session is given back, whatever the log-in of its client has come to", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one");
  const session = await one.open();
  await one.login(session);
  host.onUnlock = async () => ({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true });
  host.restart();
  await one.open();
  await one.find(session, "secret key");
  await one.cryptoki.close();
  // What is left is the desk's own, which keeps the token logged in.
  expect(host.sessions.size).toBeLessThanOrEqual(1);
});

test("a private object is none for a client that is not logged in, by search or by a handle it had", async () => {
  const { broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [session, other] = [await one.open(), await two.open()];
  await one.login(session);
  const [key = 0n] = (await one.find(session, "secret key")) as readonly bigint[];
  expect(await two.find(other, "secret key")).toEqual([]);
  await one.logout(session);
  expect(await one.destroy(session, key)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
});

test("the calls that carry a PIN are none where the workstation is asked, and InitPIN is the security officer's", async () => {
  const asking = start("ask");
  const one = connect(asking.broker, "one");
  const pin = Buffer.from("1234");
  const init = { slot: 1n, pin, label: Buffer.alloc(32, " ") };
  expect((await one.cryptoki.call("C_InitToken", init, one.ctx)).rv).toBe(CKR.CKR_FUNCTION_NOT_SUPPORTED);
  const session = await one.open();
  expect((await one.cryptoki.call("C_InitPIN", { session, pin }, one.ctx)).rv).toBe(CKR.CKR_FUNCTION_NOT_SUPPORTED);
  expect((await one.cryptoki.call("C_SetPIN", { session, oldPin: pin, newPin: pin }, one.ctx)).rv).toBe(CKR.CKR_FUNCTION_NOT_SUPPORTED);
  expect(asking.host.calls.filter((name) => /PIN|InitToken/.test(name))).toEqual([]);
  const two = connect(start("client").broker, "two");
  const other = await two.open();
  await two.login(other, "1234");
  expect((await two.cryptoki.call("C_InitPIN", { session: other, pin }, two.ctx)).rv).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
});

test("a key's own log-in is for a client that is logged in, and only one user type is in at a time", async () => {
  const { host, broker } = start("client");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const { session = 0n } = await one.cryptoki.call("C_OpenSession", { slot: 1n, flags: 6n }, one.ctx);
  expect(await one.login(session, "1234", CKU.CKU_CONTEXT_SPECIFIC)).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  expect(host.tries).toBe(0);
  expect(await one.login(session, "1234", CKU.CKU_SO)).toBe(CKR.CKR_OK);
  const other = await two.open();
  expect(await two.login(other, "1234")).toBe(CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
});

test("the log-out of one client leaves the other that knew the PIN logged in, and the last one's logs the token out", async () => {
  const { host, broker } = start("client");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [session, other] = [await one.open(), await two.open()];
  await one.login(session, "1234");
  await two.login(other, "1234");
  await one.logout(session);
  expect(await two.find(other, "secret key")).toHaveLength(1);
  await two.close(other);
  expect(host.users.size).toBe(0);
});

test("a module that was left logged in checks the next PIN all the same", async () => {
  const { host, broker } = start("client");
  const one = connect(broker, "one");
  const session = await one.open();
  host.users.set(1n, CKU.CKU_USER);
  expect(await one.login(session, "0000")).toBe(CKR.CKR_PIN_INCORRECT);
  host.users.set(1n, CKU.CKU_USER);
  expect(await one.login(session, "1234")).toBe(CKR.CKR_OK);
});

test("after a restart each client shows its own PIN again", async () => {
  const { host, broker } = start("client");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [session, other] = [await one.open(), await two.open()];
  await one.login(session, "1234");
  await two.login(other, "1234");
  host.restart();
  expect(await one.find(session, "secret key")).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  expect(await one.login(session, "1234")).toBe(CKR.CKR_OK);
  expect(await two.find(other, "secret key")).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
});

test("a client that is not logged in makes no private half of a pair while another is", async () => {
  const { host, broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  await one.login(await one.open());
  const session = await two.open();
  const half = (isPrivate: boolean) => fakeAttributes(CKO.CKO_PUBLIC_KEY, "pair", isPrivate);
  for (const [publicTemplate, privateTemplate] of [
    [half(true), half(false)],
    [half(false), half(true)],
  ] as const) {
    const args = { session, mechanism: { type: CKM.CKM_EC_KEY_PAIR_GEN, parameter: null }, publicTemplate, privateTemplate };
    expect((await two.cryptoki.call("C_GenerateKeyPair", args, two.ctx)).rv).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  }
  expect(host.calls).not.toContain("C_GenerateKeyPair");
});

test("another host key is another destination", () => {
  const origin = forwardOrigin("bastion");
  expect(destinationKey({ ...origin, hostKeySha256: "SHA256:y" })).not.toBe(destinationKey(origin));
  expect(destinationKey({ ...origin, connectId: "2" })).toBe(destinationKey(origin));
});
