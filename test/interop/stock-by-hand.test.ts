/*
 * `tokenfwd export --ssh-config` over a real sshd: the text it prints is followed to the letter, and programs on the bastion then use the
 * token with nothing of ours on either side.
 */
import { verify } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { processesNaming } from "../support/processes.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { runCli } from "./cli-process.js";
import { runProgram } from "./programs.js";

let token: SoftHsm;
let bastion: Sshd;
let dir = "";
let config = "";
let runtime = "";
let env: NodeJS.ProcessEnv = {};

beforeAll(async () => {
  token = await createSoftHsm({ certificates: false });
  bastion = await startSshd();
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
});
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-by-hand-"));
  runtime = join(dir, "run");
  mkdirSync(runtime, { mode: 0o700 });
  config = join(dir, "ssh_config");
  copyFileSync(bastion.sshConfig, config);
  env = { ...token.env, XDG_RUNTIME_DIR: runtime };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const exported = (...more: readonly string[]) => runCli(["export", "-F", config, "--module", token.modulePath, ...more], { env });

/** The numbered parts of the text, without their comments. */
function partsOf(text: string): string[] {
  return text
    .split(/^# (?=\d\. |What )/m)
    .slice(1, 4)
    .map((part) =>
      part
        .split("\n")
        .slice(1)
        .filter((line) => !line.startsWith("#"))
        .join("\n"),
    );
}

describe("what export prints", () => {
  it("can be followed, twice, and programs on the bastion sign with the token meanwhile and not afterwards", async () => {
    const done = await exported("--ssh-config", "bastion", "--token", token.label);
    expect(done, done.stderr).toMatchObject({ code: 0, stderr: "" });
    const [block = "", lines = "", there = ""] = partsOf(done.stdout.toString());
    writeFileSync(config, `${block}\n${readFileSync(config, "utf8")}`);
    const script = join(dir, "typed");
    writeFileSync(script, lines);

    const sign = (out: string) =>
      `echo data | pkcs11-tool --module ${P11KIT_CLIENT} --login --pin ${token.pin} --sign --id 01 -m SHA256-RSA-PKCS -o ${out}`;
    for (const [round, shell] of [
      ["first", "/bin/sh"],
      ["second", "/bin/tcsh"],
    ]) {
      const outs = [`${round}-known`, `${round}-named`].map((name) => join(dir, name));
      // A person's terminal has a person at it; here the session reads these lines and ends.
      const typed = [sign(outs[0] ?? ""), "unset XDG_RUNTIME_DIR", there, sign(outs[1] ?? ""), "exit 0", ""].join("\n");
      // The login shell is what p11-kit looks at, whatever shell the lines are typed into.
      const session = await runProgram({ argv: ["sh", script], input: Buffer.from(typed) }, { ...env, SHELL: shell }, 50_000);
      expect(session.code, `${session.stderr}${session.stdout}`).toBe(0);
      for (const out of outs) {
        expect(existsSync(out), `${session.stderr}${session.stdout}`).toBe(true);
        expect(verify("sha256", Buffer.from("data\n"), readFileSync(token.keys.rsa?.publicKeyFile ?? ""), readFileSync(out))).toBe(true);
      }
      expect(processesNaming(`${runtime}/tokenfwd-by-hand`)).toEqual([]);
    }
    const late = join(dir, "late");
    await runProgram({ argv: ["ssh", "-F", bastion.sshConfig, "bastion", sign(late)] }, env);
    expect(existsSync(late)).toBe(false);
  });

  it("leads where the destination leads under its own name, which ssh takes without a word", async () => {
    const done = await exported("--ssh-config", `${bastion.user}@bastion`);
    const [block = ""] = partsOf(done.stdout.toString());
    expect(block).toMatch(/^Host bastion-token$/m);
    writeFileSync(config, block);
    const asked = await runProgram({ argv: ["ssh", "-F", config, "-G", "bastion-token"] }, env);
    expect(asked).toMatchObject({ code: 0 });
    expect(asked.stderr).not.toMatch(/ssh_config|bad|unsupported/i);
    const resolved = asked.stdout.toString();
    expect(resolved).toMatch(new RegExp(`^port ${bastion.port}$`, "m"));
    expect(resolved).toMatch(new RegExp(`^identityfile ${bastion.identityFile}$`, "m"));
    expect(resolved).toContain(`remoteforward ${bastion.runtimeDir}/p11-kit/pkcs11 ${runtime}/tokenfwd-by-hand/p11.sock`);
  });

  it("is nothing where the bastion cannot be asked or has no place for it", async () => {
    const unknown = await exported("--ssh-config", "nobody@127.0.0.1", "--token", "x");
    expect(unknown).toMatchObject({ code: 10 });
    expect(unknown.stdout.toString()).toBe("");
    expect(unknown.stderr).toMatch(/E_SSH 10/);
    const bare = await startSshd({ setEnv: { XDG_RUNTIME_DIR: "/nowhere" } });
    try {
      // The directory of a systemd session may be there all the same; then it is the answer.
      const elsewhere = await runCli(["export", "-F", bare.sshConfig, "--module", token.modulePath, "--ssh-config", "bastion"], { env });
      const uid = process.getuid?.() ?? 0;
      if (existsSync(`/run/user/${uid}`)) expect(elsewhere.stdout.toString()).toContain(`/run/user/${uid}/p11-kit/pkcs11`);
      else expect(elsewhere.stderr).toMatch(/E_RUNTIME_DIR 12/);
    } finally {
      await bare.dispose();
    }
  });

  it.each([
    [["--token", "pkcs11:token=t;id=%01", "--ssh-config", "bastion"], /E_USAGE 2/],
    [[], /export needs --ssh-config DEST .*E_USAGE 2/],
    [["--ssh-config", "-oProxyCommand=x"], /E_USAGE 2/],
    [["--ssh-config", "bastion", "--", "true"], /takes no command .*E_USAGE 2/],
  ] as const)("is nothing for %j", async (words, error) => {
    const done = await exported(...words);
    expect(done.stderr).toMatch(error);
    expect(done.stdout.toString()).toBe("");
  });
});
