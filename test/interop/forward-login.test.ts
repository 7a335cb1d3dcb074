/* Host keys and logins against a real sshd: what is asked, what is written, what is refused, and what a person is told. */
import { spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { run } from "../../src/base/run.js";
import { openTestForward, recordingUi, rejection, settingsOf } from "../support/forward.js";
import { makeSshKey, type Sshd, startSshd } from "../support/sshd.js";

let sshd: Sshd;
let directory: string;
beforeAll(async () => {
  sshd = await startSshd();
});
afterAll(() => sshd.dispose());
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-login-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const knownHosts = () => join(directory, "new", "known_hosts");
const strict = (mode: string) => [`UserKnownHostsFile=${knownHosts()}`, `StrictHostKeyChecking=${mode}`];
const publicKey = (name: string) =>
  readFileSync(join(sshd.dir, `${name}.pub`), "utf8")
    .split(" ")
    .slice(0, 2)
    .join(" ");

describe("an unknown host key", () => {
  it("is refused without a question under StrictHostKeyChecking yes, and without a yes under ask; nothing is written", async () => {
    const silent = recordingUi({ confirm: true });
    expect(await rejection(openTestForward(sshd, { recorded: silent, settings: await settingsOf(sshd, strict("yes")) }))).toMatchObject({
      code: "E_HOST_KEY_UNKNOWN",
    });
    expect(silent.questions).toEqual([]);
    const asked = recordingUi({ confirm: false });
    const error = await rejection(openTestForward(sshd, { recorded: asked, settings: await settingsOf(sshd, strict("ask")) }));
    expect(error).toMatchObject({ code: "E_HOST_KEY_UNKNOWN", message: expect.stringContaining(sshd.hostKey) });
    expect(asked.questions).toEqual([{ host: `[127.0.0.1]:${sshd.port}`, keyType: "ssh-ed25519", fingerprint: sshd.hostKey }]);
    expect(existsSync(knownHosts())).toBe(false);
  });

  it("is written for its port after a yes, 0600, and is known from then on, to ssh too", async () => {
    const ui = recordingUi({ confirm: true });
    await (await openTestForward(sshd, { recorded: ui, settings: await settingsOf(sshd, strict("ask")) })).forward.close();
    expect(readFileSync(knownHosts(), "utf8")).toBe(`[127.0.0.1]:${sshd.port} ${sshd.hostKeyLine}\n`);
    expect(statSync(knownHosts()).mode & 0o777).toBe(0o600);
    expect(statSync(join(directory, "new")).mode & 0o777).toBe(0o700);
    const again = recordingUi();
    await (await openTestForward(sshd, { recorded: again, settings: await settingsOf(sshd, strict("yes")) })).forward.close();
    expect(again.questions).toEqual([]);
    const ssh = await run("ssh", ["-F", sshd.sshConfig, ...strict("yes").flatMap((option) => ["-o", option]), "bastion", "exit 0"]);
    expect(ssh.exitCode).toBe(0);
  });

  it("is added without a question under accept-new and no, hashed when HashKnownHosts says so", async () => {
    for (const mode of ["accept-new", "no"]) {
      rmSync(join(directory, "new"), { recursive: true, force: true });
      const ui = recordingUi();
      const settings = await settingsOf(sshd, [...strict(mode), "HashKnownHosts=yes"]);
      await (await openTestForward(sshd, { recorded: ui, settings })).forward.close();
      expect(ui.questions).toEqual([]);
      expect(readFileSync(knownHosts(), "utf8")).toMatch(/^\|1\|\S+ ssh-ed25519 \S+\n$/);
      await (await openTestForward(sshd, { settings: await settingsOf(sshd, strict("yes")) })).forward.close();
    }
  });
});

describe("a host key that must not be taken", () => {
  const withKnown = async (text: string, mode: string) => {
    const file = join(directory, "known");
    writeFileSync(file, text);
    return await settingsOf(sshd, [`UserKnownHostsFile=${file}`, `StrictHostKeyChecking=${mode}`]);
  };
  const name = () => `[127.0.0.1]:${sshd.port}`;

  it("is a hard stop when it has changed, whatever StrictHostKeyChecking says, with file and line", async () => {
    makeSshKey(join(directory, "other"));
    const other = readFileSync(join(directory, "other.pub"), "utf8").split(" ").slice(0, 2).join(" ");
    for (const mode of ["yes", "ask", "accept-new", "no"]) {
      const ui = recordingUi({ confirm: true });
      const error = await rejection(
        openTestForward(sshd, { recorded: ui, settings: await withKnown(`# first\n${name()} ${other}\n`, mode) }),
      );
      expect(error.code).toBe("E_HOST_KEY_CHANGED");
      expect(error.hint).toContain("line 2");
      expect(error.hint).toContain("ssh-keygen -R");
      expect(ui.questions).toEqual([]);
    }
  });

  it("is a hard stop when it is revoked, also where another line knows it", async () => {
    const settings = await withKnown(`${name()} ${sshd.hostKeyLine}\n@revoked ${name()} ${sshd.hostKeyLine}\n`, "yes");
    expect(await rejection(openTestForward(sshd, { settings }))).toMatchObject({
      code: "E_HOST_KEY_CHANGED",
      message: expect.stringContaining("revoked"),
    });
  });

  it("is unsupported by name when only a certificate authority vouches for it", async () => {
    const settings = await withKnown(`@cert-authority ${name()} ${sshd.hostKeyLine}\n`, "yes");
    expect(await rejection(openTestForward(sshd, { settings }))).toMatchObject({
      code: "E_SSH_UNSUPPORTED",
      message: expect.stringContaining("@cert-authority"),
    });
  });

  it("is no matter when the server has a key of the known type, which is then asked for", async () => {
    const { forward, ui } = await openTestForward(sshd, { settings: await withKnown(`${name()} ${publicKey("host_ecdsa")}\n`, "yes") });
    expect(ui.events.find((event) => event.name === "hostkey")?.data).toMatchObject({ keyType: "ecdsa-sha2-nistp256" });
    await forward.close();
  });
});

describe("a login", () => {
  it("that no key opens says what was tried and what to do", async () => {
    makeSshKey(join(directory, "stranger"));
    const settings = { ...(await settingsOf(sshd)), identityFiles: [join(directory, "stranger")] };
    const error = await rejection(openTestForward(sshd, { settings }));
    expect(error.code).toBe("E_SSH_AUTH");
    expect(error.message).toContain("stranger");
    expect(error.hint).toContain("authorized_keys");
    expect(await rejection(openTestForward(sshd, { settings: { ...settings, identityFiles: [] } }))).toMatchObject({
      code: "E_SSH_AUTH",
      message: expect.stringContaining("nothing to try"),
    });
    expect(
      await rejection(openTestForward(sshd, { settings: { ...(await settingsOf(sshd)), user: "nobody-of-that-name" } })),
    ).toMatchObject({ code: "E_SSH_AUTH" });
  });

  it("asks for the passphrase of an encrypted key up to three times", async () => {
    const key = join(directory, "locked");
    makeSshKey(key, "ed25519", "correct horse");
    appendFileSync(sshd.authorizedKeys, readFileSync(`${key}.pub`));
    const settings = { ...(await settingsOf(sshd)), identityFiles: [key] };
    const good = recordingUi({ passphrases: ["wrong", "correct horse"] });
    await (await openTestForward(sshd, { settings, recorded: good })).forward.close();
    expect(good.questions).toEqual([key, key]);
    const bad = recordingUi({ passphrases: ["1", "2", "3", "correct horse"] });
    expect(await rejection(openTestForward(sshd, { settings, recorded: bad }))).toMatchObject({
      code: "E_SSH_AUTH",
      message: expect.stringContaining("wrong passphrase"),
    });
    expect(bad.questions).toHaveLength(3);
    const none = recordingUi();
    expect(await rejection(openTestForward(sshd, { settings, recorded: none }))).toMatchObject({
      code: "E_SSH_AUTH",
      message: expect.stringContaining("no passphrase"),
    });
  });

  it("uses an agent, offers the configured key alone under IdentitiesOnly, and survives an agent that is not there", async () => {
    const socket = join(directory, "agent");
    const agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: ["ignore", "pipe", "ignore"] });
    await new Promise((resolve) => agent.stdout.once("data", resolve));
    try {
      for (const name of ["a", "b"]) {
        makeSshKey(join(directory, name), name === "b" ? "rsa" : "ed25519");
        const added = await run("ssh-add", [join(directory, name)], { env: { SSH_AUTH_SOCK: socket } });
        expect(added.exitCode).toBe(0);
      }
      appendFileSync(sshd.authorizedKeys, readFileSync(join(directory, "b.pub")));
      const base = await settingsOf(sshd);
      const any = await openTestForward(sshd, { settings: { ...base, identityAgent: socket, identitiesOnly: false, identityFiles: [] } });
      expect(any.ui.events.filter((event) => event.name === "auth").map(({ data }) => [data["method"], data["ok"]])).toEqual([
        ["agent", false],
        ["agent", true],
      ]);
      await any.forward.close();
      const only = await openTestForward(sshd, {
        settings: { ...base, identityAgent: socket, identitiesOnly: true, identityFiles: [join(directory, "b")] },
      });
      expect(only.ui.events.filter((event) => event.name === "auth").map(({ data }) => data)).toEqual([
        { method: "agent", key: "tokenfwd test", ok: true },
      ]);
      await only.forward.close();
      const dead = await openTestForward(sshd, { settings: { ...base, identityAgent: join(directory, "no-agent") } });
      expect(dead.ui.events.filter((event) => event.name === "auth").map((event) => [event.data["method"], event.data["ok"]])).toEqual([
        ["agent", false],
        ["publickey", true],
      ]);
      await dead.forward.close();
    } finally {
      const exited = new Promise((resolve) => agent.once("exit", resolve));
      agent.kill();
      await exited;
    }
  });
});

describe("an agent that asks a person first", () => {
  it("has more time than ConnectTimeout gives to a server", async () => {
    const socket = join(directory, "agent");
    const ask = join(directory, "ask");
    writeFileSync(ask, "#!/bin/sh\nsleep 2\n", { mode: 0o700 });
    const env = { ...process.env, SSH_ASKPASS: ask, SSH_ASKPASS_REQUIRE: "force", DISPLAY: ":none" };
    const agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: ["ignore", "pipe", "ignore"], env });
    await new Promise((resolve) => agent.stdout.once("data", resolve));
    try {
      const added = await run("ssh-add", ["-c", sshd.identityFile], { env: { SSH_AUTH_SOCK: socket } });
      expect(added.exitCode).toBe(0);
      const settings = {
        ...(await settingsOf(sshd, ["ConnectTimeout=1"])),
        identityAgent: socket,
        identityFiles: [],
        identitiesOnly: false,
      };
      const { forward } = await openTestForward(sshd, { settings });
      await forward.close();
    } finally {
      const exited = new Promise((resolve) => agent.once("exit", resolve));
      agent.kill();
      await exited;
    }
  });
});

describe("a server that allows few tries", () => {
  it("ends a login with too many keys in an error that says so", async () => {
    const strictServer = await startSshd({ config: ["MaxAuthTries 2"] });
    try {
      const identityFiles = ["a", "b", "c"].map((name) => join(directory, name));
      for (const file of identityFiles) makeSshKey(file);
      const error = await rejection(openTestForward(strictServer, { settings: { ...(await settingsOf(strictServer)), identityFiles } }));
      expect(error).toMatchObject({ code: "E_SSH_AUTH", hint: expect.stringContaining("IdentitiesOnly") });
    } finally {
      await strictServer.dispose();
    }
  });
});

describe("a server that is not there", () => {
  it("is refused, unknown by name, silent or no ssh server, each in its own words", async () => {
    const base = await settingsOf(sshd);
    const silent = createServer(() => {});
    const wrong = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    const ports: number[] = [];
    for (const server of [silent, wrong]) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const address = server.address();
      ports.push(typeof address === "object" && address !== null ? address.port : 0);
    }
    try {
      expect(await rejection(openTestForward(sshd, { settings: { ...base, port: 1 } }))).toMatchObject({
        code: "E_SSH",
        message: expect.stringContaining("refused the connection"),
      });
      expect(await rejection(openTestForward(sshd, { settings: { ...base, host: "no-such-host.invalid" } }))).toMatchObject({
        code: "E_SSH",
        message: expect.stringContaining("cannot be resolved"),
      });
      const started = performance.now();
      expect(await rejection(openTestForward(sshd, { settings: { ...base, port: ports[0] ?? 0, connectTimeoutMs: 300 } }))).toMatchObject({
        code: "E_SSH",
        message: expect.stringContaining("no answer"),
      });
      expect(performance.now() - started).toBeLessThan(5_000);
      expect(await rejection(openTestForward(sshd, { settings: { ...base, port: ports[1] ?? 0 } }))).toMatchObject({ code: "E_SSH" });
    } finally {
      for (const server of [silent, wrong]) server.close();
    }
  });
});
