/*
 * The example in docs/client.md, as a reader would run it: from another directory, with the package installed.
 */
import { execFile } from "node:child_process";
import { createHash, createPublicKey } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent } from "./agent-process.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

let token: SoftHsm;
let agent: ServerProcess;
let dir: string;

beforeAll(async () => {
  token = await createSoftHsm();
  agent = await startAgent({ token, pin: "file" });
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-example-"));
  mkdirSync(join(dir, "node_modules"));
  symlinkSync(ROOT, join(dir, "node_modules", "tokenfwd"));
  const example = /```js\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, "docs", "client.md"), "utf8"))?.[1];
  writeFileSync(join(dir, "sign.mjs"), example ?? "throw new Error('docs/client.md holds no example')");
});
afterAll(async () => {
  await agent?.dispose();
  await token?.dispose();
  if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
});

const environment = (socket: string) => ({ PATH: process.env["PATH"], TOKENFWD_SOCKET: socket });

it("the example lists the keys, signs, and verifies what it got", async () => {
  const { stdout } = await run(process.execPath, ["sign.mjs"], { cwd: dir, env: environment(agent.socket) });
  const publicKey = createPublicKey(readFileSync(token.keys.rsa?.publicKeyFile ?? ""));
  const fingerprint = createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");
  expect(stdout).toMatch(/id=%01;type=private RSA 2048\n/);
  expect(stdout).toMatch(/id=%02;type=private EC P-256\n/);
  expect(stdout).toContain("verified: true\n");
  expect(stdout).toContain(`key: ${fingerprint}\n`);
});

it("the example without an agent ends with the error's own status", async () => {
  const failed = await run(process.execPath, ["sign.mjs"], { cwd: dir, env: environment(join(dir, "none")) }).then(
    () => null,
    (error: { code?: number; stderr?: string }) => error,
  );
  expect(failed?.code).toBe(40);
  expect(failed?.stderr).toContain("E_AGENT_SOCKET");
});
