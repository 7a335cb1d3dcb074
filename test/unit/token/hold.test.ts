/*
 * When a token that nobody uses is released, and what keeps it: the count of quiet time, and what the session layer knows.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { boolAttribute, CKA } from "../../../src/cryptoki/attributes.js";
import { CKO } from "../../../src/cryptoki/constants.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import { createHold } from "../../../src/token/host/hold.js";
import { createPresence } from "../../../src/token/host/presence.js";
import { connect, start } from "../../support/broker-clients.js";
import { fakeAttributes } from "../../support/fake-token-host.js";

describe("the count of quiet time", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function count(ms: number | null) {
    const released: number[] = [];
    const world = { isIdle: true, released };
    const hold = createHold({ ms, isIdle: () => world.isIdle, release: () => void released.push(Date.now()) });
    return { hold, world };
  }

  it("releases once after the hold, and again only after another use", () => {
    const { hold, world } = count(60_000);
    vi.advanceTimersByTime(59_000);
    expect(world.released).toHaveLength(0);
    vi.advanceTimersByTime(600_000);
    expect(world.released).toHaveLength(1);
    hold.used();
    vi.advanceTimersByTime(600_000);
    expect(world.released).toHaveLength(2);
    hold.close();
  });

  it("begins anew with each use, and waits for what is under way", () => {
    const { hold, world } = count(60_000);
    for (let use = 0; use < 20; use += 1) {
      vi.advanceTimersByTime(30_000);
      hold.used();
    }
    expect(world.released).toHaveLength(0);
    world.isIdle = false;
    vi.advanceTimersByTime(600_000);
    expect(world.released).toHaveLength(0);
    world.isIdle = true;
    vi.advanceTimersByTime(15_000);
    expect(world.released).toHaveLength(1);
    hold.close();
  });

  it("of nothing is half a second, and of for ever never ends", () => {
    const none = count(0);
    const ever = count(null);
    vi.advanceTimersByTime(500);
    expect(none.world.released).toHaveLength(1);
    vi.advanceTimersByTime(10_000_000);
    expect(ever.world.released).toHaveLength(0);
    none.hold.close();
  });
});

describe("a client's", () => {
  const mechanism = { type: CKM.CKM_ECDSA, parameter: null };

  it("operation keeps the token until it is done, or has been left lying for five minutes", async () => {
    const { host, broker } = start("ask");
    const one = connect(broker, "one");
    const session = await one.open();
    await one.login(session);
    const [key = 0n] = (await one.find(session, "secret key")) as readonly bigint[];
    expect(host.mayRelease()).toBe(true);
    await one.cryptoki.call("C_SignInit", { session, mechanism, key }, one.ctx);
    expect({ now: host.mayRelease(), later: host.mayRelease(300_000) }).toEqual({ now: false, later: true });
    await one.cryptoki.call("C_Sign", { session, data: Buffer.alloc(1), room: null }, one.ctx);
    expect(host.mayRelease()).toBe(false);
    await one.cryptoki.call("C_Sign", { session, data: Buffer.alloc(1), room: 64 }, one.ctx);
    expect(host.mayRelease()).toBe(true);
    // The second C_SignInit is held back here, and the module knows nothing of it.
    await one.cryptoki.call("C_SignInit", { session, mechanism, key }, one.ctx);
    expect(host.mayRelease()).toBe(false);
    await one.cryptoki.close();
    expect(host.mayRelease()).toBe(true);
  });

  it("session object keeps it as long as its session", async () => {
    const { host, broker } = start("ask");
    const one = connect(broker, "one");
    const session = await one.open();
    const template = [...fakeAttributes(CKO.CKO_DATA, "mine", false), boolAttribute(CKA.CKA_TOKEN, false)];
    expect((await one.cryptoki.call("C_CreateObject", { session, template }, one.ctx)).rv).toBe(CKR.CKR_OK);
    expect(host.mayRelease(3_600_000)).toBe(false);
    await one.close(session);
    expect(host.mayRelease()).toBe(true);
  });

  it("own PIN keeps it as long as the client is logged in", async () => {
    const { host, broker } = start("client");
    const one = connect(broker, "one");
    const session = await one.open();
    await one.login(session, "1234");
    expect(host.mayRelease(3_600_000)).toBe(false);
    await one.logout(session);
    expect(host.mayRelease()).toBe(true);
  });
});

describe("a token that is swapped", () => {
  const info = (serial: string) => ({ rv: CKR.CKR_OK, serial: Buffer.from(serial), label: Buffer.from("l"), model: Buffer.from("m") });

  function watch() {
    const told: string[] = [];
    const world = { serial: "A" };
    const presence = createPresence({ tell: (name, slot) => void told.push(`${name} ${slot}`), look: () => info(world.serial) });
    presence.observe("C_GetSlotList", { tokenPresent: 1, room: 9 }, { rv: CKR.CKR_OK, slots: [1n] } as { rv: number });
    presence.observe("C_GetTokenInfo", { slot: 1n }, info("A"));
    presence.observe("C_OpenSession", { slot: 1n, flags: 4n }, { rv: CKR.CKR_OK, session: 7n } as { rv: number });
    return { told, world, presence };
  }

  it("between two calls is noticed when a session is lost", () => {
    const { told, world, presence } = watch();
    presence.observe("C_Sign", { session: 7n }, { rv: CKR.CKR_SESSION_HANDLE_INVALID });
    expect(told).toEqual([]);
    presence.observe("C_OpenSession", { slot: 1n, flags: 4n }, { rv: CKR.CKR_OK, session: 8n } as { rv: number });
    world.serial = "B";
    presence.observe("C_Sign", { session: 8n }, { rv: CKR.CKR_SESSION_HANDLE_INVALID });
    expect({ told, isSwapped: presence.isSwapped }).toEqual({ told: ["token-gone 1", "token-in 1"], isSwapped: true });
  });

  it("while the module was released is noticed when it is open again, and so is the first one's return", () => {
    const { told, world, presence } = watch();
    presence.released();
    world.serial = "B";
    presence.recheck();
    expect({ told, isSwapped: presence.isSwapped }).toEqual({ told: ["token-gone 1", "token-in 1"], isSwapped: true });
    world.serial = "A";
    presence.recheck();
    expect({ count: told.length, isSwapped: presence.isSwapped }).toEqual({ count: 4, isSwapped: false });
  });

  it("and one that is pulled is looked for until it is back", () => {
    const { presence } = watch();
    presence.observe("C_Sign", { session: 7n }, { rv: CKR.CKR_DEVICE_REMOVED });
    expect({ isMissing: presence.isMissing, isInUse: presence.isInUse }).toEqual({ isMissing: true, isInUse: false });
    presence.observe("C_OpenSession", { slot: 1n, flags: 4n }, { rv: CKR.CKR_OK, session: 9n } as { rv: number });
    expect(presence.isMissing).toBe(false);
  });
});
