/* The whole command through a jump host, and with a log-in that asks: on the terminal, never on stdin. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createPamStage, type PamStage, pamStageMissing } from "../support/pam-stage.js";
import { runUnderPty, spawnUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { runCli, TOKENFWD } from "./cli-process.js";

const CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
const PASSWORD = "open sesame 42";
let token: SoftHsm;
let dir: string;
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  token = await createSoftHsm({ objects: "rsa", certificates: false });
}, 60_000);
afterAll(() => token?.dispose());
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-through-"));
  env = { ...token.env, XDG_STATE_HOME: join(dir, "state"), TOKENFWD_LOG: join(dir, "log"), TERM: "xterm" };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const words = (bastion: Sshd, ...more: string[]) => ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, ...more];

test("-J: CMD signs behind a jump host, the events tell both host keys, and neither host keeps anything", async () => {
  const [jump, bastion] = await Promise.all([startSshd(), startSshd()]);
  try {
    const config = join(dir, "config");
    const hop = readFileSync(jump.sshConfig, "utf8").replace("Host bastion", "Host gate");
    writeFileSync(config, hop + readFileSync(bastion.sshConfig, "utf8"));
    const pin = join(dir, "pin");
    writeFileSync(pin, token.pin, { mode: 0o600 });
    const sign = `pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null -o /dev/null && echo SIGNED`;
    const options = [
      "connect",
      "bastion",
      "-F",
      config,
      "-J",
      "gate",
      "--module",
      token.modulePath,
      "--pin-source",
      `file:${pin}`,
      "--json",
    ];
    const ended = await runCli([...options, "--", "sh", "-c", sign], { env });
    expect(ended.stdout.toString()).toContain("SIGNED");
    expect(ended.code).toBe(0);
    const events = ended.stderr
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const keys = events.filter((event) => event["event"] === "hostkey").map((event) => [event["hostKey"], event["jump"]]);
    expect(keys).toEqual([
      [jump.hostKey, true],
      [bastion.hostKey, undefined],
    ]);
    expect(events.find((event) => event["event"] === "ready")).toMatchObject({ hostKey: bastion.hostKey, verified: "rpc" });
    expect([...readdirSync(jump.runtimeDir), ...readdirSync(bastion.runtimeDir)]).toEqual([]);
  } finally {
    await jump.dispose();
    await bastion.dispose();
  }
});

describe.skipIf(pamStageMissing() !== null)("a bastion that asks for a password", () => {
  let stage: PamStage;
  let bastion: Sshd;
  beforeAll(async () => {
    stage = createPamStage(PASSWORD);
    bastion = await startSshd({ within: stage.within, config: [...stage.config, "PubkeyAuthentication no"] });
  });
  afterAll(async () => {
    await bastion?.dispose();
    stage?.dispose();
  });

  test("asks on the terminal, without echo, before the module is opened; stdin is CMD's alone", async () => {
    await using terminal = spawnUnderPty({
      argv: [process.execPath, TOKENFWD, ...words(bastion, "--unlock", "later", "--", "sh", "-c", "echo UP; exec cat")],
      env,
    });
    await terminal.expect(/\(\w+@127\.0\.0\.1\) Password: $/);
    expect(terminal.output).not.toContain("ready");
    terminal.send(`${PASSWORD}\r`);
    await terminal.expect(/\nUP/);
    terminal.send("a line\n\x04");
    const result = await terminal.exited;
    expect(result).toMatchObject({ exitCode: 0, echo: true, lineEditing: true });
    expect(result.output).toContain("a line");
    expect(result.output + readFileSync(join(dir, "log"), "utf8")).not.toContain("sesame");
  });

  test("Ctrl-C at the question is an interrupt, 130, and Ctrl-D is no answer", async () => {
    const argv = [process.execPath, TOKENFWD, ...words(bastion)];
    const answers = (send: string) => [{ expect: /Password: $/, send }];
    const interrupted = await runUnderPty({ argv, env, answers: answers("\x03") });
    expect(interrupted).toMatchObject({ exitCode: 130, echo: true, lineEditing: true });
    const declined = await runUnderPty({ argv, env, answers: [...answers("\x04"), { expect: /password: $/, send: "\x04" }] });
    expect(declined).toMatchObject({ exitCode: 10, echo: true, lineEditing: true });
    expect(declined.output).toContain("[E_SSH_AUTH 10]");
  });

  test("without a terminal is E_SSH_AUTH that says so, whatever stdin holds", async () => {
    const ended = await runCli(words(bastion, "--", "cat"), { env, input: `${PASSWORD}\n` });
    expect(ended.code).toBe(255);
    expect(ended.stderr).toContain("[E_SSH_AUTH 10]");
    expect(ended.stderr).toContain("run it on a terminal");
    expect(ended.stdout.toString()).toBe("");
  });
});
