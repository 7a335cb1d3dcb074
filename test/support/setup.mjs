/*
 * `npm run setup`: makes a machine fit to build, test and demonstrate tokenfwd. Idempotent and quick when nothing is
 * missing. Plain Node without any package, because it runs before there is a node_modules.
 *
 *   npm packages     `npm ci` when one of package.json's is missing or of another version, or pkcs11js cannot be loaded
 *   Debian packages  as root or through sudo; asked for on a terminal, done at once with --yes, CI=true or no terminal
 *   elsewhere        prints what to install and exits 1
 *
 * It must never let the packaged sshd start, and never replace a policy-rc.d that somebody else put there.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const POLICY = "/usr/sbin/policy-rc.d";
const POLICY_MARK = "# tokenfwd setup: removed when the packages are installed";

/** What the tests, the demo and the build of pkcs11js start, by Debian package, with what to look for where there is no dpkg. */
const SYSTEM = {
  softhsm2: ["softhsm2-util"],
  opensc: ["pkcs11-tool"],
  "p11-kit": ["p11-kit"],
  "p11-kit-modules": ["*/pkcs11/p11-kit-client.so"],
  "openssh-server": ["sshd"],
  "openssh-client": ["ssh", "ssh-keygen"],
  "gnutls-bin": ["p11tool"],
  "libengine-pkcs11-openssl": ["*/engines-3/pkcs11.so"],
  swtpm: ["swtpm"],
  "libtpm2-pkcs11-1": ["*/pkcs11/libtpm2_pkcs11.so"],
  "libtss2-tcti-swtpm0": ["*/libtss2-tcti-swtpm.so.0"],
  openssl: ["openssl"],
  iproute2: ["ip"],
  csh: ["csh"],
  tcsh: ["tcsh"],
  fish: ["fish"],
  dash: ["dash"],
  "netcat-openbsd": ["nc"],
  socat: ["socat"],
  gcc: ["gcc"],
  "g++": ["g++"],
  make: ["make"],
  "libc6-dev": [],
  python3: ["python3"],
  gdb: ["gdb", "gcore"],
  chromium: ["chromium"],
};

const say = (text) => process.stderr.write(`setup: ${text}\n`);
function fail(text) {
  say(text);
  process.exit(1);
}

// ---- npm packages

/** Why `npm ci` is needed, or null. */
function npmNeed() {
  const wanted = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  for (const [name, version] of Object.entries({ ...wanted.dependencies, ...wanted.devDependencies })) {
    const file = join(ROOT, "node_modules", name, "package.json");
    if (!existsSync(file)) return `${name} is not installed`;
    const found = JSON.parse(readFileSync(file, "utf8")).version;
    if (found !== version) return `${name} is ${found} and ${version} is wanted`;
  }
  // Loaded in a process of its own: a native module for another Node may do worse than throw.
  const load = spawnSync(process.execPath, ["-e", "require('pkcs11js')"], { cwd: ROOT, stdio: "ignore" });
  return load.status === 0 ? null : "pkcs11js cannot be loaded";
}

function installNpm(why) {
  say(`${why}: npm ci`);
  const env = { ...process.env };
  // Building pkcs11js needs Node's headers. Where this Node brought them, nothing has to be fetched.
  const prefix = dirname(dirname(process.execPath));
  if (existsSync(join(prefix, "include", "node", "node.h")) && env.npm_config_nodedir === undefined) env.npm_config_nodedir = prefix;
  const run = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: ROOT, env, stdio: ["ignore", 2, 2] });
  if (run.error !== undefined) fail(`npm cannot be started: ${run.error.message}`);
  if (run.status !== 0) fail("npm ci failed; a C++ compiler, make and python3 are needed to build pkcs11js");
  const still = npmNeed();
  if (still !== null) fail(`after npm ci: ${still}; install a C++ compiler, make and python3 (Debian: build-essential python3)`);
}

// ---- system packages

const onPath = (name) =>
  [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/sbin"].some((dir) => dir !== "" && existsSync(join(dir, name)));

function findLibrary(pattern) {
  const tail = pattern.slice(2);
  const machine = { x64: "x86_64", arm64: "aarch64" }[process.arch] ?? process.arch;
  return [`/usr/lib/${machine}-linux-gnu`, "/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/homebrew/lib"].some((dir) =>
    existsSync(join(dir, tail)),
  );
}

function missingSystem(debian) {
  const names = Object.keys(SYSTEM);
  if (!debian) return names.filter((name) => !SYSTEM[name].every((what) => (what.startsWith("*") ? findLibrary(what) : onPath(what))));
  // biome-ignore lint/suspicious/noTemplateCurlyInString: this is dpkg-query's own format
  const asked = spawnSync("dpkg-query", ["-W", "-f", "${db:Status-Status} ${Package}\n", ...names], { encoding: "utf8" });
  const installed = new Set(
    asked.stdout
      .split("\n")
      .filter((line) => line.startsWith("installed "))
      .map((line) => line.slice("installed ".length)),
  );
  return names.filter((name) => !installed.has(name));
}

/** The words before `apt-get` that make us root, or null when there is no way. */
function rootPrefix(terminal) {
  if (process.getuid?.() === 0) return [];
  if (!onPath("sudo")) return null;
  if (terminal) return ["sudo"];
  return spawnSync("sudo", ["-n", "true"], { stdio: "ignore" }).status === 0 ? ["sudo", "-n"] : null;
}

function askYes(question) {
  return new Promise((resolve) => {
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    lines.once("close", () => resolve(false));
    lines.question(question, (answer) => {
      resolve(/^y(es)?$/i.test(answer.trim()));
      lines.close();
    });
  });
}

function runAs(prefix, words, options = {}) {
  const [command, ...args] = [...prefix, ...words];
  return spawnSync(command, args, { stdio: [options.input === undefined ? "ignore" : "pipe", 2, 2], ...options });
}

/**
 * Forbids every service start while packages are installed. Answers how to undo that. An existing policy-rc.d stays as it
 * is: then it must itself forbid ssh, or we stop when sshd, the one service among our packages, is to be installed.
 */
function forbidServices(prefix, missing) {
  const left = existsSync(POLICY) && statSync(POLICY).isFile() && readFileSync(POLICY, "utf8").includes(POLICY_MARK);
  if (existsSync(POLICY) && !left) {
    const answer = runAs(prefix, [POLICY, "ssh", "start"]).status;
    if (answer === 101 || !missing.includes("openssh-server")) return () => {};
    fail(`${POLICY} exists and allows ssh to start; install openssh-server yourself, or make it exit 101, and run this again`);
  }
  const text = `#!/bin/sh\n${POLICY_MARK}\nexit 101\n`;
  const remove = () => {
    if (prefix.length === 0) rmSync(POLICY, { force: true });
    else runAs(prefix, ["rm", "-f", POLICY]);
  };
  if (prefix.length === 0) writeFileSync(POLICY, text, { mode: 0o755, flag: left ? "w" : "wx" });
  else if (runAs(prefix, ["sh", "-c", `umask 022; cat > ${POLICY}; chmod 755 ${POLICY}`], { input: text }).status !== 0) {
    remove();
    fail(`cannot write ${POLICY}`);
  }
  return remove;
}

function installDebian(prefix, missing) {
  const undo = forbidServices(prefix, missing);
  // spawnSync keeps signals from being handled until the child has ended; then `finally` and these still run.
  const onSignal = () => {
    undo();
    process.exit(130);
  };
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  try {
    const apt = [...prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"];
    // A stale list makes the install fail, a mirror that is away does not have to: so the update's own result does not count.
    runAs(apt, ["update"]);
    const run = runAs(apt, ["install", "-y", "--no-install-recommends", ...missing]);
    if (run.status !== 0) say("apt-get install failed");
  } finally {
    undo();
    process.removeListener("SIGINT", onSignal);
    process.removeListener("SIGTERM", onSignal);
  }
}

async function system() {
  const debian = process.platform === "linux" && onPath("dpkg-query") && onPath("apt-get");
  const missing = missingSystem(debian);
  if (missing.length === 0) return;
  const list = missing.join(" ");
  if (!debian) fail(`these are needed by the tests and the demo (names as in Debian), please install them: ${list}`);
  const terminal = process.stdin.isTTY === true && process.stderr.isTTY === true;
  const atOnce = process.argv.includes("--yes") || process.env.CI === "true" || !terminal;
  const prefix = rootPrefix(terminal);
  const byHand = `apt-get install --no-install-recommends ${list}`;
  if (prefix === null) fail(`these Debian packages are missing, and we are neither root nor have a sudo that asks nothing: ${byHand}`);
  if (!atOnce && !(await askYes(`setup: install ${list}? no service will be started. [y/N] `))) fail(`not installed; by hand: ${byHand}`);
  say(`installing ${list}`);
  installDebian(prefix, missing);
  const still = missingSystem(true);
  if (still.length > 0) fail(`still missing: ${still.join(" ")}; by hand: apt-get install --no-install-recommends ${still.join(" ")}`);
}

if (process.argv.slice(2).some((word) => word !== "--yes")) fail("usage: npm run setup [-- --yes]");
if (Number(process.versions.node.split(".")[0]) < 20) fail(`Node 20 or newer is needed, this is ${process.versions.node}`);
const why = npmNeed();
// System packages first: they may bring what building pkcs11js needs.
await system();
if (why !== null) installNpm(why);
