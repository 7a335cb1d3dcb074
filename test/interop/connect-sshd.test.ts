/* `tokenfwd connect` as a user runs it: the built command, a real sshd as the bastion, a real SoftHSM as the token. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { type CliProcess, runCli, startCli } from "./cli-process.js";

const PIN = "canary-271828";
let token: SoftHsm;
let bastion: Sshd;
let dir: string;
let pinFile: string;
let env: NodeJS.ProcessEnv;
const running: CliProcess[] = [];

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, objects: "rsa+ec" });
  bastion = await startSshd();
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
});
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-connect-"));
  pinFile = join(dir, "pin");
  writeFileSync(pinFile, `${PIN}\n`, { mode: 0o600 });
  env = { ...token.env, XDG_STATE_HOME: join(dir, "state"), TOKENFWD_LOG: join(dir, "log") };
});
afterEach(async () => {
  for (const one of running.splice(0)) await one.end();
  rmSync(dir, { recursive: true, force: true });
});

const RSA = "pkcs11:id=%01;type=private";

function args(...more: string[]): string[] {
  return ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--pin-source", `file:${pinFile}`, ...more];
}

function start(more: readonly string[], options: Parameters<typeof startCli>[1] = {}): CliProcess {
  const cli = startCli(args(...more), { env, ...options });
  running.push(cli);
  return cli;
}

/** Everything below the bastion's runtime directory. */
function left(): string[] {
  return readdirSync(bastion.runtimeDir, { recursive: true }).map(String).sort();
}

/** A command in the bastion user's own ssh session. */
function onBastion(command: string, input = ""): { status: number | null; stdout: string; stderr: string } {
  return spawnSync("ssh", ["-F", bastion.sshConfig, "bastion", command], { input, encoding: "utf8" });
}

const CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
const PINNED_READY = [
  "v",
  "ts",
  "event",
  "destination",
  "user",
  "host",
  "port",
  "hostKey",
  "transport",
  "pty",
  "verified",
  "remoteSocket",
  "address",
  "wellKnown",
  "tokens",
  "key",
  "policy",
  "rttMs",
  "tools",
  "choria",
];

test("ready has exactly the pinned fields, a stock program signs, Ctrl-C ends with 0 and leaves nothing", async () => {
  const cli = start(["--key", RSA, "--json"]);
  const ready = await cli.untilEvent("ready");
  expect(Object.keys(ready)).toEqual(PINNED_READY);
  expect(ready).toMatchObject({
    v: 1,
    destination: "bastion",
    user: bastion.user,
    host: "127.0.0.1",
    port: bastion.port,
    hostKey: bastion.hostKey,
    transport: "ssh2",
    pty: true,
    verified: "rpc",
    wellKnown: "ours",
    key: RSA,
    policy: "sign",
    tools: null,
  });
  expect(ready["tokens"]).toEqual([{ uri: expect.stringMatching(/^pkcs11:.*token=/), label: token.label, serial: expect.any(String) }]);
  expect(ready["address"]).toBe(`unix:path=${String(ready["remoteSocket"])}`);
  expect(ready["ts"]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(lstatSync(String(ready["remoteSocket"])).isSocket()).toBe(true);
  expect(readlinkSync(join(bastion.runtimeDir, "p11-kit", "pkcs11"))).toBe(ready["remoteSocket"]);

  const signed = join(dir, "signature");
  const data = join(dir, "data");
  writeFileSync(data, "hello");
  const sign = onBastion(`pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i ${data} -o ${signed}`);
  expect(sign).toMatchObject({ status: 0 });
  const key = token.keys.rsa?.publicKeyFile ?? "";
  expect(execFileSync("openssl", ["dgst", "-sha256", "-verify", key, "-signature", signed, data], { encoding: "utf8" })).toContain(
    "Verified OK",
  );
  const use = await cli.untilEvent("use");
  expect(Object.keys(use)).toEqual(["v", "ts", "event", "client", "key", "mechanism", "call", "ok", "rv", "purpose", "input", "what"]);
  expect(use).toMatchObject({ key: "rsa key", mechanism: "CKM_SHA256_RSA_PKCS", ok: true, rv: 0 });

  cli.child.kill("SIGINT");
  const ended = await cli.exited;
  expect(ended.code).toBe(0);
  expect(cli.events().slice(-2)).toMatchObject([{ event: "closing" }, { event: "closed", exitCode: 0 }]);
  expect(left()).toEqual([]);
});

test("the words for a person are on stderr, stdout stays empty, and a use is one line", async () => {
  const cli = start(["--key", RSA]);
  await cli.untilStderr(/until this command ends/);
  expect(onBastion(`pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null`).status).toBe(0);
  await cli.untilStderr(/used rsa key with CKM_SHA256_RSA_PKCS/);
  await cli.end();
  const { code, stdout, stderr } = await cli.exited;
  expect(code).toBe(0);
  expect(stdout.length).toBe(0);
  for (const line of stderr.trimEnd().split("\n")) expect(line).toMatch(/^(tokenfwd|hint): /);
  expect(stderr).toMatch(/give it anything: the PIN is asked for here/);
  expect(stderr).toMatch(/root on 127\.0\.0\.1 can use it/);
  expect(stderr.match(/used rsa key/g)).toHaveLength(1);
});

test("two keys and nobody to ask: E_KEY_CHOICE with both URIs, before anything is made on the bastion", async () => {
  const ended = await runCli(args("--json"), { env });
  expect(ended.code).toBe(20);
  expect(ended.stderr).toContain("[E_KEY_CHOICE 20]");
  expect(ended.stderr).toContain("id=%01;type=private");
  expect(ended.stderr).toContain("id=%02;type=private");
  const events = ended.stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(events.map((one) => one["event"])).toEqual(["connecting", "hostkey", "auth", "probe", "error", "closing", "closed"]);
  expect(events[4]).toMatchObject({ code: "E_KEY_CHOICE", exitCode: 20, message: expect.any(String), hint: expect.any(String) });
});

test.each([
  ["exit 7", 7],
  ["exit 0", 0],
  ["kill -TERM $$", 143],
  ["kill -KILL $$", 137],
])("the status of a CMD that does %j is ours", async (script, status) => {
  const ended = await runCli(args("--key", RSA, "--", "sh", "-c", script), { env });
  expect(ended).toMatchObject({ code: status, signal: null });
  expect(left()).toEqual([]);
});

test("without --module it finds the one that shows the token, and says E_TOKEN_NOT_FOUND where none does", async () => {
  const elsewhere = { ...env, XDG_CONFIG_HOME: dir, HOME: dir };
  const found = ["connect", "bastion", "-F", bastion.sshConfig, "--unlock", "later", "--key", RSA];
  const cli = startCli(found, { env: elsewhere });
  running.push(cli);
  await cli.untilStderr(/until this command ends/);
  expect(cli.stderr()).toMatch(/^tokenfwd: using the module \/.*libsofthsm2\.so$/m);
  cli.child.kill("SIGINT");
  expect((await cli.exited).code).toBe(0);
  const none = await runCli([...found, "--token", "nobody's"], { env: elsewhere });
  expect(none.code).toBe(20);
  expect(none.stderr).toContain("[E_TOKEN_NOT_FOUND 20]");
  expect(left()).toEqual([]);
});

test("a megabyte of random bytes goes through CMD's stdin and stdout unchanged, and its end arrives", async () => {
  const input = randomBytes(1 << 20);
  const ended = await runCli(args("--key", RSA, "--", "sh", "-c", "cat; echo done >&2"), { env, input });
  expect(ended.code).toBe(0);
  expect(createHash("sha256").update(ended.stdout).digest("hex")).toBe(createHash("sha256").update(input).digest("hex"));
  expect(ended.stderr).toContain("done\n");
});

test("a word of CMD that is not UTF-8 arrives as it was", async () => {
  const words = [...args("--key", RSA, "--", "printf", "%s|%s")];
  const python = "import os,sys; os.execvp(sys.argv[1], [os.fsencode(a) for a in sys.argv[1:]] + [b'a\\xff b', b'\\xc3\\x28'])";
  const cli = new URL("../../bin/tokenfwd.js", import.meta.url).pathname;
  const run = spawnSync("python3", ["-c", python, process.execPath, cli, ...words], { env, stdio: ["ignore", "pipe", "pipe"] });
  expect(run.status).toBe(0);
  expect(run.stdout.toString("hex")).toBe(Buffer.from("a\xff b|\xc3\x28", "latin1").toString("hex"));
});

test("CMD signs with the token over the variables it was given; the PIN was asked for before it began", async () => {
  const script = `test -S "$TOKENFWD_SOCKET" && pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null | wc -c`;
  const ended = await runCli(args("--key", RSA, "--json", "--", "sh", "-c", script), { env });
  expect(ended.code).toBe(0);
  expect(ended.stdout.toString().trim()).toBe("256");
  const lines = ended.stderr.split("\n").filter((line) => line.startsWith("{"));
  const names = lines.map((line) => (JSON.parse(line) as { event: string }).event);
  expect(names).toContain("use");
  expect(names.indexOf("ready")).toBeLessThan(names.indexOf("use"));
  expect(names.at(-1)).toBe("closed");
});

test("a failure of ours with CMD is 255, and the table's status stands in the message", async () => {
  const ended = await runCli(["connect", "bastion", "-F", bastion.sshConfig, "--module", "/nowhere.so", "--", "true"], { env });
  expect(ended.code).toBe(255);
  expect(ended.stderr).toContain("[E_MODULE 20]");
  const usage = await runCli(["connect", "bastion", "--policy", "most", "--", "true"], { env });
  expect(usage.code).toBe(255);
  expect(usage.stderr).toContain("[E_USAGE 2]");
});

test("whoever reads the events goes away: it cleans up and ends", async () => {
  const cli = start(["--key", RSA, "--json"]);
  await cli.untilEvent("ready");
  cli.child.stdout?.destroy();
  // The next event finds nobody.
  onBastion(`pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null`);
  expect((await cli.exited).code).toBe(0);
  expect(left()).toEqual([]);
});

test("an interrupt before ready ends with 130 and leaves nothing", async () => {
  const cli = start(["--key", RSA, "--json"]);
  await cli.untilEvent("auth");
  cli.child.kill("SIGINT");
  expect((await cli.exited).code).toBe(130);
  expect(cli.events().find((one) => one.event === "error")).toMatchObject({ code: "E_INTERRUPTED", exitCode: 130 });
  expect(left()).toEqual([]);
});

test("SIGTERM while CMD runs ends CMD and gives 143", async () => {
  const cli = start(["--key", RSA, "--", "sh", "-c", "echo up; exec cat"], { stdin: "pipe" });
  await cli.until(() => (cli.stdout().includes("up") ? true : undefined));
  cli.child.kill("SIGTERM");
  expect((await cli.exited).code).toBe(143);
  expect(left()).toEqual([]);
});

test("a bastion that goes away is event lost and 10, and 255 with CMD", async () => {
  const doomed = await startSshd();
  try {
    const cli = startCli(["connect", "bastion", "-F", doomed.sshConfig, "--module", token.modulePath, "--key", RSA, "--json"], { env });
    running.push(cli);
    await cli.untilEvent("ready");
    const withCommand = startCli(
      [
        "connect",
        "bastion",
        "-F",
        doomed.sshConfig,
        "--module",
        token.modulePath,
        "--key",
        RSA,
        "--unlock",
        "later",
        "--",
        "sh",
        "-c",
        "echo up; exec cat",
      ],
      // It ends with its stdin: sshd does not end a command without a terminal.
      { env, stdin: "pipe" },
    );
    running.push(withCommand);
    await withCommand.until(() => (withCommand.stdout().includes("up") ? true : undefined));
    await doomed.dispose();
    expect((await cli.exited).code).toBe(10);
    expect(cli.events().map((one) => one.event)).toContain("lost");
    const other = await withCommand.exited;
    expect(other.code).toBe(255);
    expect(other.stderr).toMatch(/\[E_SSH(_LOST)? 10\]/);
  } finally {
    await doomed.dispose();
  }
});

test("an option that cannot be carried out is 2, and a PIN in a URI is not repeated", async () => {
  const full = await runCli(args("--policy", "full"), { env });
  expect(full).toMatchObject({ code: 2, stderr: expect.stringContaining("[E_FULL_OVER_FORWARD 2]") });
  const pin = await runCli(args("--key", `pkcs11:id=%01?pin-value=${PIN}`), { env });
  expect(pin.code).toBe(2);
  expect(pin.stderr).not.toContain(PIN);
  const when = await runCli(["connect", "bastion", "--unlock", "soon"], { env });
  expect(when).toMatchObject({ code: 2, stderr: expect.stringContaining("--unlock") });
  const dash = await runCli(["connect", "--module", token.modulePath, "-F", bastion.sshConfig, "-oProxyCommand=touch x"], { env });
  expect(dash.code).toBe(2);
});

test("a wrong PIN with CMD is E_PIN_WRONG, and CMD does not run", async () => {
  writeFileSync(pinFile, "wrong-314159\n", { mode: 0o600 });
  const ended = await runCli(args("--key", RSA, "--", "touch", join(dir, "ran")), { env });
  expect(ended.code).toBe(255);
  expect(ended.stderr).toContain("[E_PIN_WRONG 30]");
  expect(readdirSync(dir)).not.toContain("ran");
});

test("--unlock now with nothing to ask with is E_PIN_SOURCE before the bastion is reached", async () => {
  const ended = await runCli(
    ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--key", RSA, "--unlock", "now"],
    {
      env: { ...env, PATH: pathWithoutPinentry() },
    },
  );
  expect(ended.code).toBe(30);
  expect(ended.stderr).toContain("[E_PIN_SOURCE 30]");
});

/** A PATH on which there is everything but pinentry. */
function pathWithoutPinentry(): string {
  const bin = join(dir, "bin");
  mkdirSync(bin, { recursive: true });
  for (const program of ["ssh", "ssh-keygen"]) {
    const real = execFileSync("which", [program], { encoding: "utf8" }).trim();
    execFileSync("ln", ["-sf", real, join(bin, program)]);
  }
  return bin;
}

test("the PIN is in no output, log, event, command line or environment", async () => {
  const cli = start(["--key", RSA, "--json", "--unlock", "now"]);
  await cli.untilEvent("ready");
  expect(onBastion(`pkcs11-tool --module ${CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i /dev/null`).status).toBe(0);
  await cli.untilEvent("use");
  const seen: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    for (const file of ["cmdline", "environ"]) {
      try {
        if (readFileSync(`/proc/${pid}/${file}`).includes(PIN)) seen.push(`${pid}/${file}`);
      } catch {
        // It ended, or is not ours to read.
      }
    }
  }
  expect(seen).toEqual([]);
  cli.child.kill("SIGTERM");
  const { stdout, stderr } = await cli.exited;
  expect(stdout.includes(PIN)).toBe(false);
  expect(stderr).not.toContain(PIN);
  const log = readFileSync(join(dir, "log"), "utf8");
  expect(log).toContain('"use"');
  expect(log).not.toContain(PIN);
});
