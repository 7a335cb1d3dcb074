/* `tokenfwd connect --shell` on a terminal: a login shell as ssh gives one, with the token in it. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { type PtyProcess, spawnUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { runCli, TOKENFWD } from "./cli-process.js";

const PIN = "canary171819";
const CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
const SIGN = `pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null -o /dev/null`;
const KEY = ["--key", "pkcs11:id=%01;type=private", "--unlock", "later"];
let token: SoftHsm;
let dir: string;
let home: string;
let env: NodeJS.ProcessEnv;
let bastion: Sshd;

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, label: "work token", objects: "rsa", certificates: false });
}, 60_000);
afterAll(() => token?.dispose());
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-shell-"));
  home = join(dir, "home");
  mkdirSync(home);
  // What start files do, and what must not take the tools away: a PATH of their own.
  writeFileSync(
    join(home, ".profile"),
    "PROFILE_WAS_READ=yes; export PROFILE_WAS_READ; PATH=/usr/local/bin:/usr/bin:/bin; PS1='ready> '; export PS1\n",
  );
  bastion = await startSshd({ setEnv: { HOME: home, SHELL: "/bin/sh" } });
  env = { ...token.env, XDG_STATE_HOME: join(dir, "state"), TOKENFWD_LOG: join(dir, "log"), TERM: "xterm" };
});
afterEach(async () => {
  await bastion?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

const words = (...more: string[]) => [
  "connect",
  "bastion",
  "-F",
  bastion.sshConfig,
  "--module",
  token.modulePath,
  ...KEY,
  "--shell",
  ...more,
];
const argv = (...more: string[]) => [process.execPath, TOKENFWD, ...words(...more)];

/** What every ending must leave: a terminal as it was, nothing on the bastion, no PIN on the screen or in the log. */
async function leftClean(terminal: PtyProcess): Promise<{ exitCode: number | null; output: string }> {
  const result = await terminal.exited;
  expect(result).toMatchObject({ echo: true, lineEditing: true });
  expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  expect(result.output).not.toContain(PIN);
  expect(readFileSync(join(dir, "log"), "utf8")).not.toContain(PIN);
  return result;
}

test("it is a login shell on a terminal of our size, with both variables, and its status is ours", async () => {
  await using terminal = spawnUnderPty({ argv: argv(), env, rows: 33, columns: 111 });
  await terminal.expect(/ready: [^\n]* until the shell ends/);
  await terminal.expect(/ready> /);
  terminal.send(
    'tty; stty size; echo "<$TERM $PROFILE_WAS_READ $0>"; test -S "$TOKENFWD_SOCKET" && echo "at $P11_KIT_SERVER_ADDRESS"; exit 9\n',
  );
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(9);
  expect(output).toMatch(/\/dev\/pts\/\d+\r\n33 111\r\n<xterm yes \/bin\/sh>\r\nat unix:path=\S+p11\.sock\r\n/);
});

test("Ctrl-C and Ctrl-Z are the shell's, a signal that ends it is 128+n, and Ctrl-D ends it", async () => {
  await using terminal = spawnUnderPty({ argv: argv(), env });
  await terminal.expect(/ready> /);
  // The words come from the job itself, so it has the terminal by then.
  const job = (number: number) => `sh -c 'printf "job %s\\n" up${number}; exec sleep ${number}'\n`;
  terminal.send(job(1000));
  await terminal.expect(/job up1000/);
  terminal.send("\x03");
  await terminal.expect(/ready> /);
  terminal.send(job(2000));
  await terminal.expect(/job up2000/);
  terminal.send("\x1a");
  await terminal.expect(/Stopped[^\n]*sleep 2000|suspended/i);
  terminal.send("kill -KILL %1; (exit 5)\n");
  await terminal.expect(/ready> /);
  terminal.send("\x04");
  expect((await leftClean(terminal)).exitCode).toBe(5);
  await using killed = spawnUnderPty({ argv: argv(), env });
  await killed.expect(/ready> /);
  killed.send("kill -KILL $$\n");
  expect((await leftClean(killed)).exitCode).toBe(137);
});

test("a new size of the window arrives in the shell", async () => {
  await using terminal = spawnUnderPty({ argv: argv(), env, rows: 24, columns: 80 });
  await terminal.expect(/ready> /);
  const [tty = ""] = execFileSync("ps", ["-o", "tty=", "--ppid", String(terminal.pid)], { encoding: "utf8" })
    .trim()
    .split("\n");
  terminal.send("trap 'stty size' WINCH; echo armed\n");
  await terminal.expect(/\narmed/);
  expect(spawnSync("stty", ["-F", `/dev/${tty.trim()}`, "rows", "41", "cols", "133"]).status).toBe(0);
  // dash takes its traps at the next line.
  await new Promise((resolve) => setImmediate(resolve));
  terminal.send("stty size; while [ \"$(stty size)\" != '41 133' ]; do sleep 0.1; done; echo 'now 'big; exit 0\n");
  await terminal.expect(/now big/);
  expect((await leftClean(terminal)).exitCode).toBe(0);
});

test("the PIN that is asked for meanwhile goes to the token and not to the shell, and the shell goes on after it", async () => {
  await using terminal = spawnUnderPty({ argv: argv(), env });
  await terminal.expect(/ready> /);
  terminal.send(`${SIGN} && echo SIG""NED\n`);
  await terminal.expect(/work token[\s\S]*PIN|PIN[\s\S]*work token/);
  terminal.send(`${PIN}\n`);
  await terminal.expect(/SIGNED/);
  terminal.send('read -r line; echo "got=<$line>"; exit 0\nhello\n');
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(0);
  expect(output).toContain("got=<hello>");
});

test("with --tools the shell finds tokenfwd, although start files set a PATH of their own", async () => {
  await using terminal = spawnUnderPty({ argv: argv("--tools"), env });
  await terminal.expect(/ready> /);
  terminal.send('command -v tokenfwd; tokenfwd keys; echo "<$PROFILE_WAS_READ>"; exit 3\n');
  const { exitCode, output } = await leftClean(terminal);
  expect(exitCode).toBe(3);
  expect(output).toContain(`${bastion.runtimeDir}/tokenfwd/`);
  expect(output).toContain("pkcs11:");
  expect(output).toContain("<yes>");
});

test("a terminal that hangs up, and a connection that goes away, end it and leave a terminal that was put back", async () => {
  await using hung = spawnUnderPty({ argv: argv(), env });
  await hung.expect(/ready> /);
  hung.hangUp();
  await hung.exited;
  expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  await using cut = spawnUnderPty({ argv: argv(), env });
  await cut.expect(/ready> /);
  // The session's own sshd, from inside: the connection ends without a word.
  cut.send("kill -KILL $(ps -o ppid= -p $PPID) $PPID\n");
  const result = await cut.exited;
  expect(result).toMatchObject({ exitCode: 255, echo: true, lineEditing: true });
  expect(result.output).toMatch(/\[E_SSH(_LOST)? 10\]/);
});

test("without a terminal, and with a command, it is a mistake in the command line", async () => {
  const piped = await runCli(words(), { env });
  expect(piped).toMatchObject({ code: 2 });
  expect(piped.stderr).toContain("--shell needs a terminal");
  const both = await runCli(words("--", "true"), { env });
  expect(both.code).toBe(255);
  expect(both.stderr).toContain("[E_USAGE 2]");
  const never = await runCli(words("-T"), { env });
  expect(never.stderr).toContain("-T gives none");
  expect(existsSync(join(bastion.runtimeDir, "tokenfwd"))).toBe(false);
});
