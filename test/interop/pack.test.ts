/*
 * The package as npm makes and installs it: packed from a copy of the checkout that was never built, installed into an
 * empty prefix, and used from there against a real sshd. Needs the npm registry, or npm's cache of it.
 */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createSoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { startCli } from "./cli-process.js";

const execute = promisify(execFile);
const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PIN = "canary-244949";
let dir: string;
let tarball: string;

/** npm's own environment for a run outside `npm test`, whose settings would be taken for ours. */
function npmEnvironment(): NodeJS.ProcessEnv {
  const ours = /^npm_(lifecycle|package|config_(local_prefix|prefix|global_prefix))/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
  // Building pkcs11js needs Node's headers. Where this Node brought them, nothing has to be fetched.
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  return {
    ...env,
    PATH: `${dirname(process.execPath)}${delimiter}${process.env["PATH"]}`,
    npm_config_prefer_offline: "true",
    ...(existsSync(join(prefix, "include", "node", "node.h")) ? { npm_config_nodedir: prefix } : {}),
  };
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-pack-"));
  // A copy, because packing builds, and other tests run what is built here. No dist: packing has to make it.
  const checkout = join(dir, "checkout");
  const left = new Set(["node_modules", "dist", ".git"].map((name) => join(ROOT, name)));
  cpSync(ROOT, checkout, { recursive: true, filter: (source) => !left.has(source) && !lstatSync(source).isSocket() });
  symlinkSync(join(ROOT, "node_modules"), join(checkout, "node_modules"));
  const packed = join(dir, "packed");
  mkdirSync(packed);
  await execute("npm", ["pack", "--pack-destination", packed], { cwd: checkout, env: npmEnvironment(), maxBuffer: 1 << 26 });
  const found = readdirSync(packed);
  expect(found).toEqual([expect.stringMatching(/^tokenfwd-\d+\.\d+\.\d+\.tgz$/)]);
  tarball = join(packed, found[0] ?? "");
}, 120_000);
afterAll(() => {
  if (dir) rmSync(dir, { recursive: true, force: true });
});

test("the tarball holds the program, built, with its documents, and nothing else", () => {
  const names = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" }).trim().split("\n");
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { files: string[] };
  const listed = new Set([...manifest.files, "package.json"]);
  expect(names.filter((name) => !listed.has(name.split("/")[1] ?? ""))).toEqual([]);
  expect(names.filter((name) => /(^|\/)(test|src|node_modules)\//.test(name))).toEqual([]);
  expect(names.filter((name) => /\.(test\.|map$|key$|pem$|npmrc$|env$|log$)/.test(name))).toEqual([]);

  const unpacked = join(dir, "unpacked");
  mkdirSync(unpacked);
  execFileSync("tar", ["-xzf", tarball, "-C", unpacked]);
  const files = (top: string) =>
    readdirSync(top, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(top.length + 1));
  // Every source file was built, and nothing in dist is left from an older one.
  const built = files(join(unpacked, "package", "dist")).filter((name) => name.endsWith(".js"));
  const sources = files(join(ROOT, "src")).filter((name) => name.endsWith(".ts"));
  expect(built.sort()).toEqual(sources.map((name) => name.replace(/\.ts$/, ".js")).sort());
  const bastion = join(unpacked, "package", "dist", "tokenfwd-bastion.cjs");
  expect(lstatSync(bastion).mode & 0o777).toBe(0o755);
  const secret = /-----BEGIN [A-Z ]*PRIVATE KEY|_authToken|npm_[A-Za-z0-9]{36}/;
  const telling = files(unpacked).filter((name) => {
    const text = readFileSync(join(unpacked, name), "latin1");
    return secret.test(text) || text.includes(dir);
  });
  expect(telling).toEqual([]);
});

test("an empty project that installed it, without running any script, imports tokenfwd/client, and its types resolve", async () => {
  const project = join(dir, "project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "p", version: "1.0.0", private: true, type: "module" }));
  await execute("npm", ["install", "--ignore-scripts", tarball], { cwd: project, env: npmEnvironment(), maxBuffer: 1 << 26 });
  const say = `const { connectClient } = await import("tokenfwd/client"); console.log(typeof connectClient);
    await connectClient({ socket: "/nonexistent/s", env: {} }).catch((error) => console.log(error.code, error.exitCode));`;
  const ran = spawnSync(process.execPath, ["--input-type=module", "-e", say], { cwd: project, encoding: "utf8" });
  expect(ran).toMatchObject({ status: 0, stderr: "", stdout: "function\nE_AGENT_SOCKET 40\n" });
  for (const hidden of ["tokenfwd", "tokenfwd/dist/agent/agent.js"]) {
    const refused = spawnSync(process.execPath, ["--input-type=module", "-e", `await import("${hidden}")`], {
      cwd: project,
      encoding: "utf8",
    });
    expect(refused.stderr).toMatch(/ERR_PACKAGE_PATH_NOT_EXPORTED/);
  }

  mkdirSync(join(project, "node_modules", "@types"), { recursive: true });
  symlinkSync(join(ROOT, "node_modules", "@types", "node"), join(project, "node_modules", "@types", "node"));
  const strict = [
    "--noEmit",
    "--strict",
    "--module",
    "NodeNext",
    "--target",
    "ES2023",
    "--lib",
    "ES2023,ESNext.Disposable",
    "--types",
    "node",
  ];
  const check = (text: string) => {
    writeFileSync(join(project, "use.ts"), text);
    return spawnSync(process.execPath, [join(ROOT, "node_modules", "typescript", "bin", "tsc"), ...strict, "use.ts"], {
      cwd: project,
      encoding: "utf8",
    });
  };
  const good =
    'import { connectClient } from "tokenfwd/client";\nconst client = await connectClient();\nexport const keys: string[] = (await client.keys()).map((key) => key.uri);\n';
  expect(check(good)).toMatchObject({ status: 0, stdout: "" });
  expect(check(good.replace("key.uri", "key.slot")).stdout).toContain("use.ts(3");
}, 120_000);

test("installed into an empty prefix it connects, signs, and leaves no process, socket or file", async () => {
  const prefix = join(dir, "prefix");
  mkdirSync(prefix);
  await execute("npm", ["install", "-g", tarball, "--prefix", prefix], { cwd: dir, env: npmEnvironment(), maxBuffer: 1 << 26 });
  const program = join(prefix, "bin", "tokenfwd");
  const PATH = npmEnvironment()["PATH"];
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
  const version = spawnSync(program, ["--version"], { env: { PATH }, encoding: "utf8" });
  expect(version).toMatchObject({ status: 0, stderr: "", stdout: `${manifest.version}\n` });

  await using token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
  const bastion = await startSshd();
  // All a program may leave things in is below `world`.
  const world = join(dir, "world");
  const pinFile = join(dir, "pin");
  writeFileSync(pinFile, `${PIN}\n`, { mode: 0o600 });
  for (const name of ["home", "state", "tmp"]) mkdirSync(join(world, name), { recursive: true });
  mkdirSync(join(world, "run"), { mode: 0o700 });
  const env = {
    PATH,
    SOFTHSM2_CONF: token.configFile,
    HOME: join(world, "home"),
    XDG_STATE_HOME: join(world, "state"),
    XDG_RUNTIME_DIR: join(world, "run"),
    TMPDIR: join(world, "tmp"),
  };
  const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--pin-source", `file:${pinFile}`, "--json"];
  const cli = startCli(words, { env, program });
  try {
    expect(await cli.untilEvent("ready")).toMatchObject({ verified: "rpc", wellKnown: "ours" });
    const data = join(dir, "data");
    const signature = join(dir, "signature");
    writeFileSync(data, "from the package");
    const sign = `pkcs11-tool --module ${P11KIT_CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i ${data} -o ${signature}`;
    const signed = spawnSync("ssh", ["-F", bastion.sshConfig, "bastion", sign], { encoding: "utf8" });
    expect(signed, signed.stderr).toMatchObject({ status: 0 });
    const verify = ["dgst", "-sha256", "-verify", token.keys.rsa?.publicKeyFile ?? "", "-signature", signature, data];
    expect(execFileSync("openssl", verify, { encoding: "utf8" })).toContain("Verified OK");

    const processes = [cli.pid, ...readFileSync(`/proc/${cli.pid}/task/${cli.pid}/children`, "utf8").trim().split(" ").map(Number)];
    expect(processes.length).toBe(2);
    cli.child.kill("SIGINT");
    expect(await cli.exited).toMatchObject({ code: 0, signal: null });
    expect(processes.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
    const left = readdirSync(world, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory());
    expect(left.map((entry) => join(entry.parentPath, entry.name).slice(world.length))).toEqual(["/state/tokenfwd/workstation-id"]);
    expect(readdirSync(bastion.runtimeDir, { recursive: true })).toEqual([]);
  } finally {
    await cli.end();
    await bastion.dispose();
  }
}, 180_000);
