import { createPrivateKey, sign, verify } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createSecrets, publicKeyOf, readSecrets, writeSecrets } from "../../../../src/choria/signer/secrets.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-secrets-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function replaceByLink(file: string): void {
  renameSync(file, `${file}.x`);
  symlinkSync(`${file}.x`, file);
}
function replaceByDirectory(file: string): void {
  rmSync(file);
  mkdirSync(file);
}
const mode = (path: string): number => statSync(path).mode & 0o777;

describe("the signer's secrets", () => {
  it("are new each time, and the seed is one that stock Choria takes", () => {
    const [one, two] = [createSecrets(), createSecrets()];
    expect(one.token.toString()).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(one.seed.toString()).toMatch(/^[0-9a-f]{64}$/);
    expect(one.token.equals(two.token) || one.seed.equals(two.seed)).toBe(false);
    // An independent reading of the seed: RFC 8410 as a JWK.
    const x = publicKeyOf(one).export({ format: "jwk" }).x ?? "";
    const d = Buffer.from(one.seed.toString(), "hex").toString("base64url");
    const key = createPrivateKey({ key: { kty: "OKP", crv: "Ed25519", d, x }, format: "jwk" });
    expect(verify(null, Buffer.from("x"), publicKeyOf(one), sign(null, Buffer.from("x"), key))).toBe(true);
  });

  it("lie in a directory of mode 0700, in files of mode 0600, whatever the umask says", () => {
    const place = join(dir, "a", "b");
    const mask = process.umask(0);
    try {
      const { tokenFile, seedFile, token, seed } = writeSecrets(place);
      expect([mode(place), mode(tokenFile), mode(seedFile)]).toEqual([0o700, 0o600, 0o600]);
      expect(readFileSync(tokenFile).equals(token) && readFileSync(seedFile).equals(seed)).toBe(true);
    } finally {
      process.umask(mask);
    }
  });

  it("are read again, and never written over", () => {
    expect(readSecrets(join(dir, "none"))).toBeNull();
    const written = writeSecrets(dir);
    expect(readSecrets(dir)).toEqual(written);
    expect(() => writeSecrets(dir)).toThrow(/holds a signer's secrets already/);
    expect(readSecrets(dir)).toEqual(written);
  });

  it("are not made where others can look", () => {
    chmodSync(dir, 0o755);
    expect(() => writeSecrets(dir)).toThrow(
      expect.objectContaining({ code: "E_CHORIA", message: expect.stringContaining("has mode 0755") }),
    );
    const link = `${dir}-link`;
    symlinkSync(dir, link);
    try {
      expect(() => writeSecrets(link)).toThrow(/is a symbolic link/);
    } finally {
      rmSync(link);
    }
    writeFileSync(join(dir, "file"), "");
    expect(() => writeSecrets(join(dir, "file"))).toThrow(/is not a directory/);
    expect(() => writeSecrets(join(dir, "file", "x"))).toThrow(/cannot be made \(ENOTDIR\)/);
  });

  it.each([
    ["a file that others can read", (file: string) => chmodSync(file, 0o644), /has mode 0644, which must be 0600/],
    ["a link", replaceByLink, /cannot be read \(ELOOP\)/],
    ["a directory", replaceByDirectory, /is not a file/],
    ["another text", (file: string) => writeFileSync(file, "x".repeat(64)), /is not what a signer of ours wrote there/],
    [
      "a newline at the end",
      (file: string) => writeFileSync(file, `${readFileSync(file, "utf8")}\n`),
      /is not what a signer of ours wrote there/,
    ],
    ["no file", (file: string) => rmSync(file), /cannot be read \(ENOENT\)/],
  ])("are not taken from %s", (_name, spoil, message) => {
    const { seedFile } = writeSecrets(dir);
    spoil(seedFile);
    expect(() => readSecrets(dir)).toThrow(message);
  });
});
