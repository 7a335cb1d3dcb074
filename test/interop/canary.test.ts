/*
 * The PIN is where it belongs and nowhere else: typed on a real terminal, used, and then looked for in everything that a
 * connect writes, sends, shows to the system, and keeps in memory.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import { createReadStream, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { spawnUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { TOKENFWD } from "./cli-process.js";

const execute = promisify(execFile);
/** The token's. Long enough that neither turns up by chance, and no part of one is in the other. */
const TOKEN_PIN = "Kq7vTz3mWx9bRd5nHc2sLf8j";
/** What the program on the bastion sends, and what must be thrown away. */
const CLIENT_PIN = "Yp4gUe6aBn1xQi0oZw3kMt7h";

let token: SoftHsm;
let bastion: Sshd;
let dir: string;

beforeAll(async () => {
  token = await createSoftHsm({ pin: TOKEN_PIN, label: "canary token", objects: "rsa", certificates: false });
  bastion = await startSshd();
  dir = mkdtempSync(join(tmpdir(), "tfwd-canary-"));
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
  if (dir) rmSync(dir, { recursive: true, force: true });
});

const childrenOf = (pid: number): number[] =>
  readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number),
  );

// With this WebAssembly's memory (Node's own scanner of CommonJS has one) reserves no 8 GiB, which gdb would write down as zeros.
const SMALL_CORE = "--disable-wasm-trap-handler";
const nodeOptions = process.allowedNodeEnvironmentFlags.has(SMALL_CORE) ? { NODE_OPTIONS: SMALL_CORE } : {};

const SHAPES = {
  utf8: (text: string) => Buffer.from(text, "utf8"),
  utf16le: (text: string) => Buffer.from(text, "utf16le"),
  hex: (text: string) => Buffer.from(Buffer.from(text).toString("hex")),
  base64: (text: string) => Buffer.from(Buffer.from(text).toString("base64").replace(/=*$/, "")),
} as const;

/** In which encodings the bytes hold the text. */
function held(bytes: Buffer, text: string): string[] {
  return Object.entries(SHAPES)
    .filter(([, shape]) => bytes.includes(shape(text)))
    .map(([name]) => name);
}

/** In which encodings the memory of a process holds each text. gdb writes it down as a core; the process goes on. */
async function heldInCore(pid: number, texts: readonly string[]): Promise<string[][]> {
  const prefix = join(dir, "core");
  const file = `${prefix}.${pid}`;
  const found = texts.map(() => new Set<string>());
  try {
    await execute("gcore", ["-o", prefix, String(pid)], { env: { ...process.env, DEBUGINFOD_URLS: "" }, maxBuffer: 1 << 26 });
    // A core is several hundred megabytes: it is read in pieces that overlap by more than the longest shape.
    let before = Buffer.alloc(0);
    for await (const chunk of createReadStream(file, { highWaterMark: 16 << 20 })) {
      const piece = Buffer.concat([before, chunk as Buffer]);
      for (const [index, text] of texts.entries()) for (const name of held(piece, text)) found[index]?.add(name);
      before = Buffer.from(piece.subarray(-1024));
    }
    return found.map((names) => [...names]);
  } finally {
    rmSync(file, { force: true });
  }
}

/** A listener on the bastion that passes everything on to the socket and writes down both directions. */
async function tap(socket: string): Promise<{ path: string; toAgent(): Buffer; toClient(): Buffer; end(): Promise<void> }> {
  const path = join(dir, "tap.sock");
  const files = { toAgent: join(dir, "to-agent"), toClient: join(dir, "to-client") };
  const words = ["-d", "-d", "-r", files.toAgent, "-R", files.toClient, `UNIX-LISTEN:${path},fork`, `UNIX-CONNECT:${socket}`];
  const child = spawn("socat", words, { stdio: ["ignore", "ignore", "pipe"] });
  const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    let said = "";
    child.once("error", reject);
    child.once("close", () => reject(new Error(`socat ended: ${said}`)));
    child.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes("listening on")) resolve();
    });
  });
  return {
    path,
    toAgent: () => readFileSync(files.toAgent),
    toClient: () => readFileSync(files.toClient),
    async end() {
      child.kill("SIGTERM");
      await gone;
    },
  };
}

test("a PIN typed at the workstation is in the token host's memory and nowhere else: not on the wire, not in the agent, not in what either writes", async () => {
  const logFile = join(dir, "log");
  const statePath = join(dir, "state");
  const env = { ...token.env, XDG_STATE_HOME: statePath, TOKENFWD_LOG: logFile, TERM: "xterm", ...nodeOptions };
  const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--json"];
  await using terminal = spawnUnderPty({ argv: [process.execPath, TOKENFWD, ...words], env, columns: 4000 });
  await terminal.expect(/"event":"ready"/, 20_000);
  const address = /"remoteSocket":"([^"]+)"/.exec(terminal.output.slice(terminal.output.indexOf('"event":"ready"')))?.[1] ?? "";
  const wire = await tap(address);
  try {
    const data = join(dir, "data");
    const signature = join(dir, "signature");
    writeFileSync(data, "what is signed");
    const sign = `--login --pin ${CLIENT_PIN} --sign -m SHA256-RSA-PKCS --id 01 -i ${data} -o ${signature}`;
    const remote = `P11_KIT_SERVER_ADDRESS=unix:path=${wire.path} pkcs11-tool --module ${P11KIT_CLIENT} ${sign}`;
    const signed = execute("ssh", ["-F", bastion.sshConfig, "bastion", remote]);
    await terminal.expect(/PIN of the token "canary token": /, 20_000);
    terminal.send(`${TOKEN_PIN}\r`);
    await signed;
    await terminal.expect(/"event":"use"/);
    const publicKey = token.keys.rsa?.publicKeyFile ?? "";
    const verified = execFileSync("openssl", ["dgst", "-sha256", "-verify", publicKey, "-signature", signature, data], {
      encoding: "utf8",
    });
    expect(verified).toContain("Verified OK");

    // The tap saw the conversation: what the client sent as a PIN went by, and the signature came back.
    expect(held(wire.toAgent(), CLIENT_PIN)).toEqual(["utf8"]);
    expect(wire.toClient().includes(readFileSync(signature))).toBe(true);
    for (const bytes of [wire.toAgent(), wire.toClient()]) expect(held(bytes, TOKEN_PIN)).toEqual([]);

    const agent = childrenOf(terminal.pid ?? 0)[0] ?? 0;
    const host = childrenOf(agent)[0] ?? 0;
    expect(readFileSync(`/proc/${agent}/cmdline`, "utf8")).toContain("connect");
    expect(host).not.toBe(agent);
    // The module is mapped by the host alone.
    const maps = (pid: number) => readFileSync(`/proc/${pid}/maps`, "utf8").includes("libsofthsm2");
    expect([maps(agent), maps(host)]).toEqual([false, true]);

    const seen: string[] = [];
    let looked = 0;
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      for (const file of ["cmdline", "environ"]) {
        try {
          const bytes = readFileSync(`/proc/${pid}/${file}`);
          if (Number(pid) === agent || Number(pid) === host) looked += bytes.length > 0 ? 1 : 0;
          if (held(bytes, TOKEN_PIN).length > 0) seen.push(`${pid} ${file}`);
        } catch {
          // It ended meanwhile.
        }
      }
    }
    expect(seen).toEqual([]);
    expect(looked).toBe(4);

    const [pinInHost, knownInHost, clientPinInHost] = await heldInCore(host, [TOKEN_PIN, statePath, CLIENT_PIN]);
    // The search finds what is there: the PIN in the process that keeps it, and in both a text that each was given.
    expect(pinInHost).toContain("utf8");
    expect(knownInHost).toContain("utf8");
    // What the client sent goes no further than the parser.
    expect(clientPinInHost).toEqual([]);
    const [pinInAgent, knownInAgent] = await heldInCore(agent, [TOKEN_PIN, statePath]);
    expect(knownInAgent).toContain("utf8");
    expect(pinInAgent).toEqual([]);

    terminal.send("\x03");
    const { exitCode, output, echo } = await terminal.exited;
    expect(exitCode).toBe(0);
    expect(echo).toBe(true);
    const log = readFileSync(logFile);
    expect(log.toString()).toContain('"use"');
    for (const pin of [TOKEN_PIN, CLIENT_PIN]) {
      expect(held(Buffer.from(output), pin)).toEqual([]);
      expect(held(log, pin)).toEqual([]);
    }
    expect(held(readFileSync(join(statePath, "tokenfwd", "workstation-id")), TOKEN_PIN)).toEqual([]);
    expect(readdirSync(bastion.runtimeDir, { recursive: true })).toEqual([]);
    expect(held(Buffer.from(bastion.log()), TOKEN_PIN)).toEqual([]);
  } finally {
    await wire.end();
  }
}, 120_000);
