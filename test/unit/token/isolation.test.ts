/*
 * What one client's sessions, objects and slots may never do to another's, where the module does not play along.
 */
import { expect, test } from "vitest";
import { bytesAttribute, CKA } from "../../../src/cryptoki/attributes.js";
import { CKF, CKO } from "../../../src/cryptoki/constants.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import { connect, everything, label, start } from "../../support/broker-clients.js";
import { fakeAttributes } from "../../support/fake-token-host.js";

test("a session object whose session was closed is dead, also when the module gives its handle to another client's object", async () => {
  const { broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [short, long, other] = [await one.open(), await one.open(), await two.open()];
  const mine = await one.create(short, "mine");
  await one.close(short);
  const theirs = await two.create(other, "mine");
  expect(await one.destroy(long, mine)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
  expect(await one.find(long, "mine")).toEqual([]);
  expect(await two.find(other, "mine")).toEqual([theirs]);
});

test("a destroyed object is dead, also when the module gives its handle to another client's object", async () => {
  const { broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [session, other] = [await one.open(), await two.open()];
  const mine = await one.create(session, "mine");
  expect(await one.destroy(session, mine)).toBe(CKR.CKR_OK);
  await two.create(other, "theirs");
  expect(await one.destroy(session, mine)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
});

test("after a restart a log-out through a session of before does not touch whoever has that number now", async () => {
  const { host, broker } = start("client");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const [stale, live] = [await one.open(), await one.open()];
  expect(await one.login(live, "1234")).toBe(CKR.CKR_OK);
  host.restart();
  // The new process gives the first number to the other client, on another token.
  const other = await two.open(2n);
  expect(await two.login(other, "5678")).toBe(CKR.CKR_OK);
  expect(await one.find(live, "secret key")).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
  expect(await one.login(live, "1234")).toBe(CKR.CKR_OK);
  expect(await one.logout(stale)).toBe(CKR.CKR_OK);
  expect([...host.users.keys()]).toEqual([2n]);
});

test("a slot that a client may not see is no event for it, and does not exist", async () => {
  const { broker } = start("ask");
  const one = connect(broker, "one", { visibility: { ...everything, slot: (slot) => slot === 1n } });
  expect((await one.cryptoki.call("C_WaitForSlotEvent", { flags: CKF.CKF_DONT_BLOCK }, one.ctx)).rv).toBe(CKR.CKR_NO_EVENT);
  expect((await one.cryptoki.call("C_OpenSession", { slot: 2n, flags: 4n }, one.ctx)).rv).toBe(CKR.CKR_SLOT_ID_INVALID);
  expect((await one.cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: 9 }, one.ctx)).slots).toEqual([1n]);
  const two = connect(broker, "two");
  expect((await two.cryptoki.call("C_WaitForSlotEvent", { flags: CKF.CKF_DONT_BLOCK }, two.ctx)).slot).toBe(2n);
});

test("a handle hidden in a mechanism parameter does not reach the module", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one");
  const mechanism = { type: CKM.CKM_IBM_ATTRIBUTEBOUND_WRAP, parameter: { kind: "ibm", fields: [1n] } } as const;
  const args = { session: await one.open(), mechanism, wrappingKey: 0n, key: 0n, room: 64 };
  expect((await one.cryptoki.call("C_WrapKey", args, one.ctx)).rv).toBe(CKR.CKR_MECHANISM_PARAM_INVALID);
  expect(host.calls).not.toContain("C_WrapKey");
});

test("the length and the value of one attribute may be asked together with one that may not be read", async () => {
  const { broker } = start("ask");
  const one = connect(broker, "one", { visibility: { ...everything, attribute: (_, type) => type !== CKA.CKA_VALUE } });
  const session = await one.open();
  const object = await one.create(session, "mine");
  const query = [
    { type: CKA.CKA_LABEL, room: 9 },
    { type: CKA.CKA_VALUE, room: 9 },
    { type: CKA.CKA_LABEL, room: null },
  ];
  const { rv, attributes } = await one.cryptoki.call("C_GetAttributeValue", { session, object, query }, one.ctx);
  expect(rv).toBe(CKR.CKR_ATTRIBUTE_SENSITIVE);
  expect(attributes?.map(({ value, length }) => [value?.toString() ?? null, length])).toEqual([
    ["mine", 4],
    [null, -1],
    [null, 4],
  ]);
});

test("an object of one slot is none in a session of another, and a hidden one is none at all", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one", { visibility: { ...everything, object: ({ label: text }) => text.toString() !== "hidden" } });
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "hidden", false));
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "shown", false));
  const [session, elsewhere] = [await one.open(1n), await one.open(2n)];
  expect(await one.find(session, "hidden")).toEqual([]);
  const [shown = 0n] = (await one.find(session, "shown")) as readonly bigint[];
  expect(await one.destroy(elsewhere, shown)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
  // Not the module's own numbers either.
  for (const real of [1n, 2n, 3n]) expect(await one.destroy(session, real)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
});

test("what becomes hidden while a handle to it is held is no longer usable", async () => {
  const { host, broker } = start("ask");
  let shows = true;
  const one = connect(broker, "one", { visibility: { ...everything, object: () => shows } });
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "shown", false));
  const session = await one.open();
  const [object = 0n] = (await one.find(session, "shown")) as readonly bigint[];
  shows = false;
  expect(await one.destroy(session, object)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
});

test("a handle stands for the same object after a restart that numbers the objects anew", async () => {
  const { host, broker } = start("ask");
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "a", false));
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "b", false));
  const one = connect(broker, "one");
  const session = await one.open();
  const [object = 0n] = (await one.find(session, "b")) as readonly bigint[];
  host.restart();
  const query = [{ type: CKA.CKA_LABEL, room: 9 }];
  const { attributes } = await one.cryptoki.call("C_GetAttributeValue", { session, object, query }, one.ctx);
  expect(attributes?.[0]?.value?.toString()).toBe("b");
  const before = await one.find(session, "a");
  expect(before).toHaveLength(1);
  expect(before).not.toEqual([object]);
});

test("a handle whose identity two objects have by now is nobody's", async () => {
  const { host, broker } = start("ask");
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "twin", false));
  const one = connect(broker, "one");
  const session = await one.open();
  const [object = 0n] = (await one.find(session, "twin")) as readonly bigint[];
  host.addObject(1n, fakeAttributes(CKO.CKO_DATA, "twin", false));
  host.restart();
  expect(await one.destroy(session, object)).toBe(CKR.CKR_OBJECT_HANDLE_INVALID);
});

test("an object that the module calls neither private nor public is private, and one that it calls no token object is hidden", async () => {
  const { host, broker } = start("ask");
  const without = (type: number) => fakeAttributes(CKO.CKO_DATA, "odd", false).filter((attribute) => attribute.type !== type);
  host.addObject(1n, without(CKA.CKA_PRIVATE));
  const one = connect(broker, "one");
  const session = await one.open();
  expect(await one.find(session, "odd")).toEqual([]);
  await one.login(session);
  expect(await one.find(session, "odd")).toHaveLength(1);
});

test("closing a session of before a restart does not close whoever has its number now", async () => {
  const { host, broker } = start("ask");
  const [one, two] = [connect(broker, "one"), connect(broker, "two")];
  const stale = await one.open();
  host.restart();
  await two.open();
  await one.close(stale);
  expect(host.sessions.size).toBe(1);
});

test("a call that was sent after the close of its session finds none, and a client has so many sessions and no more", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one");
  const session = await one.open();
  const [, { rv }] = await Promise.all([one.close(session), one.cryptoki.call("C_GetSessionInfo", { session }, one.ctx)]);
  expect(rv).toBe(CKR.CKR_SESSION_HANDLE_INVALID);
  await Promise.all(Array.from({ length: 256 }, () => one.open()));
  expect((await one.cryptoki.call("C_OpenSession", { slot: 1n, flags: 4n }, one.ctx)).rv).toBe(CKR.CKR_SESSION_COUNT);
  expect(host.sessions.size).toBe(256);
});

test("an operation whose session the card lost is not begun again behind the client's back", async () => {
  const { host, broker } = start("ask");
  const one = connect(broker, "one");
  const session = await one.open();
  host.sessions.clear();
  expect((await one.cryptoki.call("C_Sign", { session, data: Buffer.from("x"), room: 64 }, one.ctx)).rv).toBe(CKR.CKR_DEVICE_REMOVED);
  expect(host.calls.filter((name) => name === "C_Sign")).toHaveLength(1);
});

test("a search by the true value of what may not be read finds nothing", async () => {
  const { host, broker } = start("ask");
  const value = bytesAttribute(CKA.CKA_VALUE, Buffer.from("the secret"));
  host.addObject(1n, [...fakeAttributes(CKO.CKO_DATA, "vault", false), value]);
  const found = async (client: ReturnType<typeof connect>) => {
    const session = await client.open();
    await client.cryptoki.call("C_FindObjectsInit", { session, template: [label("vault"), value] }, client.ctx);
    return ((await client.cryptoki.call("C_FindObjects", { session, room: 9 }, client.ctx)).objects as readonly bigint[]).length;
  };
  expect(await found(connect(broker, "one", { visibility: { ...everything, attribute: (_, type) => type !== CKA.CKA_VALUE } }))).toBe(0);
  expect(await found(connect(broker, "two"))).toBe(1);
});
