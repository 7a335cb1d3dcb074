/*
 * Discovery on real modules: SoftHSM in front of a token, and a shim before it that crashes, hangs and lies. Each is looked at in a
 * token host of its own, so nothing that a module does reaches this process.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Candidate } from "../../src/token/discovery/candidates.js";
import { discoverModules, findModule } from "../../src/token/discovery/discover.js";
import { lookAt } from "../../src/token/discovery/look.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";

let token: SoftHsm;
let shim: ShimModule;
const signal = new AbortController().signal;
/** Where the limit is not what is tested: the machine may be busy. */
const PATIENT_MS = 30_000;
const candidate = (path: string, denied: string | null = null): Candidate => ({ path, from: "well-known", denied });
const look = (path: string, options: { objects?: boolean; limitMs?: number } = {}) =>
  lookAt(candidate(path), { objects: false, signal, limitMs: PATIENT_MS, ...options });

beforeAll(async () => {
  token = await createSoftHsm({ label: "card one" });
  shim = await createShimModule(token.modulePath);
  for (const [name, value] of Object.entries({ ...shim.env, SOFTHSM2_CONF: token.configFile })) vi.stubEnv(name, value);
});
afterEach(() => shim.control());
afterAll(async () => {
  vi.unstubAllEnvs();
  await shim?.dispose();
  await token?.dispose();
});

describe("a look at a module", () => {
  it("shows slots, tokens and what the token shows before a log-in, as URIs", async () => {
    const seen = await look(token.modulePath, { objects: true });
    expect(seen).toMatchObject({ state: "ok", why: null, library: { manufacturer: "SoftHSM" } });
    expect(seen.slots.map(({ token: one }) => one?.problems)).toEqual([[], ["not-initialized"]]);
    const found = seen.slots[0]?.token;
    expect(found).toMatchObject({ label: "card one", usable: true, sameAs: null });
    // The private keys are not seen: nobody has logged in.
    expect(found?.objects?.map(({ uri }) => uri.replace(/.*;(id=)/, "$1"))).toEqual([
      "id=%01;object=rsa%20key;type=cert",
      "id=%02;object=ec%20key;type=cert",
      "id=%01;object=rsa%20key;type=public",
      "id=%02;object=ec%20key;type=public",
    ]);
    expect(await shim.logins()).toBe(0);
  });

  it.each([
    ["crashes when it is loaded", "load abort", PATIENT_MS, /was ended by SIGABRT while it was loaded/],
    ["hangs when it is loaded", "load hang", 500, /hung for 0.5 s in loading/],
    ["refuses to start", "C_Initialize rv 5", PATIENT_MS, /answered C_Initialize with CKR_GENERAL_ERROR/],
    ["crashes on the first call", "C_GetSlotList abort", PATIENT_MS, /was ended by SIGABRT/],
    ["hangs on the first call", "C_GetSlotList hang", 4000, /hung for 4 s in C_GetSlotList|did not show its tokens within 4 s/],
    ["cannot list its slots", "C_GetSlotList rv 30", PATIENT_MS, /cannot list its slots: CKR_DEVICE_ERROR/],
  ])("that %s answers faulty, and why", async (_what, rule, limitMs, why) => {
    await shim.control(rule);
    const seen = await look(shim.modulePath, { limitMs });
    expect(seen).toMatchObject({ state: "faulty", slots: [] });
    expect(seen.why).toMatch(why);
  });

  it.each([
    ["the PIN is locked", "flags 40000", ["pin-locked"], false],
    ["one try is left", "flags 20000", ["pin-last-try"], true],
    ["a wrong PIN was entered", "flags 10000", ["pin-count-low"], true],
    ["it has a PIN pad", "flags 100", ["pin-pad"], false],
    ["no PIN is set", "clear 8", ["pin-not-set"], false],
    ["it is not initialised", "clear 400", ["not-initialized"], false],
  ])("says of a token that %s", async (_what, rule, problems, usable) => {
    await shim.control(rule);
    const seen = await look(shim.modulePath);
    expect(seen.slots[0]?.token).toMatchObject({ problems, usable });
  });

  it("keeps what it has seen when the objects cannot be listed", async () => {
    await shim.control("C_FindObjectsInit rv 30");
    const seen = await look(shim.modulePath, { objects: true });
    expect(seen.state).toBe("ok");
    expect(seen.slots[0]?.token).toMatchObject({
      label: "card one",
      objects: null,
      objectsWhy: "the search for objects answered CKR_DEVICE_ERROR",
    });
  });

  it("says that a card cannot be read, and of an empty slot that there is no token", async () => {
    await shim.control("C_GetTokenInfo rv e1");
    expect((await look(shim.modulePath)).slots[0]?.token).toMatchObject({ problems: ["unreadable"], usable: false });
    await shim.control("C_GetTokenInfo rv e0");
    expect((await look(shim.modulePath)).slots[0]?.token).toBeNull();
  });

  it("of a file that is no module says so, and a denied one is not even opened", async () => {
    const text = join(token.dir, "not-a-module.so");
    writeFileSync(text, "#!/bin/sh\n");
    expect(await look(text)).toMatchObject({ state: "unloadable", why: expect.stringContaining("is not a shared library") });
    await shim.control("load abort");
    expect(await lookAt(candidate(shim.modulePath, "because"), { objects: true, signal })).toMatchObject({
      state: "denied",
      why: "because",
    });
  });

  it("ends when it is told to, and the module's process with it", async () => {
    const abort = new AbortController();
    await shim.control("C_GetSlotList hang");
    const started = lookAt(candidate(shim.modulePath), { objects: false, signal: abort.signal, limitMs: PATIENT_MS });
    await vi.waitUntil(() => childrenOf(process.pid).length > 0, { timeout: PATIENT_MS });
    abort.abort(new Error("enough"));
    await expect(started).rejects.toThrow("enough");
    expect(childrenOf(process.pid)).toEqual([]);
  });
});

function childrenOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
}

describe("the module that is meant", () => {
  const choose = (selector: string | null, ...paths: string[]) =>
    findModule(selector, { signal, limitMs: PATIENT_MS, candidates: paths.map((path) => candidate(path)) });

  it("is the only one that shows a token, though others are broken or empty", async () => {
    await shim.control("load abort");
    expect(await choose(null, shim.modulePath, token.modulePath)).toBe(token.modulePath);
    await shim.control("clear 400");
    expect(await choose(null, shim.modulePath, token.modulePath)).toBe(token.modulePath);
  });

  it("is the first of two that show the same card, which is counted once", async () => {
    expect(await choose(null, shim.modulePath, token.modulePath)).toBe(shim.modulePath);
    expect(await choose("card one", token.modulePath, shim.modulePath)).toBe(token.modulePath);
    const modules = await discoverModules({
      objects: false,
      signal,
      limitMs: PATIENT_MS,
      candidates: [token.modulePath, shim.modulePath].map((path) => candidate(path)),
    });
    expect(modules.map(({ slots }) => slots[0]?.token?.sameAs)).toEqual([null, token.modulePath]);
  });

  it("is none when no token is there, or none that is meant, and says which there are", async () => {
    await expect(choose("other", token.modulePath)).rejects.toMatchObject({
      code: "E_TOKEN_NOT_FOUND",
      message: "no token matches --token",
      hint: expect.stringContaining("card one"),
    });
    await shim.control("clear 400");
    await expect(choose(null, shim.modulePath)).rejects.toMatchObject({
      code: "E_TOKEN_NOT_FOUND",
      message: expect.stringContaining(shim.modulePath),
    });
    await expect(choose(null)).rejects.toMatchObject({ code: "E_TOKEN_NOT_FOUND", message: "no PKCS#11 module was found on this machine" });
  });

  it("is found by a URI of the token", async () => {
    expect(await choose("pkcs11:token=card%20one;manufacturer=SoftHSM%20project", token.modulePath)).toBe(token.modulePath);
    await expect(choose("pkcs11:token=card%20one;manufacturer=other", token.modulePath)).rejects.toMatchObject({
      code: "E_TOKEN_NOT_FOUND",
    });
  });
});
