/* The pieces of a run of choria: its words, its configuration, its environment, its directory, its stderr. */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { childEnvironment } from "../../../../src/choria/run/child-environment.js";
import { findProgram } from "../../../../src/choria/run/find-program.js";
import { createLogLines } from "../../../../src/choria/run/log-lines.js";
import { createPrivateDirectory } from "../../../../src/choria/run/private-directory.js";
import { superviseChoria } from "../../../../src/choria/run/supervise.js";
import { patientTimeout, throwawayConfig } from "../../../../src/choria/run/throwaway.js";
import { withConfig } from "../../../../src/choria/run/words.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-choria-"));
  chmodSync(directory, 0o700);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe("the configuration", () => {
  const ours = {
    relay: "127.0.0.1:4222",
    signerUrl: "http://127.0.0.1:4223/choria/v1/sign",
    tokenFile: "/d/signer.token",
    seedFile: "/d/signer.seed",
    discoveryTimeout: null,
  };
  const own = (values: Record<string, string>) => ({
    values: new Map(Object.entries(values).map(([key, value]) => [key, { value }])),
    collectives: ["mcollective", "dev"],
    mainCollective: "dev",
    discoveryTimeout: 3,
  });

  it("keeps what is the user's, and puts ours in the place of brokers, keys and providers", () => {
    const text = throwawayConfig(
      own({
        collectives: "mcollective, dev",
        color: "0",
        discovery_timeout: "4",
        default_discovery_method: "choria",
        ttl: "120",
        "plugin.choria.puppetdb_host": "db.example",
        "plugin.choria.middleware_hosts": "broker.example:4222",
        "plugin.choria.network.connect_timeout": "5s",
        "plugin.choria.network.peers": "x",
        "plugin.security.provider": "pkcs11",
        "plugin.security.file.key": "/home/u/key.pem",
        "plugin.choria.security.request_signer.url": "http://elsewhere",
        "plugin.nats.pass": "old",
      }),
      ours,
    );
    expect(text.split("\n").slice(1)).toEqual([
      "color = 0",
      "discovery_timeout = 4",
      "default_discovery_method = choria",
      "ttl = 120",
      "plugin.choria.puppetdb_host = db.example",
      "plugin.choria.network.connect_timeout = 5s",
      "logfile = /dev/stderr",
      "loglevel = warn",
      "collectives = mcollective,dev",
      "main_collective = dev",
      "plugin.choria.middleware_hosts = nats://127.0.0.1:4222",
      "plugin.choria.federation_middleware_hosts = nats://127.0.0.1:4222",
      "plugin.nats.user = x",
      "plugin.nats.pass = x",
      "plugin.security.provider = file",
      "plugin.choria.security.request_signer.url = http://127.0.0.1:4223/choria/v1/sign",
      "plugin.choria.security.request_signer.token_file = /d/signer.token",
      "plugin.choria.security.request_signer.seed_file = /d/signer.seed",
      "",
    ]);
  });

  it("leaves a log file that was named", () => {
    const text = throwawayConfig(own({ logfile: "/var/log/c.log" }), ours);
    expect(text).toContain("logfile = /var/log/c.log\n");
    expect(text).not.toContain("/dev/stderr");
  });

  it("takes no value that would begin another line", () => {
    expect(() => throwawayConfig(own({ color: "0\nplugin.security.provider = x" }), ours)).toThrow(/control characters/);
  });

  it("waits longer for answers only where the token was waited for", () => {
    expect([0, 0.9, 1, 3, 10, 60].map((waited) => patientTimeout(own({}), waited))).toEqual([null, null, 8, 9, 18, 18]);
    expect(throwawayConfig(own({ discovery_timeout: "3" }), { ...ours, discoveryTimeout: 9 }).match(/discovery_timeout = \d+/g)).toEqual([
      "discovery_timeout = 3",
      "discovery_timeout = 9",
    ]);
  });
});

it("our configuration stands behind the command, and nowhere where it is not wanted", () => {
  expect(withConfig(["--debug", "req", "a", "--json"], "/c")).toEqual(["--debug", "req", "--config", "/c", "a", "--json"]);
  for (const words of [["req", "--config", "x"], ["req", "--config=x"], ["jwt", "view"], ["--version"], []])
    expect(withConfig(words, "/c")).toBeNull();
});

it("choria's environment is the caller's with ours, and without what would undo it", () => {
  const env = childEnvironment({ HOME: "/h", INSECURE_YES_REALLY: "true" }, { commonName: "ptittle", user: "u", password: "p" });
  expect(env).toEqual({
    HOME: "/h",
    INSECURE_DISABLE_TLS: "true",
    MCOLLECTIVE_CERTNAME: "ptittle",
    MCOLLECTIVE_NATS_USERNAME: "u",
    MCOLLECTIVE_NATS_PASSWORD: "p",
  });
});

it("the alarm is not shown in whatever pieces it comes, and a line that only quotes it is", async () => {
  const lines = createLogLines();
  const out: Buffer[] = [];
  lines.on("data", (chunk: Buffer) => out.push(chunk));
  const text = [
    'time="t" level=warning msg="Disabling TLS via environment override"',
    '{"component":"client","connection":"c","level":"warning","msg":"Disabling TLS due to configuration override","time":"t"}',
    '{"component":"client","connection":"c","level":"error","msg":"no\\u001b[31m broker","time":"t"}',
    '{"component": 1}',
    "answer: Disabling TLS via environment override",
    "no end \u00e9",
  ].join("\n");
  for (const byte of Buffer.from(text)) lines.write(Buffer.from([byte]));
  lines.end();
  await new Promise((resolve) => lines.once("end", resolve));
  expect(Buffer.concat(out).toString()).toBe(
    'choria: error: no\\x1b[31m broker (c)\n{"component": 1}\nanswer: Disabling TLS via environment override\nno end \u00e9',
  );
});

describe("the directory of a run", () => {
  it("is private, holds private files, and is gone with what is in it", () => {
    const made = createPrivateDirectory(() => directory);
    const file = made.write("client.conf", "x");
    expect([statSync(made.path).mode & 0o777, statSync(file).mode & 0o777, readFileSync(file, "utf8")]).toEqual([0o700, 0o600, "x"]);
    expect(() => made.write("client.conf", "y")).toThrow(/EEXIST/);
    made.remove();
    made.remove();
    expect(readdirSync(directory)).toEqual([]);
  });

  it("takes with it what a run left that was killed, and nothing else", () => {
    const base = join(directory, "tokenfwd");
    mkdirSync(base, { mode: 0o700 });
    const { pid: dead } = spawnSync("true");
    const left = join(base, `run.${dead}.0123456789abcdef`);
    const others = [join(base, `run.${process.ppid}.0123456789abcdef`), join(base, "0a1b2c3d")];
    for (const path of [left, ...others]) mkdirSync(path, { mode: 0o700 });
    createPrivateDirectory(() => directory).remove();
    expect([left, ...others].map((path) => existsSync(path))).toEqual([false, true, true]);
  });

  it("goes with the runtime directory that was made for want of one, and is made though another run takes that away", () => {
    const made = join(directory, "tokenfwd-1000");
    let asked = 0;
    const runtime = () => {
      asked += 1;
      // Of two runs that end and begin at once.
      if (asked > 1) mkdirSync(made, { mode: 0o700 });
      return made;
    };
    createPrivateDirectory(runtime).remove();
    expect(asked).toBe(2);
    expect(readdirSync(directory)).toEqual([]);
  });

  it("is not made where others could look", () => {
    mkdirSync(join(directory, "tokenfwd"), { mode: 0o755 });
    expect(() => createPrivateDirectory(() => directory)).toThrow(expect.objectContaining({ code: "E_CHORIA" }));
  });
});

it("the program is the first on the PATH that can be run, but for ours and what is in no absolute place", () => {
  for (const name of ["a", "b"]) {
    mkdirSync(join(directory, name));
    spawnSync("sh", ["-c", 'printf "#!/bin/sh\\n" > "$0/choria"; chmod +x "$0/choria"', join(directory, name)]);
  }
  const path = `:.:${join(directory, "a")}:${join(directory, "b")}`;
  expect(findProgram("choria", path)).toBe(join(directory, "a", "choria"));
  expect(findProgram("choria", path, [join(directory, "a")])).toBe(join(directory, "b", "choria"));
  expect(findProgram("choria", undefined)).toBeNull();
});

describe("a running choria", () => {
  const never = new Promise<TokenfwdError>(() => {});
  const supervise = (text: string, more: Partial<Parameters<typeof superviseChoria>[0]> = {}) =>
    superviseChoria({
      program: "/bin/sh",
      args: ["-c", text],
      env: process.env,
      cwd: directory,
      directory,
      stderr: new PassThrough(),
      gone: never,
      onSignal: () => () => {},
      ...more,
    });

  it("ends with its own status, and all of its stderr", async () => {
    const stderr = new PassThrough();
    expect(await supervise("echo one >&2; printf two >&2; exit 3", { stderr })).toEqual({ code: 3, signal: null });
    expect(String(stderr.read())).toBe("one\ntwo");
    expect(await supervise("kill -9 $$")).toEqual({ code: null, signal: "SIGKILL" });
  });

  it("can open its stderr by name, as it does to log there", async () => {
    const stderr = new PassThrough();
    expect(await supervise("echo by name > /dev/stderr", { stderr })).toEqual({ code: 0, signal: null });
    expect(String(stderr.read())).toBe("by name\n");
    expect(readdirSync(directory)).toEqual([]);
  });

  it("gets the signals that we get", async () => {
    const stderr = new PassThrough();
    let pass: (signal: NodeJS.Signals) => void = () => {};
    const run = supervise("trap 'exit 9' HUP; echo up >&2; while :; do sleep 0.05; done", {
      stderr,
      onSignal: (given) => {
        pass = given;
        return () => {};
      },
    });
    stderr.once("data", () => pass("SIGHUP"));
    expect(await run).toEqual({ code: 9, signal: null });
  });

  it("is ended when what it speaks to is no more, by force where it must, with the cause as error", async () => {
    const stderr = new PassThrough();
    let lose: (error: TokenfwdError) => void = () => {};
    const gone = new Promise<TokenfwdError>((resolve) => {
      lose = resolve;
    });
    const run = supervise("trap '' TERM; echo up >&2; exec sleep 600", { stderr, gone });
    stderr.once("data", () => lose(new TokenfwdError("E_CHORIA", "the relay is gone")));
    await expect(run).rejects.toThrow("the relay is gone");
  });

  it("is ended, with its directory, when we are killed", async () => {
    mkdirSync(join(directory, "run"));
    const child = spawn("/bin/sh", ["-c", "echo up; exec sleep 600"], {
      stdio: ["ignore", "pipe", "ignore"],
      detached: true,
    });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    const ended = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
    const program = `import { startWatchdog } from ${JSON.stringify(`${process.cwd()}/dist/choria/run/watchdog.js`)};
      startWatchdog(${child.pid}, ${JSON.stringify(join(directory, "run"))}); process.kill(process.pid, "SIGKILL");`;
    const { signal, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
    expect(signal).toBe("SIGKILL");
    expect(stderr).toBe("tokenfwd: tokenfwd choria run was killed, so choria is ended\n");
    expect(await ended).toBe("SIGTERM");
    expect(readdirSync(directory)).toEqual([]);
  });

  it("that cannot be started is said", async () => {
    await expect(supervise("", { program: join(directory, "nothing") })).rejects.toThrow(/nothing cannot be started/);
  });
});
