/* What ssh -G says, and what our transport cannot do. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseSshG, resolveSshSettings } from "../../../src/forward/ssh-settings.js";
import { expandTokens } from "../../../src/forward/ssh-tokens.js";
import { rejection } from "../../support/forward.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-settings-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const BASE = "host b\nuser ops\nhostname bastion.example\nport 2222\n";
const codeOf = (text: string): { code: string; text: string } => {
  try {
    parseSshG("b", text);
  } catch (error) {
    const { code, message, hint } = error as { code: string; message: string; hint: string };
    return { code, text: `${message} ${hint}` };
  }
  return { code: "none", text: "" };
};

describe("ssh -G", () => {
  it("is asked with the file, port, key and options given, and knows of the nesting", async () => {
    const key = join(directory, "key");
    writeFileSync(key, "x");
    const config = join(directory, "config");
    writeFileSync(
      config,
      'Match exec "test x$TOKENFWD_NESTED = x1"\n  User nested\nHost bastion\n  HostName 192.0.2.7\n  ServerAliveInterval 7\n',
    );
    const settings = await resolveSshSettings("bastion", {
      configFile: config,
      port: 2200,
      identity: key,
      sshOptions: ["ConnectTimeout=4", "StrictHostKeyChecking=no"],
    });
    expect(settings).toMatchObject({
      destination: "bastion",
      host: "192.0.2.7",
      user: "nested",
      port: 2200,
      connectTimeoutMs: 4000,
      keepaliveMs: 7000,
      keepaliveCount: 3,
      strictHostKeyChecking: "no",
    });
    expect(settings.identityFiles).toContain(key);
  });

  it("never sees a destination that begins with a hyphen", async () => {
    for (const destination of ["-oProxyCommand=x", "-", ""])
      expect(await rejection(resolveSshSettings(destination))).toMatchObject({ code: "E_USAGE" });
  });

  it("that fails is E_SSH_CONFIG with its own words", async () => {
    const error = await rejection(resolveSshSettings("b", { configFile: join(directory, "none") }));
    expect(error).toMatchObject({ code: "E_SSH_CONFIG", hint: expect.stringContaining("ssh -G") });
    expect(await rejection(resolveSshSettings("b", { configFile: "/dev/null", sshOptions: ["NoSuchOption=1"] }))).toMatchObject({
      code: "E_SSH_CONFIG",
    });
  });

  it("that is missing is E_SSH_CONFIG too", async () => {
    const path = process.env["PATH"];
    process.env["PATH"] = directory;
    try {
      expect(await rejection(resolveSshSettings("b"))).toMatchObject({
        code: "E_SSH_CONFIG",
        message: expect.stringContaining("no ssh program"),
      });
    } finally {
      process.env["PATH"] = path;
    }
  });
});

describe("the output of ssh -G", () => {
  it("has defaults for what it does not say, and values in any case", () => {
    expect(
      parseSshG("b", `${BASE}stricthostkeychecking TRUE\nidentitiesonly Yes\nAddressFamily INET6\nhashknownhosts yes\n`),
    ).toMatchObject({
      strictHostKeyChecking: "yes",
      identitiesOnly: true,
      addressFamily: "inet6",
      hashKnownHosts: true,
      connectTimeoutMs: 20_000,
      keepaliveMs: 15_000,
      keepaliveCount: 3,
      hostKeyAlias: null,
      bindAddress: null,
    });
  });

  it("tells the four answers to a new host key apart", () => {
    for (const [said, means] of [
      ["true", "yes"],
      ["ask", "ask"],
      ["accept-new", "accept-new"],
      ["false", "no"],
      ["off", "no"],
    ]) {
      expect(parseSshG("b", `${BASE}stricthostkeychecking ${said}\n`).strictHostKeyChecking).toBe(means);
    }
  });

  it("names each setting that cannot be used, and the way round", () => {
    for (const [line, setting] of [
      ["proxycommand nc %h %p", "ProxyCommand"],
      ["certificatefile ~/.ssh/id-cert.pub", "CertificateFile"],
      ["pkcs11provider /usr/lib/p11.so", "PKCS11Provider"],
      ["revokedhostkeys /etc/ssh/revoked", "RevokedHostKeys"],
      ["knownhostscommand /usr/bin/keys %H", "KnownHostsCommand"],
    ] as const) {
      const found = codeOf(`${BASE}${line}\n`);
      expect(found.code, line).toBe("E_SSH_UNSUPPORTED");
      expect(found.text).toContain(setting);
    }
    expect(codeOf(`${BASE}proxycommand none\nproxyjump none\nrevokedhostkeys none\nknownhostscommand none\n`).code).toBe("none");
  });

  it("takes identity files that exist, and refuses a certificate beside one and a security key alone", () => {
    const plain = join(directory, "id_a");
    writeFileSync(plain, "x");
    expect(parseSshG("b", `${BASE}identityfile ${plain}\nidentityfile ${plain}-none\nidentityagent none\n`)).toMatchObject({
      identityFiles: [plain],
      identityAgent: null,
    });
    writeFileSync(`${plain}.pub`, "sk-ssh-ed25519@openssh.com AAAA");
    expect(codeOf(`${BASE}identityfile ${plain}\nidentityagent none\n`).text).toContain("security key");
    writeFileSync(`${plain}-cert.pub`, "x");
    expect(codeOf(`${BASE}identityfile ${plain}\n`).text).toContain("certificate lies beside");
  });

  it("finds the agent where ssh would, and the RemoteForward lines of the recipe by hand", () => {
    expect(parseSshG("b", `${BASE}identityagent ~/a.sock\n`).identityAgent).toBe(`${homedir()}/a.sock`);
    expect(
      parseSshG("b", `${BASE}remoteforward /run/user/1000/p11-kit/pkcs11 [/run/user/1000/p11-kit/pkcs11-1]\nremoteforward 8080 [x]:80\n`)
        .staleForwards,
    ).toEqual(["/run/user/1000/p11-kit/pkcs11 [/run/user/1000/p11-kit/pkcs11-1]"]);
  });

  it("keeps a known_hosts file whose name holds a space in one piece", () => {
    const line = "userknownhostsfile /home/A B/.ssh/known_hosts /home/A B/.ssh/known_hosts2";
    expect(parseSshG("b", `${BASE}${line}\nglobalknownhostsfile none\n`)).toMatchObject({
      userKnownHostsFiles: ["/home/A B/.ssh/known_hosts", "/home/A B/.ssh/known_hosts2"],
      globalKnownHostsFiles: [],
    });
  });

  it("without a host is E_SSH_CONFIG", () => {
    expect(codeOf("user x\n").code).toBe("E_SSH_CONFIG");
  });
});

describe("a file name of ssh_config", () => {
  it("is expanded as ssh does, and an unknown token stays", () => {
    const context = { destination: "me@b", host: "h", user: "ops", port: 22, hostKeyAlias: null };
    process.env["TFWD_TEST_DIR"] = "/d";
    const { TFWD_TEST_DIR } = process.env;
    expect(expandTokens("~/%h-%n-%p-%r-%k-%%-%Z", context)).toBe(`${homedir()}/h-b-22-ops-h-%-%Z`);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is ssh's
    expect(expandTokens("${TFWD_TEST_DIR}/%u/%i/%d", context)).toBe(
      `${TFWD_TEST_DIR}/${userInfo().username}/${userInfo().uid}/${homedir()}`,
    );
    expect(expandTokens('"a b"', context)).toBe("a b");
    delete process.env["TFWD_TEST_DIR"];
  });
});
