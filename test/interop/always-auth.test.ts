/*
 * A key that wants the PIN for each signature, on a card that forgets it with any other command: programs that know of such
 * keys and programs that do not, several at once, and the person who is asked once.
 */
import { execFile } from "node:child_process";
import { createPublicKey, createVerify, generateKeyPairSync, type KeyObject } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createFakePinentry, type FakePinentry } from "../support/fake-pinentry.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";
import { runProgram } from "./programs.js";

const PIN = "1234";
const DATA = Buffer.from("what the program signs");

let dir: string;
let token: SoftHsm;
let shim: ShimModule;
let agent: ServerProcess;
let pinentry: FakePinentry;
let publicKey: KeyObject;
let signatures = 0;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-always-"));
  writeFileSync(join(dir, "data"), DATA);
  token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
  const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
  publicKey = createPublicKey(pair.privateKey);
  const der = join(dir, "always.der");
  writeFileSync(der, pair.privateKey.export({ type: "pkcs1", format: "der" }));
  const write = ["--token-label", token.label, "--login", "--pin", PIN, "--write-object", der, "--type", "privkey"];
  await token.pkcs11Tool(...write, "--id", "09", "--label", "always", "--usage-sign", "--always-auth");
  shim = await createShimModule(token.modulePath);
  await shim.control("always card");
  pinentry = await createFakePinentry(dir, "pinentry", { GETPIN: `D ${PIN}\\nOK\\n` });
  const env = { ...token.env, ...shim.env, TOKENFWD_PINENTRY: pinentry.program };
  agent = await startAgent({ token: { ...token, modulePath: shim.modulePath, env }, pin: "ask" });
});
beforeEach(() => shim.control("always card"));
afterAll(async () => {
  await agent?.dispose();
  await shim?.dispose();
  await token?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

const environment = () => ({ ...process.env, P11_KIT_SERVER_ADDRESS: agent.address });

async function signWithTool(id: string): Promise<Buffer> {
  const output = join(dir, `signature-${++signatures}`);
  const words = ["--login", "--pin", "0000", "--sign", "-m", "SHA256-RSA-PKCS", "--id", id, "-i", join(dir, "data"), "-o", output];
  const done = await runProgram({ argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, ...words] }, environment());
  expect(`${done.code} ${done.stderr}`).toMatch(/^0 /);
  return readFileSync(output);
}

const isMine = (signature: Buffer) => createVerify("sha256").update(DATA).verify(publicKey, signature);

test("signs for a program that knows of such keys, and the person has been asked once", async () => {
  expect(isMine(await signWithTool("09"))).toBe(true);
  expect(isMine(await signWithTool("09"))).toBe(true);
  expect(await pinentry.asked()).toBe(1);
});

test("signs for a program that does not know of them, and makes no log-in itself", async () => {
  // Python on libffi: C_Initialize, C_OpenSession, C_Login, C_SignInit, C_Sign and nothing else.
  const script = new URL("./sign-plainly.py", import.meta.url).pathname;
  const { stdout } = await promisify(execFile)("python3", [script, P11KIT_CLIENT, "always", join(dir, "data")], { env: environment() });
  expect(isMine(Buffer.from(stdout.trim(), "hex"))).toBe(true);
});

test("programs that sign with it and with another key at once all get their signatures", { timeout: 60_000 }, async () => {
  const keys = ["09", "01", "09", "01", "09", "09"];
  const made = await Promise.all(keys.map((id) => signWithTool(id)));
  expect(made.map((signature, index) => (keys[index] === "09" ? isMine(signature) : signature.length === 256))).toEqual(
    keys.map(() => true),
  );
  expect(await pinentry.asked()).toBe(1);
});
