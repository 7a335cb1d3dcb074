/* What is offered in the key exchange: ssh_config can make it less and never weaker. */
import { expect, it } from "vitest";
import { parseSshG } from "../../../src/forward/ssh-settings.js";
import { algorithmsFor } from "../../../src/forward/ssh2/algorithms.js";

const offer = (...lines: string[]) =>
  algorithmsFor(parseSshG("b", `user u\nhostname h\nport 22\n${lines.join("\n")}\n`), []) as Readonly<Record<string, readonly string[]>>;

it("nothing that the configuration does not name is offered, and nothing weak that it names", () => {
  const found = offer(
    "kexalgorithms curve25519-sha256,diffie-hellman-group1-sha1",
    "ciphers aes256-ctr,3des-cbc",
    "macs hmac-sha2-512,hmac-md5,hmac-sha1",
    "hostkeyalgorithms ssh-rsa,rsa-sha2-512,ssh-ed25519-cert-v01@openssh.com",
  );
  expect(found).toEqual({
    kex: ["curve25519-sha256"],
    cipher: ["aes256-ctr"],
    hmac: ["hmac-sha2-512"],
    serverHostKey: ["rsa-sha2-512"],
    compress: ["none"],
  });
});

it("a configuration that leaves nothing of ours is E_SSH_UNSUPPORTED and names the setting", () => {
  for (const [line, setting] of [
    ["kexalgorithms sntrup761x25519-sha512", "KexAlgorithms"],
    ["ciphers 3des-cbc", "Ciphers"],
    ["macs umac-64@openssh.com", "MACs"],
    ["hostkeyalgorithms ssh-rsa", "HostKeyAlgorithms"],
  ] as const)
    expect(() => offer(line)).toThrow(expect.objectContaining({ code: "E_SSH_UNSUPPORTED", message: expect.stringContaining(setting) }));
});

it("without a word of the configuration it is our list, without SHA-1, CBC and compression", () => {
  const found = offer();
  expect(Object.values(found).flat().join(" ")).not.toMatch(/sha1\b|cbc|zlib|ssh-rsa|md5|ssh-dss/);
  expect(found["serverHostKey"]?.[0]).toBe("ssh-ed25519");
});
