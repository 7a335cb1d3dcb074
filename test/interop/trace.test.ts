/*
 * `tokenfwd trace` between real peers: a stock client and a stock server, our client and our agent, and a connect over a real sshd.
 * What is typed or given as a PIN is looked for in everything that a trace leaves behind.
 */
import { execFile, execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { connectClient } from "../../src/bastion/client/index.js";
import type { CallRecord, TraceRecord } from "../../src/wire/trace/records.js";
import { signRequest } from "../support/rpc-peers.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT, startAgent, startStockServer } from "./agent-process.js";
import { type CliProcess, runCli, startCli } from "./cli-process.js";

const execute = promisify(execFile);
/** The token's, and what a client sends instead. */
const PIN = "Kq7vTz3mWx9bRd5nHc2sLf8j";
const OTHER_PIN = "Yp4gUe6aBn1xQi0oZw3kMt7h";

let token: SoftHsm;
let dir: string;
let document: string;
const cleanUps: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, label: "traced", objects: "rsa+ec" });
}, 60_000);
afterAll(() => token?.dispose());
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-trace-"));
  document = join(dir, "document");
  writeFileSync(document, "a document that is to be signed and shown to nobody");
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
  rmSync(dir, { recursive: true, force: true });
});

/** Starts the tap and waits until it listens. */
async function tap(socket: string, ...more: string[]): Promise<CliProcess & { readonly socket: string }> {
  const listen = join(dir, "t");
  const cli = startCli(["trace", "--socket", socket, "--listen", listen, ...more]);
  cleanUps.push(() => cli.end());
  await cli.untilStderr(/until Ctrl-C/);
  return Object.assign(cli, { socket: listen });
}

async function stop(cli: CliProcess): Promise<string> {
  cli.child.kill("SIGINT");
  const { code, stderr } = await cli.exited;
  expect(code).toBe(0);
  return stderr;
}

const stockClient = (socket: string, ...words: string[]) =>
  execute("pkcs11-tool", ["--module", P11KIT_CLIENT, "--token-label", "traced", ...words], {
    env: { ...token.env, P11_KIT_SERVER_ADDRESS: `unix:path=${socket}` },
  });

const sign = (socket: string, pin: string) =>
  stockClient(
    socket,
    "--login",
    "--pin",
    pin,
    "--sign",
    "-m",
    "SHA256-RSA-PKCS",
    "--id",
    "01",
    "-i",
    document,
    "-o",
    join(dir, "signature"),
  );

function recordsIn(path: string): TraceRecord[] {
  const [header, ...lines] = readFileSync(path, "utf8").trimEnd().split("\n");
  expect(JSON.parse(header ?? "")).toMatchObject({ tokenfwdTrace: 1 });
  expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({ kind: "end", records: lines.length - 1 });
  return lines.slice(0, -1).map((line) => JSON.parse(line) as TraceRecord);
}

const callsIn = (path: string) => recordsIn(path).filter((record): record is CallRecord => record.kind === "call");

/** Everything that is made of a trace. */
async function everythingOf(path: string): Promise<Readonly<Record<string, string>>> {
  const page = `${path}.${randomBytes(2).toString("hex")}.html`;
  const text = await runCli(["trace", "show", path]);
  const lines = await runCli(["trace", "show", path, "--format", "jsonl"]);
  const html = await runCli(["trace", "show", path, "--html", page]);
  expect([text.code, lines.code, html.code]).toEqual([0, 0, 0]);
  return {
    file: readFileSync(path, "utf8"),
    text: text.stdout.toString("utf8"),
    jsonl: lines.stdout.toString("utf8"),
    html: readFileSync(page, "utf8"),
  };
}

/** Where any form of a secret stands. */
function found(everything: Readonly<Record<string, string>>, secret: string): string[] {
  const bytes = Buffer.from(secret);
  const shapes = [
    secret,
    bytes.toString("hex"),
    bytes.toString("base64").replace(/=*$/, ""),
    createHash("sha256").update(bytes).digest("hex"),
    [...bytes].join(","),
  ];
  return Object.entries(everything).flatMap(([name, text]) => (shapes.some((shape) => text.includes(shape)) ? [name] : []));
}

test("a stock client signs through the tap as without, and the trace tells how", async () => {
  const server = await startStockServer(token);
  cleanUps.push(() => server.dispose());
  const path = join(dir, "trace");
  const cli = await tap(server.socket, "-o", path);
  await sign(cli.socket, PIN);
  execFileSync("openssl", [
    "dgst",
    "-sha256",
    "-verify",
    token.keys.rsa?.publicKeyFile ?? "",
    "-signature",
    join(dir, "signature"),
    document,
  ]);
  expect(await stop(cli)).toMatch(/traced \d+ calls on 1 connection: tokenfwd trace show/);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(existsSync(cli.socket)).toBe(false);
  const records = recordsIn(path);
  expect(records.filter(({ kind }) => kind === "note")).toEqual([]);
  expect(records.find(({ kind }) => kind === "protocol")).toMatchObject({ protocol: "p11-kit", dialect: expect.any(String) });
  const calls = callsIn(path);
  expect(calls.map(({ call }) => call)).toEqual(
    expect.arrayContaining(["C_Initialize", "C_Login", "C_FindObjects", "C_SignInit", "C_Sign"]),
  );
  expect(calls.find(({ call }) => call === "C_SignInit")?.args).toMatchObject({ mechanism: { type: "CKM_SHA256_RSA_PKCS" } });
  expect(calls.find(({ call }) => call === "C_Login")).toMatchObject({ args: { pin: { pin: true } }, rv: "CKR_OK" });
  for (const { ms } of calls) expect(ms).toBeGreaterThan(0);
  const everything = await everythingOf(path);
  expect(found(everything, PIN)).toEqual([]);
  expect(found(everything, readFileSync(document, "utf8"))).toEqual([]);
  const [, summary = ""] = (everything["text"] ?? "").split("\n\n");
  expect(summary).toMatch(/1 connection, \d+ calls \(0 failed, 0 without an answer\), \d+ round trips/);
});

test("with --data what is signed is in the trace, and the PIN is not; and without -o it comes as text", async () => {
  const server = await startStockServer(token);
  cleanUps.push(() => server.dispose());
  const path = join(dir, "trace");
  const cli = await tap(server.socket, "-o", path, "--data");
  await sign(cli.socket, PIN);
  await expect(sign(cli.socket, OTHER_PIN)).rejects.toThrow();
  await stop(cli);
  const everything = await everythingOf(path);
  expect(everything["file"]).toContain(readFileSync(document).toString("hex"));
  expect(found(everything, PIN)).toEqual([]);
  expect(found(everything, OTHER_PIN)).toEqual([]);
  const failed = await runCli(["trace", "show", path, "--failed"]);
  expect(failed.stdout.toString("utf8")).toMatch(/C_Login.*CKR_PIN_INCORRECT/);

  const live = await tap(server.socket);
  await stockClient(live.socket, "-L");
  await live.until(() => (/C_GetTokenInfo\(slot=\d+\) CKR_OK -> label=traced/.test(live.stdout().toString("utf8")) ? true : undefined));
  expect(await stop(live)).toMatch(/round trips\n[\s\S]*C_GetTokenInfo +\d/);
});

test("our client and our agent are read as well, on the same tap", async () => {
  const agent = await startAgent({ token, pin: "file" });
  cleanUps.push(() => agent.dispose());
  const path = join(dir, "trace");
  const cli = await tap(agent.socket, "-o", path);
  const client = await connectClient({ socket: cli.socket, client: "a program of ours" });
  const key = (await client.keys()).find(({ type }) => type === "EC");
  const { signature } = await client.signer.sign(signRequest({ key: { uri: key?.uri ?? "", spki: null } }));
  expect(signature).toHaveLength(64);
  await client.close();
  await sign(cli.socket, OTHER_PIN);
  await stop(cli);
  const records = recordsIn(path);
  expect(records.filter(({ kind }) => kind === "protocol").map((record) => "protocol" in record && record.protocol)).toEqual([
    "tokenfwd",
    "p11-kit",
  ]);
  expect(records).toContainEqual(expect.objectContaining({ kind: "client", c: 1, name: "a program of ours" }));
  expect(callsIn(path)).toContainEqual(
    expect.objectContaining({ c: 1, call: "sign", args: expect.objectContaining({ data: { bytes: 8 } }), ok: true }),
  );
  expect(found(await everythingOf(path), OTHER_PIN)).toEqual([]);
});

test("an agent with --trace writes down its clients by its own name for them", async () => {
  const path = join(dir, "trace");
  const agent = await startAgent({ token, pin: "client", args: ["--trace", path] });
  cleanUps.push(() => agent.dispose());
  await sign(agent.socket, PIN);
  await expect(sign(agent.socket, OTHER_PIN)).rejects.toThrow();
  await agent.stop();
  expect(recordsIn(path)).toContainEqual(expect.objectContaining({ kind: "open", origin: { client: "c1", kind: "local" } }));
  expect(
    callsIn(path)
      .filter(({ call }) => call === "C_Login")
      .map(({ rv }) => rv),
  ).toEqual(["CKR_OK", "CKR_PIN_INCORRECT"]);
  const everything = await everythingOf(path);
  expect(found(everything, PIN)).toEqual([]);
  expect(found(everything, OTHER_PIN)).toEqual([]);
});

test("a connect with --trace writes down what comes from the bastion", async () => {
  const bastion: Sshd = await startSshd();
  cleanUps.push(() => bastion.dispose());
  const path = join(dir, "trace");
  writeFileSync(join(dir, "pin"), `${PIN}\n`, { mode: 0o600 });
  const remote = `pkcs11-tool --module ${P11KIT_CLIENT} --token-label traced --login --pin ${OTHER_PIN} --sign -m SHA256-RSA-PKCS --id 01 -i ${document} -o ${join(dir, "s")}`;
  const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--pin-source", `file:${join(dir, "pin")}`];
  const env = { ...token.env, XDG_STATE_HOME: join(dir, "state") };
  const { code, stderr } = await runCli([...words, "--key", "pkcs11:id=%01;type=private", "--trace", path, "--", "sh", "-c", remote], {
    env,
  });
  expect(stderr).toContain("tokenfwd trace show");
  expect(code).toBe(0);
  const records = recordsIn(path);
  expect(records).toContainEqual(
    expect.objectContaining({ kind: "open", origin: expect.objectContaining({ kind: "forward", destination: "bastion" }) }),
  );
  expect(callsIn(path)).toContainEqual(expect.objectContaining({ call: "C_Sign", rv: "CKR_OK" }));
  const everything = await everythingOf(path);
  expect(found(everything, PIN)).toEqual([]);
  expect(found(everything, OTHER_PIN)).toEqual([]);
  // A second one would have to write over it.
  const again = await runCli([...words, "--trace", path], { env });
  expect([again.code, again.stderr]).toEqual([2, expect.stringContaining("exists already")]);
});

test("a connect with --stock and --trace writes down what no agent sees", async () => {
  const bastion: Sshd = await startSshd();
  cleanUps.push(() => bastion.dispose());
  const path = join(dir, "trace");
  const remote = `pkcs11-tool --module ${P11KIT_CLIENT} --token-label traced --login --pin ${PIN} -O`;
  const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--stock", "--trace", path, "--"];
  const env = { ...token.env, XDG_STATE_HOME: join(dir, "state") };
  const { code } = await runCli([...words, "sh", "-c", remote], { env });
  expect(code).toBe(0);
  expect(callsIn(path)).toContainEqual(expect.objectContaining({ call: "C_Login", args: expect.objectContaining({ pin: { pin: true } }) }));
  expect(found(await everythingOf(path), PIN)).toEqual([]);
});

test("what speaks neither protocol passes all the same, and a server that is gone ends its client", async () => {
  const echo = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket));
  const socket = join(dir, "echo");
  await new Promise<void>((resolve) => echo.listen(socket, resolve));
  const path = join(dir, "trace");
  const cli = await tap(socket, "-o", path);
  const bytes = randomBytes(300_000);
  bytes[0] = 0x47;
  writeFileSync(join(dir, "in"), bytes);
  const { stdout } = await execute("sh", ["-c", 'socat -t 5 - "UNIX-CONNECT:$0" < "$1" | sha256sum', cli.socket, join(dir, "in")]);
  expect(stdout).toContain(createHash("sha256").update(bytes).digest("hex"));
  await new Promise<void>((resolve) => echo.close(() => resolve()));
  await execute("sh", ["-c", 'socat - "UNIX-CONNECT:$0" < /dev/null', cli.socket]);
  await cli.untilStderr(/takes no connection: (ECONNREFUSED|ENOENT)/);
  await stop(cli);
  expect(recordsIn(path)).toContainEqual(expect.objectContaining({ kind: "protocol", protocol: "unknown" }));
  expect(recordsIn(path)).toContainEqual(expect.objectContaining({ kind: "close", sent: 300_000, received: 300_000 }));
});

test("a trace that cannot be written on is said to be that, and the client signs on", async () => {
  const server = await startStockServer(token);
  cleanUps.push(() => server.dispose());
  const path = join(dir, "trace");
  const listen = join(dir, "t");
  // The most that a file of this process may hold.
  const limited = ["prlimit", "--fsize=4096"];
  const cli = startCli(["trace", "--socket", server.socket, "--listen", listen, "-o", path], { within: limited });
  cleanUps.push(() => cli.end());
  await cli.untilStderr(/until Ctrl-C/);
  await sign(listen, PIN);
  await cli.untilStderr(/the trace is not whole: it cannot be written: EFBIG/);
  await sign(listen, PIN);
  await stop(cli);
  const shown = await runCli(["trace", "show", path]);
  expect([shown.code, shown.stderr]).toEqual([0, expect.stringContaining("has no end")]);
  expect(shown.stdout.toString("utf8")).toContain("C_Initialize");
});

test("JSON lines of a hostile file are ASCII, and say the same", async () => {
  const path = join(dir, "hostile");
  const name = "\u009b31m\u202e\u2028";
  const header = '{"tokenfwdTrace":1,"started":"","by":"","of":{},"data":false}';
  writeFileSync(path, `${header}\n${JSON.stringify({ kind: "client", t: 1, c: 1, name })}\n`);
  const { stdout } = await runCli(["trace", "show", path, "--format", "jsonl"]);
  const text = stdout.toString("latin1");
  expect(text).toMatch(/^[\n\x20-\x7e]*$/);
  expect(JSON.parse(text.split("\n")[1] ?? "")).toMatchObject({ name });
});

test("options that cannot be carried out are said before anything is made", async () => {
  const complaint = async (...words: string[]) => {
    const { code, stderr } = await runCli(["trace", ...words]);
    return `${code} ${stderr.split("\n")[0]}`;
  };
  const socket = join(dir, "nothing");
  const listen = join(dir, "listen");
  expect(await complaint()).toMatch(/^2 .*--socket is missing/);
  expect(await complaint("--socket", socket)).toMatch(/^2 .*--listen is missing/);
  expect(await complaint("--socket", socket, "--listen", socket)).toMatch(/^2 .*name one path/);
  expect(await complaint("--socket", socket, "--listen", listen)).toMatch(/^40 .*there is no socket at/);
  expect(await complaint("show", document)).toMatch(/^2 .*no trace that this version reads/);
  expect(await complaint("show", document, "--format", "xml")).toMatch(/^2 .*--format takes/);
  expect(await complaint("show", document, "--slower", "x")).toMatch(/^2 .*--slower takes/);
  expect(await complaint("show", document, "--call", "(")).toMatch(/^2 .*--call takes/);
  expect(existsSync(listen)).toBe(false);
  // Nor is a trace kept of nothing: whoever tries again gives the same name.
  const path = join(dir, "trace");
  const lonely = createServer();
  await new Promise<void>((resolve) => lonely.listen(socket, resolve));
  writeFileSync(listen, "");
  expect(await complaint("--socket", socket, "--listen", listen, "-o", path)).toMatch(/^40 .*nothing came to be traced/);
  expect(existsSync(path)).toBe(false);
  await new Promise<void>((resolve) => lonely.close(() => resolve()));
});
