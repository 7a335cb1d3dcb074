/*
 * `npm run demo`: shows the main job from end to end with the real programs. It makes a software token, starts a real sshd
 * on a loopback port as the bastion, connects the two with `tokenfwd connect`, signs on the bastion through stock
 * p11-kit, and lets openssl verify. Everything lives in one temporary directory; it must leave no process, socket or file,
 * also when a step fails or Ctrl-C ends it.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const TOKENFWD = fileURLToPath(new URL("../../bin/tokenfwd.js", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "tokenfwd-demo-"));
const file = (name) => join(dir, name);
// Throw-away, like the token that it opens.
const PIN = "271828";
const children = new Set();

// ---- telling what happens

const bold = (text) => (process.stdout.isTTY ? `\u001b[1m${text}\u001b[0m` : text);
const say = (text = "") => process.stdout.write(`${text}\n`);
const chapter = (text) => say(`\n${bold(text)}`);
const note = (text) => say(`           ${text}`);
const command = (where, text) => say(`           ${where}$ ${text}`);
const steps = [];

/** Runs one step and prints it with its time. `run` answers what to say after the title, or nothing. */
async function step(title, run) {
  const started = process.hrtime.bigint();
  const more = await run();
  const ms = Number((process.hrtime.bigint() - started) / 1_000_000n);
  steps.push({ title, ms });
  say(`  ${String(ms).padStart(5)} ms  ${title}${typeof more === "string" ? `: ${more}` : ""}`);
}

// ---- running programs

function run(program, args, options = {}) {
  const done = spawnSync(program, args, { env, encoding: "buffer", ...options });
  if (done.error !== undefined) throw new Error(`${program} cannot be started: ${done.error.message}`);
  if (done.status !== 0)
    throw new Error(`${program} ${args.join(" ")}\nended with ${done.status ?? done.signal}\n${done.stderr}${done.stdout}`);
  return done;
}

function start(program, args, options) {
  const child = spawn(program, args, { env, ...options });
  children.add(child);
  child.exited = new Promise((resolve) => {
    child.once("error", (error) => resolve({ code: null, error }));
    child.once("exit", (code, signal) => resolve({ code, signal }));
  }).finally(() => children.delete(child));
  return child;
}

const find = (what, paths) => {
  const found = paths.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`${what} is not here; run npm run setup`);
  return found;
};
const libraries = existsSync("/usr/lib")
  ? readdirSync("/usr/lib")
      .filter((name) => name.endsWith("-linux-gnu"))
      .map((name) => `/usr/lib/${name}`)
  : [];
const places = [...libraries, "/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/homebrew/lib"];
const SOFTHSM = find(
  "SoftHSM",
  places.map((place) => `${place}/softhsm/libsofthsm2.so`),
);
const CLIENT = find(
  "p11-kit-client.so",
  places.map((place) => `${place}/pkcs11/p11-kit-client.so`),
);
const SSHD = find("sshd", ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"]);
// The workstation id that stays after a connect goes with the rest.
const env = { ...process.env, SOFTHSM2_CONF: file("softhsm2.conf"), XDG_STATE_HOME: file("state") };
delete env.P11_KIT_SERVER_ADDRESS;

// ---- the two sides

function makeToken() {
  mkdirSync(file("tokens"));
  writeFileSync(env.SOFTHSM2_CONF, `directories.tokendir = ${file("tokens")}\nobjectstore.backend = file\nlog.level = ERROR\n`);
  writeFileSync(file("pin"), `${PIN}\n`, { mode: 0o600 });
  run("softhsm2-util", ["--init-token", "--free", "--label", "demo", "--pin", PIN, "--so-pin", "31415926"]);
  const kinds = [
    ["rsa", "01", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]],
    ["ec", "02", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]],
  ];
  for (const [name, id, how] of kinds) {
    run("openssl", ["genpkey", ...how, "-out", file(`${name}.key`)]);
    run("openssl", ["pkey", "-in", file(`${name}.key`), "-pubout", "-out", file(`${name}.pub`)]);
    run("openssl", [
      "req",
      "-x509",
      "-new",
      "-key",
      file(`${name}.key`),
      "-subj",
      `/CN=${name} demo`,
      "-days",
      "2",
      "-outform",
      "DER",
      "-out",
      file(`${name}.der`),
    ]);
    run("softhsm2-util", ["--import", file(`${name}.key`), "--token", "demo", "--label", `${name} key`, "--id", id, "--pin", PIN]);
    const login = ["--module", SOFTHSM, "--token-label", "demo", "--login", "--pin", PIN];
    run("pkcs11-tool", [...login, "--write-object", file(`${name}.der`), "--type", "cert", "--id", id, "--label", `${name} key`]);
    // From here on the token alone holds the private key.
    rmSync(file(`${name}.key`));
  }
  return "RSA-2048 and P-256, a certificate each; the private keys are now nowhere else";
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function startBastion() {
  for (const name of ["host", "id"]) run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", file(name)]);
  writeFileSync(file("authorized_keys"), readFileSync(file("id.pub")), { mode: 0o600 });
  mkdirSync(file("run"));
  chmodSync(file("run"), 0o700);
  if (process.getuid() === 0) mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
  const port = await freePort();
  const server = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${file("host")}`,
    `AuthorizedKeysFile ${file("authorized_keys")}`,
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    "PidFile none",
    `SetEnv XDG_RUNTIME_DIR=${file("run")}`,
  ];
  writeFileSync(file("sshd_config"), `${server.join("\n")}\n`);
  const client = [
    "Host bastion",
    "  HostName 127.0.0.1",
    `  Port ${port}`,
    `  User ${userInfo().username}`,
    `  IdentityFile ${file("id")}`,
    "  IdentitiesOnly yes",
    "  IdentityAgent none",
    `  UserKnownHostsFile ${file("known_hosts")}`,
    "  GlobalKnownHostsFile /dev/null",
    "  StrictHostKeyChecking yes",
  ];
  writeFileSync(file("ssh_config"), `${client.join("\n")}\n`);
  const hostKey = readFileSync(file("host.pub"), "utf8").split(" ").slice(0, 2).join(" ");
  writeFileSync(file("known_hosts"), `[127.0.0.1]:${port} ${hostKey}\n`);
  const child = start(SSHD, ["-D", "-e", "-f", file("sshd_config")], { stdio: ["ignore", "ignore", "pipe"] });
  await new Promise((resolve, reject) => {
    let text = "";
    child.stderr.on("data", (chunk) => {
      text += chunk;
      if (text.includes("Server listening on")) resolve();
    });
    child.exited.then(() => reject(new Error(`sshd did not start: ${text}`)));
  });
  return `127.0.0.1:${port}, with nothing of ours installed`;
}

const connectArgs = () => [
  "connect",
  "bastion",
  "-F",
  file("ssh_config"),
  "--module",
  SOFTHSM,
  "--token",
  "demo",
  "--key",
  "all",
  "--pin-source",
  `file:${file("pin")}`,
];

/** Starts `connect` and answers when it says ready. `uses(n)` resolves with the first n uses of a private key. */
async function connect() {
  const child = start(process.execPath, [TOKENFWD, ...connectArgs(), "--json"], { stdio: ["ignore", "pipe", "pipe"] });
  const used = [];
  let wake = () => {};
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const ready = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const event = JSON.parse(line);
      if (event.event === "use") used.push(event);
      wake();
      if (event.event === "ready") resolve(event);
      if (event.event === "error") reject(new Error(`${event.code}: ${event.message}\nhint: ${event.hint ?? "none"}`));
    });
    child.exited.then(({ code }) => reject(new Error(`connect ended with ${code}\n${stderr}`)));
  });
  const uses = async (count) => {
    while (used.length < count)
      await new Promise((resolve) => {
        wake = resolve;
      });
    return used;
  };
  return { child, uses, ready };
}

// ---- what a person on the bastion does

const quoted = (words) => words.map((word) => (/^[\w./=:+-]+$/.test(word) ? word : `'${word}'`)).join(" ");
const signWords = (id, mechanism, more = []) => ["pkcs11-tool", "--module", CLIENT, "--sign", "--id", id, "-m", mechanism, ...more];

/** Signs `data` in an ordinary ssh session on the bastion. */
const signOverSsh = (words, data) => run("ssh", ["-F", file("ssh_config"), "bastion", quoted(words)], { input: data }).stdout;

function verify(name, signature, document) {
  writeFileSync(file("signature"), signature);
  writeFileSync(file("document"), document);
  const words = ["dgst", "-sha256", "-verify", file(`${name}.pub`), "-signature", file("signature"), file("document")];
  const said = run("openssl", words).stdout.toString().trim();
  if (said !== "Verified OK") throw new Error(`openssl says: ${said}`);
  return said;
}

async function demo() {
  const document = Buffer.from(`signed on the bastion, ${randomBytes(8).toString("hex")}\n`);
  const digest = createHash("sha256").update(document).digest();

  say(bold("tokenfwd demo: a token here, a bastion there, and stock programs that sign on the bastion"));

  chapter("The stage");
  await step("a SoftHSM token", makeToken);
  await step("a real sshd as the bastion", startBastion);

  chapter("One command on the workstation");
  command("workstation", `tokenfwd ${quoted(connectArgs().map((word) => word.replace(`${dir}/`, "")))}`);
  let session;
  await step("connected, forwarded and verified from the bastion's side", async () => {
    session = await connect();
    const { verified, transport, rttMs } = session.ready;
    return `${transport}, verified: ${verified}, a call takes ${Number(rttMs).toFixed(1)} ms`;
  });
  note(`the well-known path there is ${session.ready.wellKnown}, so programs need no configuration`);

  chapter("On the bastion, in a plain ssh session, through p11-kit-client.so");
  const list = ["pkcs11-tool", "--module", CLIENT, "-O", "--type", "cert"];
  command("bastion", "pkcs11-tool --module p11-kit-client.so -O --type cert");
  await step("the token's certificates", () => {
    const seen =
      signOverSsh(list)
        .toString()
        .match(/label: +(.*)/g) ?? [];
    if (seen.length !== 2) throw new Error(`two certificates were expected: ${seen}`);
    return seen.map((line) => line.replace(/label: +/, "")).join(", ");
  });
  const rsa = signWords("01", "SHA256-RSA-PKCS", ["--pin", "0000"]);
  command("bastion", "pkcs11-tool --module p11-kit-client.so --sign --id 01 -m SHA256-RSA-PKCS --pin 0000 < document > signature");
  let signature;
  await step("an RSA signature, with a PIN that is wrong on purpose", () => {
    signature = signOverSsh(rsa, document);
    return `${signature.length} bytes; the right PIN was given on the workstation`;
  });
  await step("openssl verifies it", () => verify("rsa", signature, document));
  const ec = signWords("02", "ECDSA", ["--signature-format", "openssl"]);
  command("bastion", "pkcs11-tool --module p11-kit-client.so --sign --id 02 -m ECDSA --signature-format openssl < digest > signature");
  await step("an EC signature, with no PIN at all", () => {
    signature = signOverSsh([...ec, "--login"], digest);
    return `${signature.length} bytes`;
  });
  await step("openssl verifies it", () => verify("ec", signature, document));

  chapter("Meanwhile the workstation saw");
  for (const { client, key, mechanism, call, ok } of await session.uses(2)) {
    note(`${ok ? "used" : "failed"}: ${key}, ${mechanism}, ${call}, for client ${client} on the bastion`);
  }

  chapter("The end");
  await step("Ctrl-C on the workstation", async () => {
    session.child.kill("SIGINT");
    const { code, signal } = await session.child.exited;
    if (code !== 0) throw new Error(`connect ended with ${code ?? signal}`);
    const left = readdirSync(file("run"), { recursive: true });
    if (left.length > 0) throw new Error(`left on the bastion: ${left.join(" ")}`);
    return "exit 0, and nothing is left on the bastion";
  });

  chapter("The same for one command, with its input, output and exit status");
  command("workstation", "tokenfwd connect bastion ... -- pkcs11-tool --sign --id 01 -m SHA256-RSA-PKCS < document > signature");
  await step("connected, signed and gone again", async () => {
    const words = [TOKENFWD, ...connectArgs(), "-T", "--", ...signWords("01", "SHA256-RSA-PKCS", ["--login"])];
    const child = start(process.execPath, words, { stdio: ["pipe", "pipe", "pipe"] });
    const out = [];
    let err = "";
    child.stdout.on("data", (chunk) => out.push(chunk));
    child.stderr.on("data", (chunk) => {
      err += chunk;
    });
    child.stdin.end(document);
    const { code, signal } = await child.exited;
    if (code !== 0) throw new Error(`connect ended with ${code ?? signal}\n${err}`);
    signature = Buffer.concat(out);
    return `${signature.length} bytes on stdout, exit 0`;
  });
  await step("openssl verifies it", () => verify("rsa", signature, document));

  const total = steps.reduce((sum, { ms }) => sum + ms, 0);
  say(`\n${steps.length} steps in ${(total / 1000).toFixed(1)} s.`);
}

// ---- leaving nothing

async function cleanUp() {
  for (const child of children) child.kill("SIGTERM");
  await Promise.all([...children].map((child) => child.exited));
  rmSync(dir, { recursive: true, force: true });
}
let interrupted = false;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    interrupted = true;
    void cleanUp().finally(() => process.exit(130));
  });
}

try {
  await demo();
  await cleanUp();
  say("Everything is cleaned up.");
} catch (error) {
  // Whatever fails after an interruption fails because of it; its own end is under way.
  if (interrupted) await new Promise(() => {});
  process.stderr.write(`\ndemo failed: ${error.message}\n`);
  await cleanUp();
  process.exitCode = 1;
}
