/* `tokenfwd agent run` as a user runs it, with stock clients on its socket. */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { spawnUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type CliProcess, runCli, startCli, TOKENFWD } from "./cli-process.js";

const PIN = "canary-161803";
const CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
let token: SoftHsm;
let dir: string;
let socket: string;
let env: NodeJS.ProcessEnv;
const running: CliProcess[] = [];

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, label: "agent run", objects: "rsa+ec" });
}, 60_000);
afterAll(() => token?.dispose());
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-agent-"));
  socket = join(dir, "a b.sock");
  writeFileSync(join(dir, "pin"), `${PIN}\n`, { mode: 0o600 });
  env = { ...token.env, XDG_RUNTIME_DIR: dir };
});
afterEach(async () => {
  for (const one of running.splice(0)) await one.end();
  rmSync(dir, { recursive: true, force: true });
});

async function start(more: readonly string[] = [], options: Parameters<typeof startCli>[1] = {}): Promise<CliProcess> {
  const cli = startCli(["agent", "run", "--module", token.modulePath, ...more], { env, ...options });
  running.push(cli);
  await cli.untilStderr(/listening on .*\n/);
  return cli;
}

const fromFile = () => ["--pin-source", `file:${join(dir, "pin")}`, "--socket", socket];

async function pkcs11Tool(cli: CliProcess, ...args: string[]) {
  const address = /P11_KIT_SERVER_ADDRESS=([^;]*)/.exec(cli.stdout().toString())?.[1] ?? "";
  return promisify(execFile)("pkcs11-tool", ["--module", CLIENT, ...args], { env: { ...process.env, P11_KIT_SERVER_ADDRESS: address } });
}

test("stdout is one line that a shell evaluates, spelled as p11-kit spells it, and a stock client signs through it", async () => {
  const cli = await start(fromFile());
  expect(cli.stdout().toString()).toBe(`P11_KIT_SERVER_ADDRESS=unix:path=${dir}/a%20b.sock; export P11_KIT_SERVER_ADDRESS;\n`);
  expect(cli.stderr()).toBe(`tokenfwd: listening on ${socket}\n`);
  writeFileSync(join(dir, "hash"), Buffer.alloc(32, 7));
  await pkcs11Tool(cli, "--login", "--pin", "0000", "--sign", "-m", "ECDSA", "--id", "02", "-i", join(dir, "hash"), "-o", join(dir, "sig"));
  expect(readFileSync(join(dir, "sig"))).toHaveLength(64);
  await cli.untilStderr(/tokenfwd: used ec key with CKM_ECDSA \(C_Sign\) for c\d+\n/);
});

test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("%s ends it with 0, and neither socket nor child is left", async (signal) => {
  const cli = await start(fromFile());
  const children = readFileSync(`/proc/${cli.pid}/task/${cli.pid}/children`, "utf8").trim().split(" ");
  expect(children).toHaveLength(1);
  cli.child.kill(signal);
  expect((await cli.exited).code).toBe(0);
  expect(existsSync(socket)).toBe(false);
  expect(existsSync(`/proc/${children[0]}`)).toBe(false);
});

test("the default socket lies in the runtime directory, in a directory of its own that goes with it", async () => {
  const cli = await start();
  const path = join(dir, "tokenfwd", "agent.sock");
  expect(cli.stderr()).toContain(`listening on ${path}`);
  expect(lstatSync(path).mode & 0o777).toBe(0o600);
  expect(lstatSync(join(dir, "tokenfwd")).mode & 0o777).toBe(0o700);
  await cli.end();
  expect(existsSync(join(dir, "tokenfwd"))).toBe(false);
});

test("a second agent on a live path refuses, names the first one's pid, and the first goes on", async () => {
  const first = await start(fromFile());
  const second = await runCli(["agent", "run", "--module", token.modulePath, ...fromFile()], { env });
  expect(second.code).toBe(40);
  expect(second.stdout.length).toBe(0);
  expect(second.stderr).toMatch(new RegExp(`another agent \\(pid ${first.pid}\\) lives on .* \\[E_AGENT_LIVE 40\\]\nhint: `));
  expect((await pkcs11Tool(first, "-L")).stdout).toContain("agent run");
});

test("the socket of an agent that was killed is replaced", async () => {
  const first = await start(fromFile());
  first.child.kill("SIGKILL");
  await first.exited;
  expect(lstatSync(socket).isSocket()).toBe(true);
  const second = await start(fromFile());
  expect((await pkcs11Tool(second, "-L")).stdout).toContain("agent run");
  expect(readdirSync(dir).filter((name) => name.includes(".sock"))).toEqual(["a b.sock"]);
});

test.each([
  ["a file in the socket's place", () => writeFileSync(socket, "precious"), "is not a socket"],
  [
    "a directory that others can write to",
    () => {
      mkdirSync(join(dir, "open"));
      chmodSync(join(dir, "open"), 0o777);
      socket = join(dir, "open", "s");
    },
    "can be written by others",
  ],
])("%s is E_SOCKET_PATH", async (_, prepare, text) => {
  prepare();
  const ended = await runCli(["agent", "run", "--module", token.modulePath, ...fromFile()], { env });
  expect(ended).toMatchObject({ code: 40, stderr: expect.stringContaining(text) });
  expect(ended.stderr).toContain("[E_SOCKET_PATH 40]");
});

test("the PIN comes through a descriptor, and a refused call is a line with its CKR", async () => {
  const fd = openSync(join(dir, "pin"), "r");
  const cli = await start(["--pin-source", "fd:3", "--socket", socket], { fd3: fd });
  const made = pkcs11Tool(cli, "--login", "--pin", "0000", "--keypairgen", "--key-type", "EC:prime256v1", "--id", "09");
  await expect(made).rejects.toThrow();
  await cli.untilStderr(/tokenfwd: refused: C_GenerateKeyPair for c\d+: .* \(CKR_TOKEN_WRITE_PROTECTED\)/);
  expect(cli.stderr()).not.toContain(PIN);
});

test("--json puts the address, the tokens and each use on stdout", async () => {
  const cli = startCli(["agent", "run", "--module", token.modulePath, ...fromFile(), "--json"], { env });
  running.push(cli);
  const ready = await cli.untilEvent("ready");
  expect(ready).toMatchObject({ address: `unix:path=${dir}/a%20b.sock`, key: "all", policy: "sign", pid: cli.pid });
  const tool = ["--module", CLIENT, "--login", "--pin", "0000", "--sign", "-m", "SHA256-RSA-PKCS", "--id", "01", "-i", "/dev/null"];
  execFileSync("pkcs11-tool", tool, { env: { ...process.env, P11_KIT_SERVER_ADDRESS: String(ready["address"]) }, stdio: "ignore" });
  expect(await cli.untilEvent("use")).toMatchObject({ key: "rsa key", mechanism: "CKM_SHA256_RSA_PKCS", ok: true });
});

test("a token or key that is not there, or a module that is none, ends with 20", async () => {
  for (const more of [
    ["--token", "nobody"],
    ["--key", "pkcs11:id=%77"],
  ]) {
    const ended = await runCli(["agent", "run", "--module", token.modulePath, ...fromFile(), ...more], { env });
    expect(ended.code).toBe(20);
  }
  const none = await runCli(["agent", "run", "--module", "/bin/sh", "--socket", socket], { env });
  expect(none).toMatchObject({ code: 20, stderr: expect.stringContaining("[E_MODULE 20]") });
  expect(existsSync(socket)).toBe(false);
});

test("--help says what happens, with examples and the exit status, and survives a reader that stops", () => {
  const cli = new URL("../../bin/tokenfwd.js", import.meta.url).pathname;
  for (const words of [["--help"], ["connect", "--help"], ["agent", "run", "--help"]]) {
    const help = spawnSync(process.execPath, [cli, ...words], { encoding: "utf8" });
    expect(help).toMatchObject({ status: 0, stderr: "" });
    expect(help.stdout).toMatch(/tokenfwd .*--module MODULE[\s\S]*Exit status:/);
  }
  const cut = spawnSync("sh", ["-c", `"$0" "$1" --help 2>&1 >/dev/full; "$0" "$1" --help | true`, process.execPath, cli], {
    encoding: "utf8",
  });
  expect(cut.stdout).not.toMatch(/E_BUG|at .*\.js/);
});

test("on a terminal the PIN is asked there, Ctrl-C ends it with 0, and the terminal is left as it was", async () => {
  const words = [process.execPath, TOKENFWD, "agent", "run", "--module", token.modulePath, "--socket", socket];
  await using terminal = spawnUnderPty({ argv: words, env });
  await terminal.expect(/listening on/);
  writeFileSync(join(dir, "hash"), Buffer.alloc(32, 7));
  const sign = [
    "--module",
    CLIENT,
    "--login",
    "--pin",
    "0000",
    "--sign",
    "-m",
    "ECDSA",
    "--id",
    "02",
    "-i",
    join(dir, "hash"),
    "-o",
    join(dir, "sig"),
  ];
  const signing = promisify(execFile)("pkcs11-tool", sign, {
    env: { ...process.env, P11_KIT_SERVER_ADDRESS: `unix:path=${socket.replace(" ", "%20")}` },
  });
  await terminal.expect(/a program on this workstation asks for the PIN of the token "agent run"/);
  terminal.send(`${PIN}\n`);
  await signing;
  await terminal.expect(/used ec key/);
  terminal.send("\x03");
  const result = await terminal.exited;
  expect(result).toMatchObject({ exitCode: 0, echo: true, lineEditing: true });
  expect(result.output).not.toContain(PIN);
  expect(existsSync(socket)).toBe(false);
});
