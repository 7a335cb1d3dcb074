/*
 * A module that crashes, hangs or is slow under stock programs: the agent lives, the program gets an answer, and the next
 * one works. The faults are those of test/support/shim-module.c in front of a real SoftHSM.
 */
import { createVerify } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";
import { type Outcome, runProgram } from "./programs.js";

const dir = mkdtempSync(join(tmpdir(), "tfwd-faulty-"));
const input = join(dir, "data");
const DATA = Buffer.from("what the program signs");
let token: SoftHsm;
let shim: ShimModule;
let agent: ServerProcess;
let signatures = 0;

beforeAll(async () => {
  token = await createSoftHsm({ objects: "rsa", certificates: false });
  shim = await createShimModule(token.modulePath);
  agent = await startAgent({ token: { ...token, modulePath: shim.modulePath, env: { ...token.env, ...shim.env } }, pin: "file" });
  writeFileSync(input, DATA);
});
beforeEach(() => shim.control());
afterAll(async () => {
  await agent?.dispose();
  await shim?.dispose();
  await token?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

const tool = (...args: string[]): Promise<Outcome> =>
  runProgram({ argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, ...args] }, { ...process.env, P11_KIT_SERVER_ADDRESS: agent.address });

/** Signs with pkcs11-tool; the signature too, when there is one that verifies. */
async function sign(): Promise<{ done: Outcome; verified: boolean }> {
  const output = join(dir, `signature-${++signatures}`);
  const done = await tool("--login", "--pin", "0000", "--sign", "-m", "SHA256-RSA-PKCS", "--id", "01", "-i", input, "-o", output);
  const verified =
    done.code === 0 &&
    createVerify("sha256")
      .update(DATA)
      .verify(readFileSync(token.keys.rsa?.publicKeyFile ?? ""), readFileSync(output));
  return { done, verified };
}

test("a module that crashes in a signature is started again, and pkcs11-tool's own second try signs on it", async () => {
  await shim.control("C_Sign abort");
  const { done, verified } = await sign();
  expect(done.code).toBe(0);
  expect(verified).toBe(true);
  expect(agent.stderr()).toContain("(C_Sign) for c1, which failed: CKR_DEVICE_REMOVED");
  expect(agent.stderr()).toContain("(C_SignFinal) for c1\n");
  await shim.control();
  expect((await sign()).verified).toBe(true);
});

test("a module that hangs is ended at the deadline, and programs that waited behind it go on", { timeout: 60_000 }, async () => {
  await shim.control("C_GenerateRandom hang");
  const hanging = tool("--generate-random", "8");
  const behind = sign();
  const [hung, next] = await Promise.all([hanging, behind]);
  expect(hung.code).toBe(1);
  expect(agent.stderr()).toContain("hung for 10 s in C_GenerateRandom");
  await shim.control();
  // Whether it was in the middle of something or only waited, the one behind it ends, and the one after that signs.
  expect(next.done.signal).toBeNull();
  expect((await sign()).verified).toBe(true);
});

test("a signature that waits for a touch is no hang, and is said to wait", { timeout: 30_000 }, async () => {
  await shim.control("C_Sign sleep 3500");
  const touched = agent.waitFor(/touch/);
  expect((await sign()).verified).toBe(true);
  await touched;
});
