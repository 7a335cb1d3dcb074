/*
 * A token that is pulled and put back, or swapped for another, while stock programs use it through the real agent: what they are
 * told while it is out, and that they go on afterwards without anybody starting anything again.
 */
import { createVerify } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { createFakePinentry, type FakePinentry } from "../support/fake-pinentry.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";
import { runProgram } from "./programs.js";

const PIN = "1234";
const DATA = Buffer.from("what the program signs");
const PROGRAMS = 16;

let dir: string;
let token: SoftHsm;
let shim: ShimModule;
let agent: ServerProcess;
let pinentry: FakePinentry;
let files = 0;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-hotplug-"));
  writeFileSync(join(dir, "data"), DATA);
  token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
  return async () => {
    await token.dispose();
    rmSync(dir, { recursive: true, force: true });
  };
});
beforeEach(async () => {
  shim = await createShimModule(token.modulePath);
  pinentry = await createFakePinentry(dir, `pinentry-${++files}`, { GETPIN: `D ${PIN}\\nOK\\n` });
  const env = { ...token.env, ...shim.env, TOKENFWD_PINENTRY: pinentry.program };
  const key = `pkcs11:token=${encodeURIComponent(token.label)};id=%01`;
  agent = await startAgent({ token: { ...token, modulePath: shim.modulePath, env }, pin: "ask", args: ["--key", key] });
});
afterEach(async () => {
  await agent?.dispose();
  await shim.dispose();
});

/** One program: `signed`, or the CK_RV that it ended with, or what else it said. */
async function sign(): Promise<string> {
  const output = join(dir, `signature-${++files}`);
  const words = ["--login", "--pin", "0000", "--sign", "-m", "SHA256-RSA-PKCS", "--id", "01"];
  const done = await runProgram(
    { argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, ...words, "-i", join(dir, "data"), "-o", output] },
    { ...process.env, P11_KIT_SERVER_ADDRESS: agent.address },
  );
  if (done.signal !== null) return `ended by ${done.signal}`;
  const text = `${done.stdout}${done.stderr}`;
  if (done.code !== 0) return /CKR_\w+|No slots|no slot|No slot/i.exec(text)?.[0] ?? text;
  const key = readFileSync(token.keys.rsa?.publicKeyFile ?? "");
  return createVerify("sha256").update(DATA).verify(key, readFileSync(output)) ? "signed" : "a signature that does not verify";
}

/** What a program may be told of a token that is not there. */
const OUT = /^(CKR_DEVICE_REMOVED|CKR_TOKEN_NOT_PRESENT|CKR_SESSION_HANDLE_INVALID|CKR_SLOT_ID_INVALID|no slots?)$/i;

test("16 programs sign while the token is pulled and put back: none hangs, each signature verifies, and it is asked for once more", {
  timeout: 120_000,
}, async () => {
  expect(await sign()).toBe("signed");
  const before = Promise.all(Array.from({ length: PROGRAMS }, sign));
  await shim.control("token out");
  const told = await before;
  expect(told.filter((one) => one !== "signed" && !OUT.test(one))).toEqual([]);
  expect(await sign()).toMatch(OUT);
  expect(await pinentry.asked()).toBe(1);
  await shim.control();
  await vi.waitFor(async () => expect(await sign()).toBe("signed"), { timeout: 15_000 });
  expect(await Promise.all(Array.from({ length: PROGRAMS }, sign))).toEqual(Array.from({ length: PROGRAMS }, () => "signed"));
  // Its PIN went with it, and all those programs are one question.
  expect(await pinentry.asked()).toBe(2);
});

test("another token in the slot stays hidden, and the first one is served again when it is back", { timeout: 60_000 }, async () => {
  expect(await sign()).toBe("signed");
  await shim.control("serial ANOTHER");
  await vi.waitFor(async () => expect(await sign()).not.toBe("signed"), { timeout: 15_000 });
  for (const _ of [1, 2, 3]) expect(await sign()).not.toBe("signed");
  const logins = await shim.logins();
  await shim.control();
  await vi.waitFor(async () => expect(await sign()).toBe("signed"), { timeout: 15_000 });
  // The PIN of the first token was never shown to the second.
  expect({ logins, after: await shim.logins(), asked: await pinentry.asked() }).toEqual({ logins: 1, after: 2, asked: 2 });
});

test("a token that is out is not asked for, and no PIN is asked either", async () => {
  await shim.control("token out");
  expect(await sign()).toMatch(OUT);
  expect({ asked: await pinentry.asked(), logins: await shim.logins() }).toEqual({ asked: 0, logins: 0 });
});
