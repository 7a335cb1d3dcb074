/*
 * What the profile `sign` refuses: each program that changes a token gets the code that PKCS#11 has for it and leaves the
 * token's files as they were, and raw RSA opens no ciphertext.
 */
import { createHash, constants as crypto, publicEncrypt } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";
import { type Outcome, runProgram, tokenHash } from "./programs.js";

describe("under the profile sign", () => {
  let token: SoftHsm;
  let agent: ServerProcess;
  beforeAll(async () => {
    token = await createSoftHsm();
    agent = await startAgent({ token, pin: "file" });
    // The module itself writes its files at the first log-in; what counts is what happens after that.
    await through(agent, [...login, "--sign", "-m", "SHA256-RSA-PKCS", "--id", "01"], Buffer.from("x"));
  });
  afterAll(async () => {
    await agent?.dispose();
    await token?.dispose();
  });

  const through = (server: ServerProcess, args: readonly string[], input = Buffer.alloc(0)): Promise<Outcome> =>
    runProgram(
      { argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, ...args], input },
      { ...process.env, P11_KIT_SERVER_ADDRESS: server.address },
    );

  const login = ["--login", "--pin", "0000"];
  const made = ["--id", "33", "--label", "made here"];
  const refusals: readonly (readonly [string, string, (token: SoftHsm) => readonly string[]])[] = [
    ["--keypairgen", "CKR_TOKEN_WRITE_PROTECTED", () => [...login, "--keypairgen", "--key-type", "EC:prime256v1", ...made]],
    ["--keygen", "CKR_TOKEN_WRITE_PROTECTED", () => [...login, "--keygen", "--key-type", "AES:32", ...made]],
    [
      "--write-object",
      "CKR_TOKEN_WRITE_PROTECTED",
      (on) => [...login, "--write-object", on.keys.rsa?.certificateFile?.replace(/crt$/, "der") ?? "", "--type", "cert", ...made],
    ],
    ["--delete-object", "CKR_TOKEN_WRITE_PROTECTED", () => [...login, "--delete-object", "--type", "privkey", "--id", "01"]],
    ["--set-id", "CKR_TOKEN_WRITE_PROTECTED", () => [...login, "--type", "privkey", "--id", "01", "--set-id", "44"]],
    ["--change-pin", "CKR_TOKEN_WRITE_PROTECTED", (on) => ["--login", "--change-pin", "--pin", on.pin, "--new-pin", "4321"]],
    ["--init-token", "CKR_TOKEN_WRITE_PROTECTED", (on) => ["--init-token", "--slot-index", "0", "--label", "other", "--so-pin", on.soPin]],
    ["--decrypt", "CKR_FUNCTION_NOT_SUPPORTED", () => [...login, "--decrypt", "-m", "RSA-PKCS", "--id", "01"]],
    ["--sign with raw RSA", "CKR_MECHANISM_INVALID", () => [...login, "--sign", "-m", "RSA-X-509", "--id", "01"]],
    ["--decrypt with raw RSA", "CKR_FUNCTION_NOT_SUPPORTED", () => [...login, "--decrypt", "-m", "RSA-X-509", "--id", "01"]],
  ];

  it.each(refusals)("%s is refused with %s and changes nothing", async (_, code, args) => {
    const before = tokenHash(token);
    const done = await through(agent, args(token), Buffer.alloc(256, 1));
    expect(`${done.stderr}${done.stdout.toString("latin1")}`).toContain(code);
    expect(done.code).not.toBe(0);
    expect(tokenHash(token)).toBe(before);
  });

  it("the SO cannot log in, and the token's files stay as they were", async () => {
    const before = tokenHash(token);
    const done = await through(agent, ["--login", "--login-type", "so", "--so-pin", token.soPin, "--init-pin", "--new-pin", "4321"]);
    expect(done.stderr).toContain("C_Login failed: rv = CKR_TOKEN_WRITE_PROTECTED");
    expect(done.code).not.toBe(0);
    expect(tokenHash(token)).toBe(before);
  });

  it("raw RSA opens a ciphertext only with --allow-raw-rsa", async () => {
    const key = readFileSync(token.keys.rsa?.publicKeyFile ?? "", "utf8");
    const secret = createHash("sha256").update("a session key").digest();
    const ciphertext = publicEncrypt({ key, padding: crypto.RSA_PKCS1_PADDING }, secret);
    const dir = mkdtempSync(join(tmpdir(), "tokenfwd-raw-"));
    const out = join(dir, "opened");
    const open = (server: ServerProcess) => through(server, [...login, "--sign", "-m", "RSA-X-509", "--id", "01", "-o", out], ciphertext);
    const refused = await open(agent);
    expect(refused.code).not.toBe(0);
    const allowing = await startAgent({ token, pin: "file", args: ["--allow-raw-rsa"] });
    try {
      // Shows that the test can fail: what is refused above does open it.
      const opened = await open(allowing);
      expect(`${opened.stderr} ${opened.code}`).toMatch(/ 0$/);
      expect(readFileSync(out).subarray(-32).equals(secret)).toBe(true);
    } finally {
      await allowing.dispose();
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
