/* The number that says whether a snapshot still holds, and what makes it change. */
import { expect, test } from "vitest";
import { watchClient } from "../../../src/agent/client-watch.js";
import { createEpochClock } from "../../../src/agent/snapshot-epoch.js";
import type { CallName } from "../../../src/cryptoki/calls.js";
import { CKU } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { AnyArgs, CallArgs } from "../../../src/cryptoki/types.js";
import { createRecordingCryptoki, TEST_ORIGIN } from "../../support/wire-peers.js";

test("a change of one client's sight moves its own number alone, a change of the token everybody's", () => {
  const clock = createEpochClock();
  const [one, two] = [clock.createClient(), clock.createClient()];
  const start = one.value;
  expect(two.value).toBe(start);
  one.changed();
  expect([one.value > start, two.value]).toEqual([true, start]);
  clock.changed();
  expect(one.value).toBe(two.value);
  // Never a number that was there before, whoever had it.
  expect(two.value).toBeGreaterThan(start + 1);
});

test("a client is told of its own changes and of the token's, until it stops", () => {
  const clock = createEpochClock();
  const [one, two] = [clock.createClient(), clock.createClient()];
  const told: (readonly [number, string])[] = [];
  const stop = one.onChange((value, whose) => told.push([value - start, whose]));
  const start = one.value;
  one.changed();
  two.changed();
  clock.changed();
  stop();
  clock.changed();
  one.changed();
  expect(told).toEqual([
    [1, "own"],
    [3, "shared"],
  ]);
});

function watched(answers: Parameters<typeof createRecordingCryptoki>[0] = {}) {
  let next = 1n;
  let logins = 0;
  let mutations = 0;
  const inner = createRecordingCryptoki({ C_OpenSession: () => ({ rv: CKR.CKR_OK, session: next++ }), ...answers });
  const watch = watchClient(inner, { onLogin: () => logins++, onMutation: () => mutations++ });
  const ctx = { client: "c1", origin: TEST_ORIGIN, signal: new AbortController().signal };
  const call = (name: CallName, args: AnyArgs = {}) => watch.call(name, args as CallArgs, ctx);
  const open = async (slot: bigint) => ((await call("C_OpenSession", { slot, flags: 4n })) as { session: bigint }).session;
  const login = (session: bigint, userType: bigint = CKU.CKU_USER) => call("C_Login", { session, userType, pin: null });
  return { watch, call, open, login, logins: () => logins, mutations: () => mutations };
}

test("a log-in lasts until the client logs out, or until its last session on that slot is closed", async () => {
  const { watch, call, open, login, logins } = watched();
  const [one, two, other] = [await open(1n), await open(1n), await open(2n)];
  await login(one);
  await login(other);
  expect(watch.loggedIn()).toEqual([1n, 2n]);
  await call("C_CloseSession", { session: one });
  expect(watch.loggedIn()).toEqual([1n, 2n]);
  await call("C_CloseSession", { session: two });
  expect(watch.loggedIn()).toEqual([2n]);
  await call("C_Logout", { session: other });
  expect(watch.loggedIn()).toEqual([]);
  expect(logins()).toBe(4);
  for (const end of ["C_CloseAllSessions", "C_Finalize"] as const) {
    await login(await open(2n));
    await call(end, { slot: 2n });
    expect(watch.loggedIn()).toEqual([]);
  }
});

test("the log-in for one operation is none, and one that the token has lost ends where that is found out", async () => {
  const { watch, call, open, login } = watched({ C_SignInit: () => ({ rv: CKR.CKR_USER_NOT_LOGGED_IN }) });
  const session = await open(1n);
  await login(session, CKU.CKU_CONTEXT_SPECIFIC);
  expect(watch.loggedIn()).toEqual([]);
  await login(session);
  await call("C_SignInit", { session, mechanism: null, key: 1n });
  expect(watch.loggedIn()).toEqual([]);
});

test("whatever may have changed the token is told, and nothing else", async () => {
  const { call, open, mutations } = watched({ C_DestroyObject: () => ({ rv: CKR.CKR_DEVICE_ERROR }) });
  const session = await open(1n);
  await call("C_SignInit", { session, mechanism: null, key: 1n });
  expect(mutations()).toBe(0);
  await call("C_CreateObject", { session, template: [] });
  await call("C_DestroyObject", { session, object: 1n });
  expect(mutations()).toBe(2);
});
