/*
 * `tokenfwd doctor` as a user runs it: its document, list and exit status, the report, and that of a PIN, a key and the environment
 * nothing gets out.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { childrenOf } from "../support/processes.js";
import { runUnderPty } from "../support/pty.js";
import { createShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";
import { runCli, startCli, TOKENFWD } from "./cli-process.js";

const PROJECT = join(import.meta.dirname, "../..");
const CANARY = "Wd4mTq8vNz2xKb7hRs5cLj9f";
let token: SoftHsm;
let dir: string;

beforeAll(async () => {
  token = await createSoftHsm({ objects: "rsa", pin: CANARY });
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-doctor-cli-"));
  writeFileSync(join(dir, "pin"), `${CANARY}\n`, { mode: 0o600 });
});
afterAll(async () => {
  await token.dispose();
  rmSync(dir, { recursive: true, force: true });
});

const doctor = (words: readonly string[], env: NodeJS.ProcessEnv = {}) =>
  runCli(["doctor", ...words], { env: { ...token.env, HOME: dir, ...env } });

describe("tokenfwd doctor", () => {
  test("with everything in order ends with 0, and --json is the pinned document", async () => {
    const { code, stdout, stderr } = await doctor(["--module", token.modulePath, "--json"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const document = JSON.parse(stdout.toString()) as { v: number; checks: Record<string, unknown>[] };
    expect(document.v).toBe(1);
    for (const check of document.checks) expect(Object.keys(check)).toEqual(["id", "status", "cause", "detail", "mend"]);
    expect(document.checks.filter(({ status }) => status !== "pass")).toEqual([]);
  });

  test("has the failed check's code as its status, and the list says what mends it, without colours in a pipe", async () => {
    const { code, stdout } = await doctor(["--module", join(dir, "none.so")]);
    expect(code).toBe(20);
    expect(stdout.toString()).toMatch(/^✗ PKCS#11 module .*does not exist \[missing E_MODULE\]\n +mend: check the path/m);
    expect(stdout.toString()).not.toContain("\u001b");
  });

  test("is what connect says by itself: the same cause and the same mend", async () => {
    const module = join(dir, "none.so");
    const { checks } = JSON.parse((await doctor(["--module", module, "--json"])).stdout.toString()) as {
      checks: Record<string, unknown>[];
    };
    const failed = checks.find(({ status }) => status === "fail");
    const connected = await runCli(["connect", "nowhere.invalid", "--module", module, "--json"], { env: token.env });
    const error = JSON.parse(
      connected.stdout
        .toString()
        .split("\n")
        .find((line) => line.includes('"event":"error"')) ?? "{}",
    );
    expect([error.cause, error.hint, error.message]).toEqual([failed?.["cause"], failed?.["mend"], failed?.["detail"]]);
  });

  test("of an installation without the compiled addon says how to get it, and looks at what needs none", async () => {
    const root = join(dir, "installed");
    const modules = join(PROJECT, "node_modules");
    mkdirSync(join(root, "node_modules"), { recursive: true });
    for (const name of ["bin", "dist"]) cpSync(join(PROJECT, name), join(root, name), { recursive: true });
    cpSync(join(PROJECT, "package.json"), join(root, "package.json"));
    for (const name of readdirSync(modules)) {
      // The package as npm leaves it when its script was not run.
      if (name !== "pkcs11js") symlinkSync(join(modules, name), join(root, "node_modules", name));
      else cpSync(join(modules, name), join(root, "node_modules", name), { recursive: true, filter: (path) => !path.endsWith("/build") });
    }
    const cli = startCli([join(root, "bin", "tokenfwd.js"), "doctor", "--module", token.modulePath, "--json"], {
      program: process.execPath,
      env: { ...token.env, HOME: dir },
    });
    const { code, stdout } = await cli.exited;
    const { checks } = JSON.parse(stdout.toString()) as { checks: Record<string, string>[] };
    expect(checks.filter(({ status }) => status === "fail").map(({ id, cause }) => [id, cause])).toEqual([["native-addon", "not-built"]]);
    expect(checks.find(({ id }) => id === "native-addon")?.["mend"]).toContain("npm rebuild pkcs11js");
    expect(checks.find(({ id }) => id === "agent-socket")?.["status"]).toBe("pass");
    expect(code).toBe(20);
  });

  test("takes a command line of connect as it is, and runs no command", async () => {
    const mark = join(dir, "ran");
    const given = ["--module", token.modulePath, "--unlock", "now", "-T", "--tools", "--stock", "--json", "--", "touch", mark];
    const { code, stdout } = await doctor(given);
    expect(code).toBe(0);
    expect(stdout.toString()).toContain('"choria-identity"');
    expect(existsSync(mark)).toBe(false);
  });

  test("writes a report that holds no secret, shows it first, and overwrites nothing", async () => {
    const report = join(dir, "report.json");
    const words = ["--module", token.modulePath, "--pin-source", `file:${join(dir, "pin")}`, "--report", report];
    const first = await doctor(words, { CANARY_IN_ENVIRONMENT: CANARY, SSH_AUTH_SOCK: join(homedir(), CANARY) });
    expect(first.code).toBe(0);
    const text = readFileSync(report, "utf8");
    expect(statSync(report).mode & 0o777).toBe(0o600);
    expect(first.stderr).toContain(text);
    expect(JSON.parse(text)).toMatchObject({ v: 1, side: "workstation", options: ["module", "pin-source", "report"] });
    const key = readFileSync(token.keys.rsa?.keyFile ?? "", "utf8").split("\n")[3] ?? "";
    expect(key.length).toBeGreaterThan(40);
    for (const secret of [
      CANARY,
      Buffer.from(CANARY).toString("base64").slice(0, 30),
      Buffer.from(CANARY).toString("hex"),
      key,
      `${dir}/`,
    ]) {
      expect(text).not.toContain(secret);
    }
    for (const output of [first.stdout.toString(), first.stderr]) expect(output).not.toContain(CANARY);

    const second = await doctor(words);
    expect(second.code).toBe(2);
    expect(second.stderr).toContain("there already");
    expect(readFileSync(report, "utf8")).toBe(text);
  });

  test("colours its marks on a terminal, asks for the PIN there, and has what a signature from the bastion took; the report has no PIN", async () => {
    const bastion = await startSshd();
    try {
      const report = join(dir, "bastion.json");
      const log = join(dir, "log");
      const words = ["doctor", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--report", report];
      const { exitCode, output } = await runUnderPty({
        argv: [process.execPath, TOKENFWD, ...words],
        env: { ...token.env, HOME: dir, TOKENFWD_LOG: log, NO_COLOR: "" },
        answers: [{ expect: /PIN.*: $/m, send: `${CANARY}\r` }],
        timeoutMs: 30_000,
      });
      expect(exitCode).toBe(0);
      expect(output).toContain("\u001b[32m✓\u001b[0m signature");
      expect(output).toMatch(/signature +CKM_SHA256_RSA_PKCS, \d+ ms/);
      const text = readFileSync(report, "utf8");
      expect(JSON.parse(text)).toMatchObject({ side: "workstation" });
      for (const written of [output, text, readFileSync(log, "utf8")]) expect(written).not.toContain(CANARY);
      expect(text).not.toContain(`${bastion.user}@`);
    } finally {
      await bastion.dispose();
    }
  });

  test("ends at a signal in the midst of a check, and leaves no process behind", async () => {
    const shim = await createShimModule(token.modulePath);
    try {
      await shim.control("load hang");
      const cli = startCli(["doctor", "--module", shim.modulePath], { env: { ...token.env, ...shim.env } });
      // The check before it has been told, so that the module is being loaded.
      await cli.until(() => (cli.stdout().includes("policy") ? true : undefined));
      await expect.poll(() => childrenOf(cli.pid)).toHaveLength(1);
      const [host] = childrenOf(cli.pid);
      cli.child.kill("SIGINT");
      expect((await cli.exited).code).toBe(130);
      expect(existsSync(`/proc/${host}`)).toBe(false);
    } finally {
      await shim.dispose();
    }
  });

  test("refuses what it cannot look at before it looks", async () => {
    expect((await doctor(["-oops"])).code).toBe(2);
    expect((await doctor(["bastion"], { TOKENFWD_NESTED: "1" })).code).toBe(2);
    expect((await doctor(["bastion", "--socket", "/x"])).code).toBe(2);
    expect((await doctor(["--module", ""])).stderr).toContain("--module is empty");
  });
});
