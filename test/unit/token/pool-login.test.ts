/*
 * Log-ins over a pool of hosts: the first asks and knows who is unlocked, the others follow it; and the pipe on which a PIN is lent.
 */
import { once } from "node:events";
import { expect, test } from "vitest";
import { CKO } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import { createTokenBroker } from "../../../src/token/broker.js";
import { createPinBorrower, lendOver } from "../../../src/token/host/pin-link.js";
import { connect } from "../../support/broker-clients.js";
import { createFakeTokenHost, fakeAttributes } from "../../support/fake-token-host.js";
import { streamPair } from "../../support/stream-pair.js";

const TOKEN = { slot: 1n, identity: "serial/label" };
const PIN = "1234";

/** Two hosts of one module; the second client that connects is on the second. */
function pool() {
  const [first, second] = [createFakeTokenHost({ 1: PIN }), createFakeTokenHost({ 1: PIN })];
  for (const host of [first, second]) host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "secret key", true));
  return { first, second, broker: createTokenBroker(Object.assign(first, { others: [second] }), "ask") };
}

test("a client of another host is asked for at the first, whose log-in comes before its own", async () => {
  const { first, second, broker } = pool();
  connect(broker, "one");
  const two = connect(broker, "two");
  const session = await two.open();
  first.onUnlock = async () => ({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" });
  expect(await two.login(session)).toBe(CKR.CKR_FUNCTION_CANCELED);
  expect([first.asked.length, second.asked.length, second.tries]).toEqual([1, 0, 0]);
});

test("a second destination on another host needs the yes that it would need on the first", async () => {
  const { first, second, broker } = pool();
  const [one, two] = [connect(broker, "one", { destination: "a" }), connect(broker, "two", { destination: "b" })];
  const [sessionOne, sessionTwo] = [await one.open(), await two.open()];
  expect(await one.login(sessionOne)).toBe(CKR.CKR_OK);
  first.onConfirm = async () => false;
  expect(await two.login(sessionTwo)).toBe(CKR.CKR_FUNCTION_REJECTED);
  expect([first.asked.at(-1), second.asked]).toEqual(["let ops@b use the token as well?", []]);
});

test("clients of another host that log in at once make one log-in there", async () => {
  const { second, broker } = pool();
  const clients = Array.from({ length: 6 }, (_, index) => connect(broker, `c${index}`));
  const sessions = await Promise.all(clients.map((client) => client.open()));
  const answers = await Promise.all(clients.map((client, index) => client.login(sessions[index] ?? 0n)));
  expect(new Set(answers)).toEqual(new Set([CKR.CKR_OK]));
  expect(second.asked).toHaveLength(1);
});

test("a token that is pulled from under the first host closes it for the clients of the others, until it is unlocked again", async () => {
  const { first, broker } = pool();
  connect(broker, "one");
  const two = connect(broker, "two");
  const session = await two.open();
  expect(await two.login(session)).toBe(CKR.CKR_OK);
  expect(await two.find(session, "secret key")).toHaveLength(1);
  first.swap(1n, PIN);
  first.onUnlock = async () => ({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" });
  expect(await two.find(session, "secret key")).toBe(CKR.CKR_FUNCTION_CANCELED);
});

test("a PIN is lent once it is asked for, its outcome is told, and the borrower's copy is wiped", async () => {
  const [lender, borrower] = streamPair();
  const outcomes: boolean[] = [];
  lendOver(lender, async (token, use) => void outcomes.push(await use(token.identity === TOKEN.identity ? Buffer.from(PIN) : null)));
  const { borrow } = createPinBorrower(borrower);
  const seen: (Buffer | null)[] = [];
  for (const refused of [false, true]) {
    await borrow(TOKEN, (pin) => {
      expect(pin?.toString()).toBe(PIN);
      seen.push(pin);
      return refused;
    });
  }
  await borrow({ ...TOKEN, identity: "another" }, (pin) => seen.push(pin) === 0);
  expect(seen.map((pin) => pin?.every((byte) => byte === 0) ?? null)).toEqual([true, true, null]);
  expect(outcomes).toEqual([false, true, false]);
});

test("a borrower that ends with a PIN in its hands counts as refused, and one that ends before its turn as given nothing", async () => {
  const waiting: (() => Promise<boolean>)[] = [];
  const lend = async (_token: unknown, use: (pin: Buffer | null) => Promise<boolean>) => void waiting.push(() => use(Buffer.from(PIN)));
  const [lender, borrower] = streamPair();
  lendOver(lender, lend);
  const asked = once(lender, "data");
  void createPinBorrower(borrower).borrow(TOKEN, () => false);
  await asked;
  borrower.removeAllListeners("data");
  const outcome = waiting[0]?.();
  borrower.destroy();
  expect(await outcome).toBe(true);
  expect(await waiting[0]?.()).toBe(false);
});

test("without a lender there is no PIN", async () => {
  const [lender, borrower] = streamPair();
  const { borrow } = createPinBorrower(borrower);
  lender.destroy();
  let given: Buffer | null | undefined;
  await borrow(TOKEN, (pin) => {
    given = pin;
    return false;
  });
  expect(given).toBeNull();
});
