/*
 * Where the client looks for a socket, and which it will not touch.
 */
import { chmodSync, chownSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findSockets, socketFault } from "../../../../src/bastion/client/find-socket.js";

const UID = process.geteuid?.() ?? 0;
let dir: string;
const servers: Server[] = [];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-find-"));
});
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
  rmSync(dir, { recursive: true, force: true });
});

async function listen(path: string): Promise<string> {
  const server = createServer();
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return path;
}

function runtimeDir(): string {
  const rt = join(dir, "rt");
  mkdirSync(rt, { mode: 0o700 });
  return rt;
}

describe("the places that are looked at", () => {
  const named = (env: NodeJS.ProcessEnv, socket?: string) => findSockets({ ...(socket === undefined ? {} : { socket }), env, uid: UID });
  const all = { TOKENFWD_SOCKET: "/a", P11_KIT_SERVER_ADDRESS: "unix:path=/b", TOKENFWD_AGENT: "/c" };

  it("are what is named first, and nothing else then", () => {
    expect(named(all, "/o")).toEqual([{ path: "/o", from: "--socket", known: false }]);
    expect(named(all)).toEqual([{ path: "/a", from: "TOKENFWD_SOCKET", known: true }]);
    expect(named({ ...all, TOKENFWD_SOCKET: "" })).toEqual([{ path: "/b", from: "P11_KIT_SERVER_ADDRESS", known: false }]);
    expect(named({ TOKENFWD_AGENT: "/c" })).toEqual([{ path: "/c", from: "TOKENFWD_AGENT", known: true }]);
  });

  it("are all the Unix sockets of an address, decoded, and ours are known by their path", () => {
    const address = "vsock:cid=2;port=9;unix:path=/x%20y%C3%A9;unix:path=/run/user/5/tokenfwd/0a1b2c3d-2/p11.sock;unix:path=%zz";
    expect(named({ P11_KIT_SERVER_ADDRESS: address })).toEqual([
      { path: "/x yé", from: "P11_KIT_SERVER_ADDRESS", known: false },
      { path: "/run/user/5/tokenfwd/0a1b2c3d-2/p11.sock", from: "P11_KIT_SERVER_ADDRESS", known: true },
    ]);
    expect(() => named({ P11_KIT_SERVER_ADDRESS: "vsock:cid=2" })).toThrow(/names no Unix socket/);
  });

  it("are the youngest connection's socket, the older ones, the agent's and the stock one", async () => {
    const rt = runtimeDir();
    for (const [name, age] of [["00000001", 50] as const, ["00000002", 5] as const]) {
      mkdirSync(join(rt, "tokenfwd", name), { recursive: true });
      const path = await listen(join(rt, "tokenfwd", name, "p11.sock"));
      utimesSync(path, Date.now() / 1000 - age, Date.now() / 1000 - age);
    }
    mkdirSync(join(rt, "tokenfwd", "notes"));
    await listen(join(rt, "tokenfwd", "notes", "p11.sock"));
    const places = findSockets({ env: { XDG_RUNTIME_DIR: rt }, uid: UID });
    const tails = places.map(({ path, from, known }) => `${path.slice(rt.length + 1)} ${from} ${known}`);
    expect(tails).toEqual([
      "tokenfwd/00000002/p11.sock well-known true",
      "tokenfwd/00000001/p11.sock well-known true",
      "tokenfwd/agent.sock well-known true",
      "p11-kit/pkcs11 well-known false",
    ]);
  });

  it("are not in a runtime directory that others could have made", () => {
    const rt = runtimeDir();
    chmodSync(rt, 0o755);
    expect(findSockets({ env: { XDG_RUNTIME_DIR: rt }, uid: UID }).every(({ path }) => !path.startsWith(rt))).toBe(true);
  });
});

describe("a socket that is spoken to", () => {
  it("is ours, in directories of ours, also by way of a link", async () => {
    const path = await listen(join(dir, "s"));
    expect(socketFault(path, UID)).toBeNull();
    symlinkSync(path, join(dir, "link"));
    expect(socketFault(join(dir, "link"), UID)).toBeNull();
  });

  it("is there, and is a socket", () => {
    expect(socketFault(join(dir, "none"), UID)).toBe("does not exist");
    writeFileSync(join(dir, "file"), "");
    expect(socketFault(join(dir, "file"), UID)).toBe("is not a socket");
    symlinkSync(join(dir, "none"), join(dir, "dangling"));
    expect(socketFault(join(dir, "dangling"), UID)).toBe("is a link to nothing");
  });

  it("does not lie where others can write, nor behind a link that lies there", async () => {
    const open = join(dir, "open");
    mkdirSync(open);
    chmodSync(open, 0o777);
    const path = await listen(join(open, "s"));
    expect(socketFault(path, UID)).toMatch(/open can be written by others/);
    const safe = await listen(join(dir, "safe"));
    symlinkSync(safe, join(open, "link"));
    expect(socketFault(join(open, "link"), UID)).toMatch(/open can be written by others/);
  });

  it.runIf(UID === 0)("is not reached by way of anybody else's link, wherever that leads", async () => {
    mkdirSync(join(dir, "rt"));
    await listen(join(dir, "rt", "s"));
    symlinkSync(join(dir, "rt"), join(dir, "theirs"));
    lchownSync(join(dir, "theirs"), 12_345, 12_345);
    symlinkSync(join(dir, "theirs", "s"), join(dir, "link"));
    for (const path of [join(dir, "theirs", "s"), join(dir, "link")])
      expect(socketFault(path, UID)).toMatch(/theirs belongs to another user \(uid 12345\)/);
  });

  it.runIf(UID === 0)("belongs to us or to root", async () => {
    const path = await listen(join(dir, "s"));
    chownSync(path, 12_345, 12_345);
    expect(socketFault(path, UID)).toBe("belongs to another user (uid 12345)");
    expect(socketFault(path, 12_345)).toBeNull();
  });
});
