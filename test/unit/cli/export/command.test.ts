/* The text that export prints: what of a destination's settings is in it, and what a shell or ssh would make of it. */
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { settingsBetween } from "../../../../src/cli/export/destination.js";
import { aliasOf, byHandText, isPlainPath } from "../../../../src/cli/export/text.js";

describe("the settings of the block", () => {
  it("are those that the destination has and its alias would not have", () => {
    const destination = [
      "host bastion",
      "user ops",
      "hostname 192.0.2.7",
      "port 2222",
      "identityfile ~/.ssh/a",
      "identityfile ~/my keys/b",
      "proxyjump gate",
      "remoteforward /run/user/1/p11-kit/pkcs11 /run/x",
      "loglevel INFO",
      "sendenv LANG",
    ];
    const alias = [
      "host bastion-token",
      "user me",
      "hostname bastion-token",
      "port 22",
      "identityfile ~/.ssh/id_rsa",
      "loglevel INFO",
      "sendenv LANG",
    ];
    expect(settingsBetween(destination.join("\n"), alias.join("\n"))).toEqual([
      "User ops",
      "HostName 192.0.2.7",
      "Port 2222",
      "IdentityFile ~/.ssh/a",
      'IdentityFile "~/my keys/b"',
      "ProxyJump gate",
    ]);
  });

  it("name the host even where nothing else differs", () => {
    expect(settingsBetween("hostname example.org\nport 22\n", "hostname example.org\nport 22\n")).toEqual(["HostName example.org"]);
  });
});

describe("the alias", () => {
  it.each([
    ["bastion", "bastion-token"],
    ["ops@bastion.example.org", "bastion.example.org-token"],
    ["ssh://ops@bastion:22", "bastion-22-token"],
    ["::1", "1-token"],
    ["*", "bastion-token"],
  ])("of %s is %s", (destination, alias) => {
    expect(aliasOf(destination)).toBe(alias);
  });
});

describe("the text", () => {
  const given = {
    destination: "bastion",
    alias: "bastion-token",
    settings: ["HostName 192.0.2.7"],
    configFile: null,
    modulePath: "/opt/it's a module.so",
    uri: "pkcs11:token=a%20b;serial='1'",
    localSocket: "/run/user/1000/tokenfwd-by-hand/p11.sock",
    runtimeDir: "/run/user/1001",
  };

  it("has lines that a shell takes as they stand, with the module and the URI as one word each", () => {
    const script = byHandText(given)
      .split("\n")
      .filter((line) => !line.startsWith("#"));
    const lines = script.slice(script.findIndex((line) => line.startsWith("mkdir"))).join("\n");
    execFileSync("sh", ["-n"], { input: lines });
    const stands = "words() { for word; do printf '[%s]' \"$word\" >&2; done; }; ssh() { :; }; mkdir() { :; }; kill() { :; }; exec 2>&1";
    const said = execFileSync("sh", ["-s"], { input: `${stands}\n${lines.replace("p11-kit server", "words server")}`, encoding: "utf8" });
    expect(said).toBe(`[server][--name][${given.localSocket}][--provider][${given.modulePath}][${given.uri}]`);
  });

  it("takes no path that ssh_config or a shell would read as something else", () => {
    expect(isPlainPath("/run/user/1000/tokenfwd-by-hand/p11.sock")).toBe(true);
    for (const path of ["/a b", "/a%d", "/a$b", "/a'b", '/a"b', "/a\nb", "relative", "/a;b", "/a#b"])
      expect(isPlainPath(path), path).toBe(false);
  });
});
