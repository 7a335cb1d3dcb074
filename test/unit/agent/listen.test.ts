/* The listening socket on real sockets: live, stale, foreign, not a socket, and what is left behind. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Listening, listenOn } from "../../../src/agent/listen.js";
import { answerPing, pingSocket } from "../../../src/agent/ping.js";
import { createEmitter } from "../../../src/base/events.js";
import type { CallResult, Cryptoki } from "../../../src/cryptoki/types.js";
import { createP11KitServer } from "../../../src/wire/p11kit/server.js";

let dir: string;
let path: string;
const open: (() => unknown)[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-listen-"));
  path = join(dir, "agent.sock");
});
afterEach(async () => {
  for (let close = open.pop(); close !== undefined; close = open.pop()) await close();
  rmSync(dir, { recursive: true, force: true });
});

const origin = { kind: "local", destination: null, user: null, host: null, port: null, hostKeySha256: null, connectId: "t" } as const;

/** What an agent does with a stream, without a token behind it. */
function serve(stream: Socket): void {
  const call = async () => ({ rv: 0 }) as CallResult<never>;
  const cryptoki: Cryptoki = { call, events: createEmitter(), close: async () => {} };
  const server = createP11KitServer({
    cryptoki,
    client: "t",
    origin,
    write: (bytes) => void stream.write(bytes),
    onFirstFrameOptions: answerPing,
  });
  stream.on("data", (chunk) => server.push(chunk));
  stream.on("close", () => server.end());
}

async function listen(options: { onStream?: (stream: Socket) => void; path?: string; maxClients?: number } = {}): Promise<Listening> {
  const listening = await listenOn({ path, onStream: serve, ...options });
  open.push(() => listening.close());
  return listening;
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

/** A socket file that nobody listens on. */
function makeStale(at: string): void {
  execFileSync("python3", ["-c", "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])", at]);
}

test("the socket is 0600 in a directory made 0700, and nothing else lies there", async () => {
  path = join(dir, "new", "agent.sock");
  await listen();
  expect(lstatSync(path).mode & 0o777).toBe(0o600);
  expect(lstatSync(join(dir, "new")).mode & 0o777).toBe(0o700);
  expect(readdirSync(join(dir, "new"))).toEqual(["agent.sock"]);
});

test("after close neither the socket nor the directory it made is left, and its connections are ended", async () => {
  path = join(dir, "new", "agent.sock");
  const listening = await listen({ onStream: () => {} });
  const socket = connect(path);
  await new Promise((resolve) => socket.once("connect", resolve));
  const ended = closed(socket);
  await listening.close();
  await ended;
  expect(existsSync(join(dir, "new"))).toBe(false);
});

test("a second agent on a live path refuses and names the first one's pid", async () => {
  await listen();
  await expect(listenOn({ path, onStream: serve })).rejects.toMatchObject({
    code: "E_AGENT_LIVE",
    message: expect.stringContaining(`another agent (pid ${process.pid})`),
  });
  expect(await pingSocket(path)).toEqual({ kind: "tokenfwd", pid: process.pid });
  expect(readdirSync(dir)).toEqual(["agent.sock"]);
});

test("a stale socket is replaced", async () => {
  makeStale(path);
  const before = lstatSync(path).ino;
  await listen();
  expect(lstatSync(path).ino).not.toBe(before);
  expect((await pingSocket(path)).kind).toBe("tokenfwd");
  expect(readdirSync(dir)).toEqual(["agent.sock"]);
});

test("a live p11-kit server is named as such and left alone", async () => {
  const server = spawn("p11-kit", ["server", "-f", "-n", path, "--provider", "/usr/lib/softhsm/libsofthsm2.so", "pkcs11:"], {
    stdio: "ignore",
  });
  open.push(() => endChild(server));
  // Bound is not yet listening: until then it looks like a socket that was left behind.
  while ((await pingSocket(path)).kind === "stale") await new Promise((resolve) => setImmediate(resolve));
  const inode = lstatSync(path).ino;
  await expect(listenOn({ path, onStream: serve })).rejects.toMatchObject({
    code: "E_AGENT_LIVE",
    message: expect.stringContaining("a p11-kit server that is not ours"),
  });
  expect(lstatSync(path).ino).toBe(inode);
});

function endChild(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}

test.each([
  ["says nothing", () => {}, "does not answer"],
  ["hangs up", (socket: Socket) => void socket.end(), "closes the connection"],
])("a program that accepts and %s is live and left alone", async (_, behave, text) => {
  const accepted: Socket[] = [];
  const foreign: Server = createServer((socket) => {
    accepted.push(socket);
    behave(socket);
  });
  await new Promise<void>((resolve) => foreign.listen(path, resolve));
  open.push(() => {
    for (const socket of accepted) socket.destroy();
    return new Promise((resolve) => foreign.close(resolve));
  });
  const ping = (at: string) => pingSocket(at, 200);
  await expect(listenOn({ path, onStream: serve, ping })).rejects.toMatchObject({
    code: "E_AGENT_LIVE",
    message: expect.stringContaining(text),
  });
  expect(existsSync(path)).toBe(true);
});

test("a regular file is refused and kept", async () => {
  writeFileSync(path, "precious");
  await expect(listenOn({ path, onStream: serve })).rejects.toMatchObject({
    code: "E_SOCKET_PATH",
    message: expect.stringContaining("not a socket"),
  });
  expect(readFileSync(path, "utf8")).toBe("precious");
});

test("a symbolic link to a stale socket is refused, and both are kept", async () => {
  makeStale(join(dir, "elsewhere"));
  symlinkSync(join(dir, "elsewhere"), path);
  await expect(listenOn({ path, onStream: serve })).rejects.toMatchObject({ code: "E_SOCKET_PATH" });
  expect(readdirSync(dir).sort()).toEqual(["agent.sock", "elsewhere"]);
});

test("a directory that others can write to is refused", async () => {
  chmodSync(dir, 0o777);
  await expect(listenOn({ path, onStream: serve })).rejects.toMatchObject({
    code: "E_SOCKET_PATH",
    message: expect.stringContaining("can be written by others"),
  });
});

test("a directory behind a link is refused", async () => {
  mkdirSync(join(dir, "real"), { mode: 0o700 });
  symlinkSync(join(dir, "real"), join(dir, "link"));
  await expect(listenOn({ path: join(dir, "link", "s"), onStream: serve })).rejects.toMatchObject({ code: "E_SOCKET_PATH" });
});

test("a path that no socket address can hold is refused before anything is made", async () => {
  path = join(dir, "d", "x".repeat(100));
  await expect(listenOn({ path, onStream: serve })).rejects.toMatchObject({ code: "E_SOCKET_PATH" });
  expect(existsSync(join(dir, "d"))).toBe(false);
});

test("close leaves alone what took the path's place meanwhile", async () => {
  const listening = await listen();
  rmSync(path);
  writeFileSync(path, "another's");
  await listening.close();
  expect(readFileSync(path, "utf8")).toBe("another's");
});

test("eight agents that start at once on a stale path: one lives, seven refuse", async () => {
  makeStale(path);
  const all = await Promise.allSettled(Array.from({ length: 8 }, () => listen()));
  expect(all.filter((one) => one.status === "fulfilled")).toHaveLength(1);
  for (const one of all) if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "E_AGENT_LIVE" });
  expect((await pingSocket(path)).kind).toBe("tokenfwd");
  expect(readdirSync(dir)).toEqual(["agent.sock"]);
});

test("a connection above the limit is closed at once", async () => {
  await listen({ maxClients: 1, onStream: () => {} });
  const first = connect(path);
  await new Promise((resolve) => first.once("connect", resolve));
  const second = connect(path);
  await closed(second);
  expect(first.destroyed).toBe(false);
  first.destroy();
});
