/*
 * What real cards do and SoftHSM does not, under a stock client of the real agent: the CK_RV that the client sees, what is said
 * at the workstation, and which tries of the PIN it costs. The quirks are those of test/support/shim-module.c.
 */
import { createVerify } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { createFakePinentry, type FakePinentry } from "../support/fake-pinentry.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type AgentProcessOptions, P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";
import { type Outcome, runProgram } from "./programs.js";

const PIN = "1234";
const DATA = Buffer.from("what the program signs");
const RIGHT = { GETPIN: `D ${PIN}\\nOK\\n` };

let dir: string;
let token: SoftHsm;
let shim: ShimModule;
let agent: ServerProcess;
let pinentry: FakePinentry;
let signatures = 0;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-quirks-"));
  writeFileSync(join(dir, "data"), DATA);
  token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
  return async () => {
    await token.dispose();
    rmSync(dir, { recursive: true, force: true });
  };
});
beforeEach(async () => {
  shim = await createShimModule(token.modulePath);
});
afterEach(async () => {
  await agent?.dispose();
  await shim.dispose();
});

/** An agent that asks with a pinentry which gives these replies. */
async function serve(replies: Parameters<typeof createFakePinentry>[2] = RIGHT, more: Partial<AgentProcessOptions> = {}): Promise<void> {
  pinentry = await createFakePinentry(dir, `pinentry-${++signatures}`, replies);
  const env = { ...token.env, ...shim.env, TOKENFWD_PINENTRY: pinentry.program };
  agent = await startAgent({ token: { ...token, modulePath: shim.modulePath, env }, pin: "ask", ...more });
}

const tool = (...args: string[]): Promise<Outcome> =>
  runProgram({ argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, ...args] }, { ...process.env, P11_KIT_SERVER_ADDRESS: agent.address });
/** What it said, with its status: pkcs11-tool ends some failures with 0. */
const said = ({ code, stdout, stderr }: Outcome) => `${code} ${stdout}${stderr}`;

/** Signs with pkcs11-tool; true when the signature verifies. */
async function sign(id = "01", key = token.keys.rsa?.publicKeyFile ?? ""): Promise<{ done: Outcome; verified: boolean }> {
  const output = join(dir, `signature-${++signatures}`);
  const done = await tool("--login", "--pin", "0000", "--sign", "-m", "SHA256-RSA-PKCS", "--id", id, "-i", join(dir, "data"), "-o", output);
  const verified = done.code === 0 && createVerify("sha256").update(DATA).verify(readFileSync(key), readFileSync(output));
  return { done, verified };
}

test.each([
  ["C_SignInit logout", "knows it at once"],
  ["C_SignInit stale", "tells it and does not believe it itself"],
  ["C_Sign stale", "tells it at the signature and does not believe it itself"],
])("a card that was reset (%s: the module %s) is logged in once more with the PIN at hand, and the signature is made", async (rule) => {
  await serve();
  expect((await sign()).verified).toBe(true);
  await shim.control(`${rule} one`);
  expect((await sign()).verified).toBe(true);
  expect({ asked: await pinentry.asked(), logins: await shim.logins() }).toEqual({ asked: 1, logins: 2 });
});

test("a PIN that is wrong is asked for again in the same log-in, and costs the tries that were typed and no more", async () => {
  await serve({ GETPIN: ["D 9999\\nOK\\n", RIGHT.GETPIN] });
  await shim.control("tries 3");
  const { done, verified } = await sign();
  expect({ verified, said: verified ? "" : said(done) }).toEqual({ verified: true, said: "" });
  expect(await shim.triesLeft()).toBe(2);
});

test("the last try is spent only after a yes: without one the client is refused, and the PIN is not locked", async () => {
  await serve({ ...RIGHT, CONFIRM: "ERR 83886179 cancelled\\n" });
  await shim.control("tries 1");
  expect(said((await sign()).done)).toContain("(0x200)");
  expect(await shim.logins()).toBe(0);
  expect(agent.stderr()).toContain("the last try of the PIN was kept");
  expect(readFileSync(pinentry.transcript, "utf8")).toContain("one PIN try is left");
});

test("a PIN that is locked is not asked for: the client hears CKR_PIN_LOCKED, and the workstation what to do", async () => {
  await serve();
  await shim.control("tries 0");
  expect(said((await sign()).done)).toContain("CKR_PIN_LOCKED");
  expect({ asked: await pinentry.asked(), logins: await shim.logins() }).toEqual({ asked: 0, logins: 0 });
  expect(agent.stderr()).toContain("the PIN of the token is locked: unblock it");
});

test("a token with a PIN pad of its own is refused before anybody is asked, and the workstation hears why", async () => {
  await serve();
  await shim.control("flags 100");
  expect(said((await sign()).done)).toContain("CKR_FUNCTION_NOT_SUPPORTED");
  expect({ asked: await pinentry.asked(), logins: await shim.logins() }).toEqual({ asked: 0, logins: 0 });
  expect(agent.stderr()).toContain("has a PIN pad of its own");
});

test("a signature of a length that cannot be is an error of the device, and the next one is whole", async () => {
  await serve();
  for (const length of ["ffff", "7fffffff", "ffffffffffffffff"]) {
    await shim.control(`C_Sign length ${length}`);
    // pkcs11-tool tries once more with C_SignUpdate and C_SignFinal.
    expect((await sign()).verified).toBe(true);
  }
  expect(agent.stderr().match(/C_Sign\) for c\d+, which failed: CKR_DEVICE_ERROR/g)).toHaveLength(3);
  await shim.control();
  expect((await sign()).verified).toBe(true);
});

test("an attribute of a length that cannot be does no harm, and the next one is whole", { timeout: 60_000 }, async () => {
  await serve();
  await shim.control("C_GetAttributeValue length ffffffffffff");
  const listed = await tool("--list-objects");
  expect(listed.signal).toBeNull();
  await shim.control();
  expect((await sign()).verified).toBe(true);
});

test("agent run --hold lets go of the token, and the next program is logged in with the PIN at hand", { timeout: 60_000 }, async () => {
  await serve(RIGHT, { args: ["--hold", "0"] });
  expect((await sign()).verified).toBe(true);
  await vi.waitFor(
    async () => {
      expect((await sign()).verified).toBe(true);
      expect(await shim.logins()).toBeGreaterThan(1);
    },
    { timeout: 20_000, interval: 1_500 },
  );
  expect(await pinentry.asked()).toBe(1);
});
