/*
 * C_SignInit held back and sent with C_Sign: when it is, and that no client can tell.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CKA } from "../../../src/cryptoki/attributes.js";
import { CKO, CKU } from "../../../src/cryptoki/constants.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { AnyResult, Mechanism } from "../../../src/cryptoki/types.js";
import { connect, start } from "../../support/broker-clients.js";
import { fakeAttributes } from "../../support/fake-token-host.js";

const ECDSA: Mechanism = { type: 0x1041, parameter: null };
const pss = (saltLength: bigint): Mechanism => ({ type: 0xd, parameter: { kind: "rsa-pss", hashAlg: 0x250n, mgf: 2n, saltLength } });

/** A client that is logged in, in a session of its own, with a handle of the private key. */
async function signer(mode: "ask" | "client" = "ask", parts = start(mode), name = "one") {
  const { host, broker } = parts;
  const client = connect(broker, name);
  const session = await client.open();
  expect(await client.login(session, mode === "client" ? "1234" : null)).toBe(CKR.CKR_OK);
  const [key = 0n] = (await client.find(session, "secret key")) as readonly bigint[];
  const { call } = client.cryptoki;
  const init = async (mechanism = ECDSA, where = session, what = key) =>
    (await call("C_SignInit", { session: where, mechanism, key: what }, client.ctx)).rv;
  const finish = (room: number | null = 64, where = session) =>
    call("C_Sign", { session: where, data: Buffer.alloc(32), room }, client.ctx);
  /** Both calls, and the calls that reached the module for them. */
  async function sign(mechanism = ECDSA, where = session): Promise<readonly string[]> {
    const before = host.calls.length;
    expect(await init(mechanism, where)).toBe(CKR.CKR_OK);
    expect((await finish(64, where)).rv).toBe(CKR.CKR_OK);
    return host.calls.slice(before);
  }
  return { ...parts, ...client, session, key, init, finish, sign };
}

const joined = ["C_SignInit C_Sign"];

describe("a signature that has succeeded before", () => {
  it("crosses to the module once, and not before that", async () => {
    const { host, sign } = await signer();
    await sign();
    expect(host.pairs).toEqual([]);
    expect((await sign()).slice(0, 2)).toEqual(["C_SignInit", "C_Sign"]);
    expect(host.pairs).toEqual(joined);
  });

  it("does so from the first one on in a new session, and for another client", async () => {
    const parts = start("ask");
    const one = await signer("ask", parts);
    await one.sign();
    await one.sign(ECDSA, await one.open());
    expect(parts.host.pairs).toEqual(joined);
    const two = await signer("ask", parts, "two");
    await two.sign();
    expect(parts.host.pairs).toEqual([...joined, ...joined]);
  });

  it("is another with another mechanism or parameter", async () => {
    const { host, sign } = await signer();
    for (const mechanism of [ECDSA, pss(32n), pss(64n), { type: 0x1, parameter: null }]) await sign(mechanism);
    expect(host.pairs).toEqual([]);
    for (const mechanism of [ECDSA, pss(32n), pss(64n)]) await sign(mechanism);
    expect(host.pairs).toEqual([...joined, ...joined, ...joined]);
  });

  it("is proven anew after a restart, a log-in and a change of objects", async () => {
    const { host, sign, cryptoki, ctx, session, logout, login, find } = await signer("client");
    const changes = [
      async () => {
        host.restart();
        expect(await find(session, "secret key")).toBe(CKR.CKR_USER_NOT_LOGGED_IN);
      },
      async () => void (await logout(session)),
      async () => void (await cryptoki.call("C_CreateObject", { session, template: fakeAttributes(CKO.CKO_DATA, "x", false) }, ctx)),
    ];
    for (const change of changes) {
      await sign();
      host.pairs.length = 0;
      await change();
      await login(session, "1234");
      await sign();
      expect(host.pairs).toEqual([]);
    }
  });

  it("is never one with an object that needs no log-in", async () => {
    const { host, init, finish, find, session } = await signer();
    host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "open key", false));
    const [open = 0n] = (await find(session, "open key")) as readonly bigint[];
    for (let time = 0; time < 3; time += 1) {
      expect(await init(ECDSA, session, open)).toBe(CKR.CKR_OK);
      expect((await finish()).rv).toBe(CKR.CKR_OK);
    }
    expect(host.pairs).toEqual([]);
  });

  it("is never one where the key asked for a log-in of its own", async () => {
    const { host, init, finish, login, session } = await signer();
    for (let time = 0; time < 3; time += 1) {
      expect(await init()).toBe(CKR.CKR_OK);
      expect(await login(session, null, CKU.CKU_CONTEXT_SPECIFIC)).toBe(CKR.CKR_OK);
      expect((await finish()).rv).toBe(CKR.CKR_OK);
    }
    expect(host.pairs).toEqual([]);
  });
});

describe("a signature like the last one of its session", () => {
  it("has its C_SignInit made ahead, after the answer, and makes none when it is asked for", async () => {
    const { host, sign } = await signer();
    await sign();
    expect(await sign()).toEqual(["C_SignInit", "C_Sign", "C_SignInit"]);
    expect(await sign()).toEqual(["C_Sign", "C_SignInit"]);
    expect(host.pairs).toEqual([...joined, ...joined]);
  });

  it("is not expected after another kind of signature, nor in another session", async () => {
    const { sign, open } = await signer();
    for (const mechanism of [ECDSA, pss(32n), ECDSA, pss(32n)]) expect((await sign(mechanism)).at(-1)).toBe("C_Sign");
    expect((await sign(ECDSA, await open())).at(-1)).toBe("C_Sign");
  });

  it("that does not come costs one session, is not expected in it again, and cannot be finished by who has not begun it", async () => {
    const { host, sign, finish, init } = await signer();
    await sign();
    await sign();
    const before = host.calls.length;
    expect((await finish()).rv).toBe(CKR.CKR_OPERATION_NOT_INITIALIZED);
    expect(host.calls.slice(before)).toEqual(["C_OpenSession", "C_CloseSession", "C_Sign"]);
    expect(await sign()).toEqual(["C_SignInit", "C_Sign"]);
    expect(await sign()).toEqual(["C_SignInit", "C_Sign"]);
    expect(await init(pss(32n))).toBe(CKR.CKR_OK);
    expect((await finish()).rv).toBe(CKR.CKR_OK);
  });

  it.each([CKR.CKR_SESSION_HANDLE_INVALID, CKR.CKR_USER_NOT_LOGGED_IN])(
    "and finds at C_Sign that the card has lost its state (%i) is made good, as C_SignInit itself is",
    async (rv) => {
      const { host, sign, init, finish } = await signer();
      await sign();
      await sign();
      expect(await init()).toBe(CKR.CKR_OK);
      host.refusals.set("C_Sign", rv);
      host.endOperationsAt("C_Sign");
      expect((await finish()).rv).toBe(CKR.CKR_OK);
    },
  );

  it("is begun anew where the token has ended it unseen", async () => {
    const { host, sign, init, finish } = await signer();
    await sign();
    await sign();
    host.refusals.set("C_Sign", CKR.CKR_OPERATION_NOT_INITIALIZED);
    host.endOperationsAt("C_Sign");
    const before = host.calls.length;
    expect(await init()).toBe(CKR.CKR_OK);
    expect((await finish()).rv).toBe(CKR.CKR_OK);
    expect(host.calls.slice(before)).toEqual(["C_Sign", "C_SignInit", "C_Sign", "C_SignInit"]);
  });

  it("is not expected while the session holds an object of its own, or has another operation", async () => {
    const { sign, create, session } = await signer();
    await create(session, "mine");
    for (let time = 0; time < 3; time += 1) expect((await sign()).at(-1)).toBe("C_Sign");
  });
});

describe("a C_SignInit that is held", () => {
  it("and fails at C_Sign answers with its own CK_RV, and the operation is over", async () => {
    const { host, sign, init, finish } = await signer();
    await sign();
    expect(await init()).toBe(CKR.CKR_OK);
    host.refusals.set("C_SignInit", CKR.CKR_KEY_FUNCTION_NOT_PERMITTED);
    expect((await finish()).rv).toBe(CKR.CKR_KEY_FUNCTION_NOT_PERMITTED);
    expect((await finish()).rv).toBe(CKR.CKR_OPERATION_NOT_INITIALIZED);
    // And the next one is asked of the module again.
    host.refusals.set("C_SignInit", CKR.CKR_KEY_FUNCTION_NOT_PERMITTED);
    expect(await init()).toBe(CKR.CKR_KEY_FUNCTION_NOT_PERMITTED);
  });

  it.each([CKR.CKR_USER_NOT_LOGGED_IN, CKR.CKR_SESSION_HANDLE_INVALID])(
    "and finds that the card has lost its state (%i) is made good, as C_SignInit itself is",
    async (rv) => {
      const { host, sign, init, finish } = await signer();
      await sign();
      expect(await init()).toBe(CKR.CKR_OK);
      host.refusals.set("C_SignInit", rv);
      expect((await finish()).rv).toBe(CKR.CKR_OK);
      expect(host.pairs).toEqual([...joined, ...joined]);
    },
  );

  it("is never tried again once C_Sign may have signed", async () => {
    const { host, sign, init, finish } = await signer();
    await sign();
    expect(await init()).toBe(CKR.CKR_OK);
    host.refusals.set("C_Sign", CKR.CKR_SESSION_HANDLE_INVALID);
    expect((await finish()).rv).toBe(CKR.CKR_DEVICE_REMOVED);
    expect(host.pairs).toEqual(joined);
  });

  it("reaches the module before a key's own log-in, a search and another C_SignInit", async () => {
    const { host, sign, init, finish, login, find, session } = await signer();
    const others = [
      async () => expect(await login(session, null, CKU.CKU_CONTEXT_SPECIFIC)).toBe(CKR.CKR_OK),
      async () => void (await find(session, "secret key")),
      async () => expect(await init()).toBe(CKR.CKR_OPERATION_ACTIVE),
    ];
    for (const other of others) {
      await sign();
      const before = host.calls.length;
      expect(await init()).toBe(CKR.CKR_OK);
      expect(host.calls).toHaveLength(before);
      await other();
      expect(host.calls[before]).toBe("C_SignInit");
      expect((await finish()).rv).toBe(CKR.CKR_OK);
    }
  });

  it("goes with its session and with the log-out, and the module never hears of it", async () => {
    const { host, sign, init, finish, open, close, logout, login, session, ctx, cryptoki } = await signer();
    await sign();
    const short = await open();
    expect(await init(ECDSA, short)).toBe(CKR.CKR_OK);
    await close(short);
    expect(await init()).toBe(CKR.CKR_OK);
    await logout(session);
    expect((await finish()).rv).toBe(CKR.CKR_OPERATION_NOT_INITIALIZED);
    await login(session);
    expect((await finish()).rv).toBe(CKR.CKR_OPERATION_NOT_INITIALIZED);
    expect(await init(ECDSA, await open())).toBe(CKR.CKR_OK);
    await cryptoki.call("C_Finalize", {}, ctx);
    expect(host.calls.filter((name) => name === "C_SignInit")).toHaveLength(1);
  });
});

type Step =
  | "init" | "init pss" | "init nothing" | "sign" | "length" | "no room" | "update" | "final" | "read" | "find"
  | "login" | "logout" | "context" | "close" | "restart" | "create"; // biome-ignore format: a list

const STEPS: readonly Step[] = [
  "init", "init pss", "init nothing", "sign", "length", "no room", "update", "final", "read", "find",
  "login", "logout", "context", "close", "restart", "create",
]; // biome-ignore format: a list

/** After it the next C_SignInit is made ahead. */
const THRICE: readonly Step[] = ["init", "sign", "init", "sign", "init", "sign"];

/** What a client is answered for these steps. `never`: somebody changes an object before each C_SignInit, so that none is held. */
async function answers(steps: readonly Step[], never: boolean): Promise<{ seen: readonly unknown[]; pairs: number; ahead: number }> {
  const { host, broker, cryptoki, ctx, key, init, finish, ...client } = await signer();
  const other = connect(broker, "other");
  let { session } = client;
  const said = ({ rv, output }: AnyResult) => [rv, Buffer.isBuffer(output) ? output.toString() : output];
  async function take(step: Step): Promise<unknown> {
    if (never && step.startsWith("init")) await other.create(await other.open(), "change");
    const args = { session, data: Buffer.alloc(1) };
    if (step === "init") return init(ECDSA, session);
    if (step === "init pss") return init(pss(32n), session);
    if (step === "init nothing") return init(ECDSA, session, 1n);
    if (step === "sign") return said(await finish(64, session));
    if (step === "length") return said(await finish(null, session));
    if (step === "no room") return said(await finish(1, session));
    if (step === "update") return said(await cryptoki.call("C_SignUpdate", args, ctx));
    if (step === "final") return said(await cryptoki.call("C_SignFinal", { session, room: 64 }, ctx));
    if (step === "read") {
      const query = [{ type: CKA.CKA_LABEL, room: 64 }];
      return (await cryptoki.call("C_GetAttributeValue", { session, object: key, query }, ctx)).rv;
    }
    if (step === "find") return ((await client.find(session, "secret key")) as readonly bigint[]).length;
    if (step === "login") return client.login(session);
    if (step === "logout") return client.logout(session);
    if (step === "context") return client.login(session, null, CKU.CKU_CONTEXT_SPECIFIC);
    if (step === "create") return (await client.create(session, "mine")) > 0n;
    if (step === "restart") return host.restart();
    const rv = await client.close(session);
    session = await client.open();
    return rv;
  }
  const seen: unknown[] = [];
  for (const step of steps) seen.push(await take(step));
  return { seen, pairs: host.pairs.length, ahead: host.ahead };
}

it("no client can tell by its answers whether C_SignInit is held, in whatever order it calls", async () => {
  let pairs = 0;
  let ahead = 0;
  const likely = fc.constantFrom<readonly Step[]>(["init"], ["sign"], ["init", "sign"], ["init", "sign", "init"], THRICE);
  const any = fc.constantFrom(...STEPS).map((step) => [step]);
  const steps = fc.array(fc.oneof({ weight: 2, arbitrary: likely }, any), { minLength: 8, maxLength: 25 }).map((parts) => parts.flat());
  await fc.assert(
    fc.asyncProperty(steps, async (order) => {
      const held = await answers(["init", "sign", ...order], false);
      const plain = await answers(["init", "sign", ...order], true);
      pairs += held.pairs;
      ahead += held.ahead;
      expect(plain.pairs).toBe(0);
      expect(held.seen).toEqual(plain.seen);
    }),
    { numRuns: 150 },
  );
  expect(pairs).toBeGreaterThan(100);
  expect(ahead).toBeGreaterThan(100);
}, 60_000);
