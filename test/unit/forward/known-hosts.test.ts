/* Host keys: which lines count, and what a key that is not among them means. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { run } from "../../../src/base/run.js";
import {
  addKnownKey,
  findKnownKeys,
  fingerprint,
  judgeHostKey,
  type KnownKey,
  keyType,
  knownHostsName,
  preferredKeyTypes,
} from "../../../src/forward/known-hosts.js";
import { parseSshG } from "../../../src/forward/ssh-settings.js";
import { makeSshKey } from "../../support/sshd.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-known-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function key(name: string, type: "ed25519" | "ecdsa" | "rsa" = "ed25519"): { line: string; blob: Buffer } {
  makeSshKey(join(directory, name), type);
  const line = readFileSync(join(directory, `${name}.pub`), "utf8")
    .split(" ")
    .slice(0, 2)
    .join(" ");
  return { line, blob: Buffer.from(line.split(" ")[1] ?? "", "base64") };
}
const settings = (...lines: string[]) => parseSshG("b", `user u\nhostname Bastion.Example\nport 2222\n${lines.join("\n")}\n`);

describe("known_hosts", () => {
  it("is looked up under the lower-case host with its port, or the alias alone", () => {
    expect(knownHostsName({ host: "B", port: 22, hostKeyAlias: null })).toBe("b");
    expect(knownHostsName({ host: "B", port: 2222, hostKeyAlias: null })).toBe("[b]:2222");
    expect(knownHostsName({ host: "B", port: 2222, hostKeyAlias: "Alias" })).toBe("Alias");
  });

  it("is read from every user and global file, hashed names and markers included, with the line", async () => {
    const [a, b, c] = [key("a"), key("b", "ecdsa"), key("c")];
    const name = "[bastion.example]:2222";
    const [user, global] = [join(directory, "user"), join(directory, "global")];
    writeFileSync(user, `# comment\nother ${b.line}\n${name} ${a.line} a comment\n`);
    await run("ssh-keygen", ["-H", "-f", user]);
    writeFileSync(global, `@revoked * ${c.line}\n${name} ${b.line}\n`);
    const found = await findKnownKeys(settings(`userknownhostsfile ${user} ${directory}/none`, `globalknownhostsfile ${global}`));
    expect(found.map((one) => [one.marker, one.type, one.file, one.line, one.key])).toEqual([
      [null, "ssh-ed25519", user, 3, a.blob],
      ["revoked", "ssh-ed25519", global, 1, c.blob],
      [null, "ecdsa-sha2-nistp256", global, 2, b.blob],
    ]);
  });

  it("is read for port 22 too when nothing is known for our port: a match counts, a mismatch is only unknown", async () => {
    const [a, b] = [key("a"), key("b")];
    const file = join(directory, "user");
    writeFileSync(file, `bastion.example ${a.line}\n`);
    const found = await findKnownKeys(settings(`userknownhostsfile ${file}`));
    expect(judgeHostKey("h", a.blob, found)).toBe("known");
    expect(judgeHostKey("h", b.blob, found)).toBe("unknown");
    writeFileSync(file, `bastion.example ${a.line}\n[bastion.example]:2222 ${b.line}\n`);
    const both = await findKnownKeys(settings(`userknownhostsfile ${file}`));
    expect(() => judgeHostKey("h", a.blob, both)).toThrow(expect.objectContaining({ code: "E_HOST_KEY_CHANGED" }));
  });

  it("is asked about a host on another port for what revokes, too", async () => {
    const a = key("a");
    const file = join(directory, "user");
    writeFileSync(file, `@revoked bastion.example ${a.line}\n`);
    const found = await findKnownKeys(settings(`userknownhostsfile ${file}`));
    expect(() => judgeHostKey("h", a.blob, found)).toThrow(expect.objectContaining({ message: expect.stringContaining("revoked") }));
  });

  it("that cannot be looked into is an error, never a file without the host", async () => {
    const file = join(directory, "user");
    writeFileSync(file, "");
    writeFileSync(join(directory, "ssh-keygen"), "#!/bin/sh\necho broken >&2\nexit 255\n", { mode: 0o700 });
    const before = process.env["PATH"];
    process.env["PATH"] = `${directory}:${before}`;
    try {
      await expect(findKnownKeys(settings(`userknownhostsfile ${file}`))).rejects.toMatchObject({
        code: "E_SSH_CONFIG",
        message: expect.stringContaining("broken"),
      });
    } finally {
      process.env["PATH"] = before;
    }
  });

  it("that cannot be written is told, and is no bug of ours", async () => {
    writeFileSync(join(directory, "file"), "");
    expect(await addKnownKey(settings(`userknownhostsfile ${directory}/file/known_hosts`), key("a").blob)).toBe(false);
  });

  it("gets one more line, after a line break if the last had none", async () => {
    const file = join(directory, "file");
    writeFileSync(file, "x ssh-ed25519 AAAA");
    const { line, blob } = key("a");
    await addKnownKey(settings(`userknownhostsfile ${file}`), blob);
    expect(readFileSync(file, "utf8")).toBe(`x ssh-ed25519 AAAA\n[bastion.example]:2222 ${line}\n`);
    await addKnownKey(settings("userknownhostsfile /dev/null"), blob);
  });
});

describe("a host key", () => {
  const entry = (blob: Buffer, marker: KnownKey["marker"] = null): KnownKey => ({
    marker,
    type: keyType(blob),
    key: blob,
    file: "/k",
    line: 4,
  });

  it("is known, unknown, changed or revoked", () => {
    const [a, b, c] = [key("a").blob, key("b").blob, key("c", "ecdsa").blob];
    expect(judgeHostKey("h", a, [entry(b), entry(a)])).toBe("known");
    expect(judgeHostKey("h", a, [])).toBe("unknown");
    expect(judgeHostKey("h", a, [entry(b, "revoked")])).toBe("unknown");
    for (const known of [[entry(b)], [entry(c)], [entry(a), entry(a, "revoked")]]) {
      expect(() => judgeHostKey("h", a, known)).toThrow(
        expect.objectContaining({ code: "E_HOST_KEY_CHANGED", hint: expect.stringContaining("/k line 4") }),
      );
    }
  });

  it("has the fingerprint that ssh prints, and a type only when its blob holds one", async () => {
    const { blob } = key("a");
    const printed = await run("ssh-keygen", ["-l", "-f", join(directory, "a.pub")]);
    expect(printed.stdout.toString()).toContain(fingerprint(blob));
    expect(keyType(blob)).toBe("ssh-ed25519");
    expect(keyType(Buffer.from([0, 0, 1, 0, 65]))).toBe("");
    expect(keyType(Buffer.from([0]))).toBe("");
  });

  it("is asked for in the types that are known first, RSA only with SHA-2", () => {
    const known = [entry(key("r", "rsa").blob), entry(key("e", "ecdsa").blob, "revoked")];
    expect(preferredKeyTypes(known, ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"])).toEqual([
      "rsa-sha2-512",
      "rsa-sha2-256",
      "ssh-ed25519",
    ]);
  });
});
