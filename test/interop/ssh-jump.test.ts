/* One jump host in front of the bastion: two real sshd, each with its own host key, login and rules. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { resolveSshSettings, type SshSettings } from "../../src/forward/ssh-settings.js";
import { createFakeP11Server } from "../support/fake-p11-server.js";
import { openTestForward, recordingUi, rejection, SLOTS, startProxy, untilContents } from "../support/forward.js";
import { type Sshd, startSshd } from "../support/sshd.js";

let jump: Sshd;
let bastion: Sshd;
let directory: string;
beforeAll(async () => {
  [jump, bastion] = await Promise.all([startSshd(), startSshd()]);
});
afterAll(async () => {
  await jump?.dispose();
  await bastion?.dispose();
});
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-jump-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A client configuration that reaches the bastion through the jump host. */
function config(through = jump, lines: readonly string[] = []): string {
  const file = join(directory, "ssh_config");
  const hop = readFileSync(through.sshConfig, "utf8").replaceAll("Host bastion", "Host jump");
  const end = readFileSync(bastion.sshConfig, "utf8");
  writeFileSync(file, `${hop}${lines.map((line) => `  ${line}\n`).join("")}${end}  ProxyJump jump\n`);
  return file;
}
const settings = async (file = config(), sshOptions: readonly string[] = []): Promise<SshSettings> =>
  await resolveSshSettings("bastion", { configFile: file, sshOptions });
const left = () => [...readdirSync(bastion.runtimeDir), ...readdirSync(jump.runtimeDir)];

describe("a bastion behind a jump host", () => {
  it("is reached, verified and cleaned up as any other; the jump host keeps nothing", async () => {
    const { forward, ui } = await openTestForward(null, { settings: await settings() });
    expect(forward.ready).toMatchObject({ verified: "rpc", hostKey: bastion.hostKey, port: bastion.port, pty: true });
    expect(ui.events.filter((event) => event.name === "hostkey").map(({ data }) => [data["hostKey"], data["jump"] === true])).toEqual([
      [jump.hostKey, true],
      [bastion.hostKey, false],
    ]);
    expect(readdirSync(jump.runtimeDir)).toEqual([]);
    await forward.close();
    expect(left()).toEqual([]);
  });

  it("is reached by -J too, with a user and a port", async () => {
    const file = join(directory, "plain");
    const hop = readFileSync(jump.sshConfig, "utf8")
      .replace("Host bastion", "Host 127.0.0.1")
      .replace(/ {2}Port .*\n/, "");
    writeFileSync(file, `${readFileSync(bastion.sshConfig, "utf8")}${hop}`);
    const found = await settings(file, [`ProxyJump=${jump.user}@127.0.0.1:${jump.port}`]);
    expect(found.jump).toMatchObject({ host: "127.0.0.1", port: jump.port, user: jump.user, jump: null });
    await (await openTestForward(null, { settings: found })).forward.close();
    expect(left()).toEqual([]);
  });

  it("has a terminal open on the jump host, because its sshd holds small packets back without one", async () => {
    const quick = await startSshd();
    try {
      const { forward } = await openTestForward(null, { settings: await settings(config(quick)) });
      expect(quick.log()).toMatch(/Starting session: .*on pts\//);
      await forward.close();
    } finally {
      await quick.dispose();
    }
  });

  it("is not reached through a jump host whose key is unknown, changed or not confirmed; nothing is asked of the bastion", async () => {
    const none = join(directory, "none");
    for (const [line, code] of [
      [`UserKnownHostsFile ${none}`, "E_HOST_KEY_UNKNOWN"],
      [`UserKnownHostsFile ${join(directory, "changed")}`, "E_HOST_KEY_CHANGED"],
    ] as const) {
      const other = readFileSync(bastion.hostKeyLine === "" ? none : bastion.knownHosts, "utf8")
        .split(" ")
        .slice(1)
        .join(" ");
      writeFileSync(join(directory, "changed"), `[127.0.0.1]:${jump.port} ${other}`);
      const hop = readFileSync(jump.sshConfig, "utf8")
        .replaceAll("Host bastion", "Host jump")
        .replace(/ {2}UserKnownHostsFile .*/, `  ${line}`);
      const file = join(directory, "ssh_config");
      writeFileSync(file, `${hop}${readFileSync(bastion.sshConfig, "utf8")}  ProxyJump jump\n`);
      const ui = recordingUi();
      expect((await rejection(openTestForward(null, { recorded: ui, settings: await settings(file) }))).code).toBe(code);
      expect(ui.events.filter((event) => event.name === "hostkey")).toEqual([]);
    }
  });

  it("has its own key checked as well: a bastion that shows another one is a hard stop behind a good jump host", async () => {
    const known = join(directory, "known");
    writeFileSync(known, `[127.0.0.1]:${bastion.port} ${jump.hostKeyLine}\n`);
    const ui = recordingUi();
    const found = await settings(config(), [`UserKnownHostsFile=${known}`]);
    expect((await rejection(openTestForward(null, { recorded: ui, settings: found }))).code).toBe("E_HOST_KEY_CHANGED");
    expect(ui.events.filter((event) => event.name === "hostkey").map(({ data }) => data["jump"])).toEqual([true]);
  });

  it("is not reached through a jump host that forwards nothing, refuses the login or cannot reach it, each in its own words", async () => {
    const closed = await startSshd({ config: ["AllowTcpForwarding no"] });
    try {
      expect(await rejection(openTestForward(null, { settings: await settings(config(closed)) }))).toMatchObject({
        code: "E_SSH",
        message: expect.stringContaining("the jump host 127.0.0.1 does not reach 127.0.0.1"),
        hint: expect.stringContaining("AllowTcpForwarding"),
      });
    } finally {
      await closed.dispose();
    }
    const stranger = join(directory, "stranger");
    writeFileSync(stranger, "");
    const found = await settings();
    const refused = { ...found, jump: found.jump === null ? null : { ...found.jump, identityFiles: [stranger] } };
    expect((await rejection(openTestForward(null, { settings: refused }))).code).toBe("E_SSH_AUTH");
    const nowhere = { ...found, port: 1 };
    expect((await rejection(openTestForward(null, { settings: nowhere }))).message).toContain("port 1");
    expect(left()).toEqual([]);
  });

  it("works through a jump host that gives no terminal and no shell", async () => {
    const bare = await startSshd({ config: ["PermitTTY no", "ForceCommand /bin/false"] });
    try {
      const { forward } = await openTestForward(null, { settings: await settings(config(bare)) });
      expect(forward.ready.verified).toBe("rpc");
      await forward.close();
    } finally {
      await bare.dispose();
    }
    expect(left()).toEqual([]);
  });

  it("is lost, with a word about it, when the jump host is cut off; the bastion cleans itself up", async () => {
    const proxy = await startProxy(jump.port);
    const found = await settings();
    const behind = found.jump === null ? null : { ...found.jump, port: proxy.port, hostKeyAlias: `[127.0.0.1]:${jump.port}` };
    const { forward } = await openTestForward(null, { settings: { ...found, jump: behind } });
    proxy.cut();
    expect((await forward.lost).code).toBe("E_SSH_LOST");
    await forward.close();
    await proxy.dispose();
    await untilContents(bastion.runtimeDir, []);
  });

  it("is reached by several connects at once", async () => {
    const agent = createFakeP11Server({ slots: SLOTS });
    const found = await settings();
    const opened = await Promise.all([1, 2, 3].map(() => openTestForward(null, { agent, settings: found })));
    await Promise.all(opened.map(({ forward }) => forward.close()));
    expect(left()).toEqual([]);
  });
});

describe("more than one jump host", () => {
  it("is E_SSH_UNSUPPORTED, written in one line or found at the jump host itself", async () => {
    for (const value of ["jump,other", "a,b,c"])
      expect(await rejection(settings(config(), [`ProxyJump=${value}`]))).toMatchObject({
        code: "E_SSH_UNSUPPORTED",
        message: expect.stringContaining("ProxyJump"),
        hint: expect.stringContaining("ssh -L"),
      });
    expect((await rejection(settings(config(jump, ["ProxyJump other"])))).code).toBe("E_SSH_UNSUPPORTED");
  });

  it("is no jump host when it is the bastion itself", async () => {
    const file = join(directory, "loop");
    writeFileSync(file, `${readFileSync(bastion.sshConfig, "utf8")}  ProxyJump ${bastion.user}@127.0.0.1:${bastion.port}\n`);
    expect((await rejection(settings(file))).code).toBe("E_SSH_CONFIG");
  });
});
