/*
 * `connect --stock` over a real sshd: a stock p11-kit server in the place of our agent, run and supervised by us. Programs do through it
 * what they do at a p11-kit server that nobody forwards, and it ends with us however we end.
 */
import { execFileSync } from "node:child_process";
import { verify, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { childrenOf, processesNaming } from "../support/processes.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT, startStockServer } from "./agent-process.js";
import { type CliProcess, runCli, startCli } from "./cli-process.js";
import { copyToken, differences, type ProgramCase, runProgram, transcriptOf, type Way, wayTo } from "./programs.js";
import { everydayCases, managingCases } from "./programs-cases.js";

const SEQUENCE = fileURLToPath(new URL("choria-sequence.py", import.meta.url));

/** In the place of p11-kit: the real one behind a door that closes at any version byte but 0, as releases before 0.24.1 do. */
const OLD_RELEASE = `#!${process.execPath}
const { connect, createServer } = require("node:net");
const { spawn } = require("node:child_process");
const words = process.argv.slice(2);
const at = words.indexOf("--name") + 1;
const path = words[at];
words[at] = path + ".real";
const real = spawn("/usr/bin/p11-kit", words, { stdio: ["ignore", "pipe", "inherit"] });
const door = createServer((client) => {
  client.on("error", () => {});
  client.once("data", (first) => {
    if (first[0] !== 0) return void client.destroy();
    const server = connect(words[at]);
    server.on("error", () => client.destroy());
    server.write(first);
    client.pipe(server).pipe(client);
  });
});
real.stdout.once("data", () => door.listen(path, () => console.log("P11_KIT_SERVER_ADDRESS=unix:path=" + path)));
process.on("SIGTERM", () => {
  real.kill();
  real.once("exit", () => process.exit(0));
});
`;

let token: SoftHsm;
let bastion: Sshd;
let dir = "";
/** Of the workstation, where p11-kit server's socket lies; not the bastion's. */
let runtime = "";
let env: NodeJS.ProcessEnv = {};

beforeAll(async () => {
  token = await createSoftHsm();
  bastion = await startSshd();
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
});

function makeHome(): void {
  dir = mkdtempSync(join(tmpdir(), "tfwd-stock-"));
  runtime = join(dir, "run");
  mkdirSync(runtime, { mode: 0o700 });
  env = { ...token.env, XDG_STATE_HOME: join(dir, "state"), XDG_RUNTIME_DIR: runtime };
}

/** Which token directory SoftHSM is to use, and nothing else of an environment. */
const pick = ({ SOFTHSM2_CONF }: NodeJS.ProcessEnv) => ({ SOFTHSM2_CONF });

const words = (...more: readonly string[]) => [
  "connect",
  "bastion",
  "-F",
  bastion.sshConfig,
  "--module",
  token.modulePath,
  "--stock",
  ...more,
];

async function ready(cli: CliProcess): Promise<{ readonly address: string; readonly remoteSocket: string }> {
  return (await cli.untilEvent("ready")) as unknown as { address: string; remoteSocket: string };
}

/** p11-kit's server and the shell beside it. */
const serverProcesses = () => processesNaming(`${runtime}/tokenfwd-stock-`);

/** Waits for the end of a process by what the kernel says, without a handle on it. */
async function untilNone(look: () => readonly unknown[]): Promise<void> {
  const until = Date.now() + 10_000;
  while (look().length > 0 && Date.now() < until) await new Promise((done) => setTimeout(done, 20));
  expect(look()).toEqual([]);
}

const key = { id: "01", label: "", keyFile: "", publicKeyFile: "", certificateFile: null };
const names = (list: (token: SoftHsm) => ProgramCase[]): string[] =>
  list({ label: "", pin: "", soPin: "", keys: { rsa: key, ec: key } } as unknown as SoftHsm).map((one) => one.name);
/** Where a program fails without us as well: the PIN is not asked for at the workstation. */
const FAILS = new Set(["sign with no PIN", "sign with a wrong PIN"]);

describe.each([
  ["everyday programs", "rsa+ec", everydayCases],
  ["managing a token", "rsa", managingCases],
] as const)("%s through --stock", (_, objects, list) => {
  const disposals: (() => unknown)[] = [];
  let cli: CliProcess | undefined;
  let cases: ReadonlyMap<string, ProgramCase>;
  let ways: { readonly stock: Way; readonly ours: Way };
  let label = "";

  beforeAll(async () => {
    makeHome();
    const made = dir;
    disposals.push(() => rmSync(made, { recursive: true, force: true }));
    const first = await createSoftHsm({ objects });
    disposals.push(() => first.dispose());
    ({ label } = first);
    // A token each, since some cases change theirs.
    const [theirs, ours] = [copyToken(first), copyToken(first)];
    disposals.push(theirs.dispose, ours.dispose);
    const stock = await startStockServer(theirs);
    disposals.push(() => stock.dispose());
    cli = startCli(words("--json"), { env: { ...env, ...pick(ours.env) } });
    disposals.push(() => cli?.end() ?? Promise.resolve());
    const { address, remoteSocket } = await ready(cli);
    ways = { stock: wayTo("stock", theirs, dir, stock), ours: wayTo("ours", ours, dir, { ...stock, socket: remoteSocket, address }) };
    cases = new Map(list(first).map((one) => [one.name, one]));
  }, 60_000);
  afterAll(async () => {
    for (const dispose of disposals.reverse()) await dispose();
  });

  it.each(names(list))("%s does what it does at such a server without us", async (name) => {
    const one = cases.get(name);
    if (one === undefined) throw new Error(`no case ${name}`);
    const theirs = await transcriptOf(one, ways.stock);
    const ours = await transcriptOf(one, ways.ours);
    expect(differences(theirs, ours), ours.join("\n")).toEqual([]);
    // The same failure twice is no success.
    expect(ours).toContain(`exit ${FAILS.has(name) ? 1 : (one.exit ?? 0)}`);
    expect(ours).not.toContain("signature: bad");
  });

  it("says what it is, verifies itself, and takes everything away at the end", async () => {
    const event = await cli?.untilEvent("ready");
    expect(event).toMatchObject({ transport: "stock", verified: "rpc", key: "all", policy: null, wellKnown: "ours" });
    expect(event?.["tokens"]).toMatchObject([{ label }]);
    expect(serverProcesses().length).toBeGreaterThan(0);
    await cli?.end();
    expect(await cli?.exited).toMatchObject({ code: 0 });
    await untilNone(serverProcesses);
    expect(readdirSync(runtime)).toEqual([]);
    expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  });
});

describe("one connect with --stock", () => {
  const cleanUps: (() => Promise<unknown> | unknown)[] = [];
  beforeEach(() => {
    makeHome();
    const made = dir;
    cleanUps.push(() => rmSync(made, { recursive: true, force: true }));
  });
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
  });
  const start = (...more: readonly string[]): CliProcess => {
    const cli = startCli(words(...more), { env });
    cleanUps.push(() => cli.end());
    return cli;
  };

  it("serves Choria's sequence of ten signatures from a token with one key, with the PIN that Choria passes", async () => {
    const one = await createSoftHsm({ objects: "rsa", pin: "canary-577215" });
    cleanUps.push(() => one.dispose());
    const document = join(dir, "document");
    writeFileSync(document, "a request");
    const command = ["python3", SEQUENCE, P11KIT_CLIENT, one.pin, document];
    const log = join(dir, "log");
    const cli = startCli(
      ["connect", "bastion", "-F", bastion.sshConfig, "--module", one.modulePath, "--stock", "--json", "--", ...command],
      {
        env: { ...env, ...one.env, XDG_RUNTIME_DIR: runtime, XDG_STATE_HOME: join(dir, "state"), TOKENFWD_LOG: log },
      },
    );
    const done = await cli.exited;
    expect(done, done.stderr).toMatchObject({ code: 0 });
    const result = JSON.parse(done.stdout.toString()) as { certificate: string; signatures: readonly string[] };
    expect(result).toMatchObject({ keys: 1, certificates: 1 });
    const certificate = new X509Certificate(Buffer.from(result.certificate, "base64"));
    const good = result.signatures.map((signature, number) =>
      verify("sha256", Buffer.from(`a request${number}`), certificate.publicKey, Buffer.from(signature, "base64")),
    );
    expect(good).toEqual(Array.from({ length: 10 }, () => true));
    expect(`${done.stderr}${readFileSync(log, "utf8")}`).not.toContain(one.pin);
    expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  });

  it("tells a person that the PIN crosses the connection and that nothing is refused there", async () => {
    const cli = start();
    await cli.untilStderr(/until this command ends/);
    expect(cli.stderr()).toMatch(/served by stock p11-kit server: no policy applies/);
    expect(cli.stderr()).toMatch(/a PIN that is typed there crosses the connection/);
    // The first of it is said before there is anything to type a PIN into.
    const before = cli.stderr().slice(0, cli.stderr().indexOf("tokenfwd: ready"));
    expect(before).toMatch(/warning: --stock: a PIN is typed on the bastion and crosses the connection, and no policy applies/);
  });

  it("shows the bastion only the token that --token names", async () => {
    const two = await createSoftHsm({ label: "first token" });
    cleanUps.push(() => two.dispose());
    await two.addToken("second token");
    const list = ["p11tool", "--batch", "--provider", P11KIT_CLIENT, "--list-token-urls"];
    for (const chosen of ["second token", "PKCS11:token=second%20token"]) {
      const done = await runCli(
        ["connect", "bastion", "-F", bastion.sshConfig, "--module", two.modulePath, "--stock", "--token", chosen, "--", ...list],
        { env: { ...env, ...two.env, XDG_RUNTIME_DIR: runtime, XDG_STATE_HOME: join(dir, "state") } },
      );
      expect(done, done.stderr).toMatchObject({ code: 0 });
      expect(done.stdout.toString()).toContain("token=second%20token");
      expect(done.stdout.toString()).not.toContain("token=first%20token");
    }
    const none = await runCli(words("--token", "nobody's"), { env });
    expect(none).toMatchObject({ code: 20 });
    expect(none.stderr).toMatch(/E_TOKEN_NOT_FOUND/);
    await untilNone(serverProcesses);
  });

  it("ends with a reason and a clean bastion when the p11-kit server dies", async () => {
    const cli = start("--json");
    await ready(cli);
    const server = serverProcesses().find(({ words }) => !words.startsWith("/bin/sh"));
    process.kill(server?.pid ?? Number.NaN, "SIGKILL");
    const done = await cli.exited;
    expect(done).toMatchObject({ code: 40 });
    expect(cli.events().find((one) => one.event === "lost")).toMatchObject({ code: "E_STOCK" });
    expect(cli.events().find((one) => one.event === "error")).toMatchObject({ code: "E_STOCK", exitCode: 40 });
    expect(readdirSync(bastion.runtimeDir)).toEqual([]);
    await untilNone(serverProcesses);
    expect(readdirSync(runtime)).toEqual([]);
  });

  it("leaves no p11-kit server and no directory behind when it is killed, in the midst of a program's call", async () => {
    const cli = start("--json");
    const { address } = await ready(cli);
    const { SOFTHSM2_CONF: _, ...own } = token.env;
    const generate = ["--keypairgen", "--key-type", "rsa:4096", "--label", "never there", "--id", "44", "--login", "--pin", token.pin];
    const program = runProgram(
      { argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, ...generate] },
      { ...own, P11_KIT_SERVER_ADDRESS: address, XDG_RUNTIME_DIR: dir },
    );
    // The process that serves the program.
    const remotes = (): number[] => {
      const server = serverProcesses().find(({ words }) => !words.startsWith("/bin/sh"));
      return server === undefined ? [] : childrenOf(server.pid);
    };
    const until = Date.now() + 10_000;
    while (remotes().length === 0 && Date.now() < until) await new Promise((done) => setTimeout(done, 5));
    const serving = remotes();
    expect(serving).not.toEqual([]);
    process.kill(cli.pid, "SIGKILL");
    await cli.exited;
    await program;
    await untilNone(serverProcesses);
    await untilNone(() => serving.filter((pid) => existsSync(`/proc/${pid}`)));
    expect(readdirSync(runtime)).toEqual([]);
    await untilNone(() => readdirSync(bastion.runtimeDir));
  });

  it("is interrupted while the server starts, and leaves nothing", async () => {
    const bin = join(dir, "bin");
    mkdirSync(bin);
    writeFileSync(join(bin, "p11-kit"), "#!/bin/sh\nexec sleep 600\n", { mode: 0o755 });
    const cli = startCli(words("--json"), { env: { ...env, PATH: `${bin}${delimiter}${process.env["PATH"]}` } });
    cleanUps.push(() => cli.end());
    const until = Date.now() + 10_000;
    while (serverProcesses().length === 0 && Date.now() < until) await new Promise((done) => setTimeout(done, 20));
    expect(serverProcesses()).not.toEqual([]);
    const started = serverProcesses().flatMap(({ pid }) => [pid, ...childrenOf(pid)]);
    cli.child.kill("SIGINT");
    expect(await cli.exited).toMatchObject({ code: 130 });
    await untilNone(() => started.filter((pid) => existsSync(`/proc/${pid}`)));
    expect(readdirSync(runtime)).toEqual([]);
    expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  });

  it("speaks to a p11-kit of a release that takes no version but 0, with verification and all", async () => {
    const bin = join(dir, "bin");
    mkdirSync(bin);
    writeFileSync(join(bin, "p11-kit"), OLD_RELEASE, { mode: 0o755 });
    const list = ["pkcs11-tool", "--module", P11KIT_CLIENT, "-O"];
    const done = await runCli(words("--json", "--", ...list), { env: { ...env, PATH: `${bin}${delimiter}${process.env["PATH"]}` } });
    expect(done, done.stderr).toMatchObject({ code: 0 });
    expect(done.stderr).toMatch(/"event":"ready".*"transport":"stock".*"verified":"rpc"/);
    expect(done.stdout.toString()).toMatch(/rsa key/);
    await untilNone(serverProcesses);
  });

  it("names the package where there is no p11-kit, and where there is one without its server", async () => {
    const bin = join(dir, "bin");
    mkdirSync(bin);
    for (const name of ["ssh", "ssh-keygen", "sh", "cat", "rm", "rmdir"])
      symlinkSync(execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim(), join(bin, name));
    const without = { ...env, PATH: bin };
    const none = await runCli(words(), { env: without });
    expect(none, none.stderr).toMatchObject({ code: 40 });
    expect(none.stderr).toMatch(/needs the program p11-kit server .*E_STOCK 40.*\n.*p11-kit-server/);
    const half = join(dir, "half");
    mkdirSync(half);
    writeFileSync(
      join(half, "p11-kit"),
      "#!/bin/sh\necho \"p11-kit: 'server' is not a valid command. See 'p11-kit --help'\" >&2\nexit 2\n",
      { mode: 0o755 },
    );
    const part = await runCli(words(), { env: { ...env, PATH: [half, bin].join(delimiter) } });
    expect(part.stderr).toMatch(/needs the program p11-kit server .*E_STOCK 40/);
    expect(readdirSync(runtime)).toEqual([]);
  });

  it.each([
    ["--policy", "sign"],
    ["--allow-raw-rsa"],
    ["--allow-full-over-forward"],
    ["--pin-source", "client"],
    ["--unlock", "now"],
    ["--key", "pkcs11:id=%01"],
    ["--token", "pkcs11:token=t;id=%01"],
  ])("refuses %s with a reason before anything is started", async (...option) => {
    const done = await runCli(words(...option), { env });
    expect(done).toMatchObject({ code: 2 });
    expect(done.stderr).toMatch(new RegExp(`${option[0]}.* cannot hold with --stock: .*E_USAGE 2.*\\nhint: `));
    expect(readdirSync(runtime)).toEqual([]);
  });

  it("refuses a module that leads back to a socket, and one that is not there, by our own codes", async () => {
    for (const module of [P11KIT_CLIENT, "/nowhere/module.so"]) {
      const done = await runCli(["connect", "bastion", "-F", bastion.sshConfig, "--module", module, "--stock"], { env });
      expect(done.stderr).toMatch(/E_MODULE 20/);
    }
    expect(readdirSync(runtime)).toEqual([]);
  });
});
