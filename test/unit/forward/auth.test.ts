/* No login signs with SHA-1, whatever the server asks for. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import ssh2, { type ParsedKey } from "ssh2";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sha2Agent } from "../../../src/forward/ssh2/login-keys.js";
import { makeSshKey } from "../../support/sshd.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-auth-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe("a login key", () => {
  for (const [type, hash, signs] of [
    ["rsa", "sha1", false],
    ["rsa", undefined, false],
    ["rsa", "sha256", true],
    ["rsa", "sha512", true],
    ["ed25519", undefined, true],
    ["ecdsa", undefined, true],
  ] as const) {
    it(`${signs ? "signs" : "does not sign"} as ${type} with ${hash ?? "no hash named"}`, async () => {
      makeSshKey(join(directory, "key"), type);
      const key = ssh2.utils.parseKey(readFileSync(join(directory, "key"))) as ParsedKey;
      let asked = 0;
      const agent = sha2Agent([key], (_key, data, _hash, done) => {
        asked += 1;
        done(undefined, data);
      });
      const error = await new Promise((resolve) => agent.sign(key, Buffer.from("data"), hash === undefined ? {} : { hash }, resolve));
      expect(error === undefined).toBe(signs);
      expect(asked).toBe(signs ? 1 : 0);
    });
  }
});
