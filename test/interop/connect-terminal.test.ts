/* `tokenfwd connect` on a terminal: PIN, passphrase, host key and key choice are asked there, and CMD has the terminal meanwhile. */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { type PtyProcess, runUnderPty, spawnUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { runCli, TOKENFWD } from "./cli-process.js";

const PIN = "canary141421";
const CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
const SIGN = `pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null -o /dev/null`;
const RSA = ["--key", "pkcs11:id=%01;type=private"];
let token: SoftHsm;
let bastion: Sshd;
let dir: string;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, label: "work token", objects: "rsa+ec" });
  bastion = await startSshd();
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
});
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-tty-"));
  env = { ...token.env, XDG_STATE_HOME: join(dir, "state"), TOKENFWD_LOG: join(dir, "log"), TERM: "xterm" };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const options = (...more: string[]) => ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, ...more];
const argv = (...more: string[]) => [process.execPath, TOKENFWD, ...options(...more)];

/** What every run must leave: a terminal as it was, nothing on the bastion, no PIN on the screen or in the log. */
async function leftClean(terminal: PtyProcess): Promise<{ exitCode: number | null; output: string }> {
  const result = await terminal.exited;
  expect(result).toMatchObject({ echo: true, lineEditing: true });
  expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  expect(result.output).not.toContain(PIN);
  if (existsSync(join(dir, "log"))) expect(readFileSync(join(dir, "log"), "utf8")).not.toContain(PIN);
  return result;
}

test("the PIN is asked before CMD begins; CMD then has a terminal of our size, and its status is ours", async () => {
  await using terminal = spawnUnderPty({
    argv: argv(...RSA, "--", "sh", "-c", `${SIGN}; tty; stty size; echo "$TERM"; exit 9`),
    env,
    rows: 33,
    columns: 111,
  });
  await terminal.expect(/work token[\s\S]*PIN|PIN[\s\S]*work token/);
  terminal.send(`${PIN}\n`);
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(9);
  expect(output).toMatch(/\/dev\/pts\/\d+\r\n33 111\r\nxterm\r\n/);
});

test("while CMD runs the PIN goes to the token and not to CMD, and what is typed after it goes to CMD", async () => {
  const script = `${SIGN} && echo SIG""NED; read -r line; echo "got=<$line>"`;
  await using terminal = spawnUnderPty({ argv: argv(...RSA, "--unlock", "later", "--", "sh", "-c", script), env });
  await terminal.expect(/PIN/);
  terminal.send(`${PIN}\n`);
  await terminal.expect(/SIGNED/);
  terminal.send("hello\n");
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(0);
  expect(output).toContain("got=<hello>");
});

test("with a terminal for CMD the use lines are in the log and not across its screen", async () => {
  const pin = join(dir, "pin");
  writeFileSync(pin, `${PIN}\n`, { mode: 0o600 });
  await using terminal = spawnUnderPty({ argv: argv(...RSA, "--pin-source", `file:${pin}`, "--", "sh", "-c", SIGN), env });
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(0);
  expect(output).not.toContain("used rsa key");
  expect(readFileSync(join(dir, "log"), "utf8")).toContain('"CKM_SHA256_RSA_PKCS"');
});

test("p11tool logs in again and again, and the PIN is asked once in the whole connect", async () => {
  await using terminal = spawnUnderPty({ argv: argv(...RSA, "--json"), env });
  await terminal.expect(/"event":"ready"/);
  const list = `GNUTLS_PIN=0000 p11tool --provider ${CLIENT} --batch --list-all --login "pkcs11:token=work%20token"`;
  const listing = promisify(execFile)("ssh", ["-F", bastion.sshConfig, "bastion", `${list}; ${list}; ${SIGN}`]);
  await terminal.expect(/asks for the PIN/);
  terminal.send(`${PIN}\n`);
  const { stdout } = await listing;
  expect(stdout.match(/Type: Private key/g)).toHaveLength(2);
  await terminal.expect(/"event":"use"/);
  terminal.send("\x03");
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(0);
  expect(output.match(/"event":"prompt"/g)).toHaveLength(1);
});

test("Ctrl-C at the PIN question cancels: E_PIN_CANCELLED, and CMD does not run", async () => {
  await using terminal = spawnUnderPty({ argv: argv(...RSA, "--", "echo", "RAN"), env });
  await terminal.expect(/PIN/);
  terminal.send("\x03");
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(255);
  expect(output).toContain("[E_PIN_CANCELLED 32]");
  expect(output).not.toContain("RAN");
});

test("Ctrl-C typed into CMD's terminal reaches CMD, and its death by it is 130", async () => {
  await using terminal = spawnUnderPty({ argv: argv(...RSA, "--unlock", "later", "--", "sh", "-c", "echo UP; exec cat"), env });
  await terminal.expect(/UP/);
  terminal.send("\x03");
  expect((await leftClean(terminal)).exitCode).toBe(130);
});

test("a terminal that hangs up ends everything and leaves nothing on the bastion", async () => {
  await using terminal = spawnUnderPty({ argv: argv(...RSA, "--unlock", "later", "--", "sh", "-c", "echo UP; exec cat"), env });
  await terminal.expect(/UP/);
  terminal.hangUp();
  await terminal.exited;
  expect(readdirSync(bastion.runtimeDir)).toEqual([]);
});

test("a terminal that hangs up during a question ends it as an interrupt, not as a bug", async () => {
  const strict = ["--ssh-option", "StrictHostKeyChecking=ask", "--ssh-option", `UserKnownHostsFile=${join(dir, "known_hosts")}`];
  await using terminal = spawnUnderPty({ argv: argv(...RSA, ...strict, "--unlock", "later"), env });
  await terminal.expect(/\(yes\/no\)/);
  terminal.hangUp();
  await terminal.exited;
  const log = readFileSync(join(dir, "log"), "utf8");
  expect(log).toMatch(/"code":"(E_INTERRUPTED|E_HOST_KEY_UNKNOWN)"/);
  expect(log).not.toContain("E_BUG");
  expect(existsSync(join(dir, "known_hosts"))).toBe(false);
  expect(readdirSync(bastion.runtimeDir)).toEqual([]);
});

test("-T gives CMD no terminal where there is one, -t gives it one where there is none", async () => {
  const look = ["--", "sh", "-c", "test -t 0 && echo TERMINAL || echo PIPE"];
  const without = await runUnderPty({ argv: argv(...RSA, "--unlock", "later", "-T", ...look), env });
  expect(without.output).toContain("PIPE");
  const forced = await runCli(options(...RSA, "-t", ...look), { env });
  expect(forced.code).toBe(0);
  expect(forced.stdout.toString()).toBe("TERMINAL\r\n");
  const plain = await runCli(options(...RSA, ...look), { env });
  expect(plain.stdout.toString()).toBe("PIPE\n");
});

test("several keys are asked as a numbered list, and the number chooses", async () => {
  await using terminal = spawnUnderPty({ argv: argv("--unlock", "later", "--", "true"), env });
  await terminal.expect(/ 1 {2}rsa key[\s\S]* 2 {2}ec key[\s\S]*\(1-2\)[^\n]*: /);
  terminal.send("2\r");
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(0);
  expect(output).toMatch(/ready: pkcs11:[^ ]*id=%02;type=private/);
});

test("an unknown host key is shown and only a yes goes on and is remembered", async () => {
  const knownHosts = join(dir, "known_hosts");
  const strict = ["--ssh-option", "StrictHostKeyChecking=ask", "--ssh-option", `UserKnownHostsFile=${knownHosts}`];
  const run = (answer: string) =>
    runUnderPty({
      argv: argv(...RSA, ...strict, "--unlock", "later", "--", "true"),
      env,
      answers: [{ expect: /SHA256:[\s\S]*\(yes\/no\)/, send: answer }],
    });
  const no = await run("no\r");
  expect(no.exitCode).toBe(255);
  expect(no.output).toContain("[E_HOST_KEY_UNKNOWN 11]");
  expect(existsSync(knownHosts)).toBe(false);
  const yes = await run("yes\r");
  expect(yes.exitCode).toBe(0);
  expect(yes.output).toContain(bastion.hostKey);
  expect(readFileSync(knownHosts, "utf8")).not.toBe("");
});

test("the passphrase of an encrypted key is asked without echo", async () => {
  const key = join(dir, "id");
  execFileSync("cp", [bastion.identityFile, key]);
  execFileSync("ssh-keygen", ["-q", "-p", "-P", "", "-N", "open sesame", "-f", key]);
  const config = join(dir, "ssh_config");
  writeFileSync(config, readFileSync(bastion.sshConfig, "utf8").replaceAll(bastion.identityFile, key));
  const words = ["connect", "bastion", "-F", config, "--module", token.modulePath, ...RSA, "--unlock", "later", "--", "true"];
  const result = await runUnderPty({
    argv: [process.execPath, TOKENFWD, ...words],
    env,
    answers: [{ expect: /passphrase for .*: /, send: "open sesame\r" }],
  });
  expect(result).toMatchObject({ exitCode: 0, echo: true, lineEditing: true });
  expect(result.output).not.toContain("sesame");
});
