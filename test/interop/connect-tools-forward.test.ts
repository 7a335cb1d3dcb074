/* Our own program on a real bastion, whatever its sshd and its disk allow: it runs before CMD does, and goes with the connection. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ForwardOptions } from "../../src/forward/forward.js";
import {
  collectedIo,
  contents,
  openTestForward,
  recordingUi,
  rejection,
  settingsOf,
  startProxy,
  through,
  untilContents,
} from "../support/forward.js";
import { type Sshd, type SshdOptions, startSshd } from "../support/sshd.js";

const BUNDLE = Buffer.from(`"use strict";
if (process.argv[2] === "--version") console.log("1.2.3");
else process.stdin.pipe(process.stdout);
// ${"x".repeat(200_000)}
`);

const cleanUps: (() => Promise<unknown> | unknown)[] = [];
let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-conn-tools-"));
  const made = dir;
  cleanUps.push(() => rmSync(made, { recursive: true, force: true }));
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function start(options: SshdOptions = {}): Promise<Sshd> {
  const sshd = await startSshd(options);
  cleanUps.push(() => sshd.dispose());
  return sshd;
}

async function open(sshd: Sshd, changes: Partial<ForwardOptions> = {}) {
  const opened = await openTestForward(sshd, { tools: BUNDLE, ...changes });
  cleanUps.push(() => opened.forward.close());
  return opened;
}

/** Everything that our directory's name marks, wherever it may lie. */
function left(sshd: Sshd, ...more: string[]): string[] {
  const places = [sshd.runtimeDir, ...more].filter((one) => existsSync(one));
  const found = spawnSync("find", [...places, "-mindepth", "1"], { encoding: "utf8" }).stdout.split("\n");
  const elsewhere = spawnSync("find", ["/tmp", "-maxdepth", "3", "-name", "0a1b2c3d*"], { encoding: "utf8" }).stdout.split("\n");
  return [...new Set([...found, ...elsewhere])].filter((line) => line !== "");
}

const EVERY_BYTE = Buffer.from(Array.from({ length: 70_000 }, (_, index) => (index * 7) % 256));

describe("the tools", () => {
  it.each<[string, SshdOptions, { readonly pty: boolean; readonly tmp?: boolean }]>([
    ["by default", {}, { pty: true }],
    ["with one session", { config: ["MaxSessions 1"] }, { pty: true }],
    ["without a terminal", { config: ["PermitTTY no"] }, { pty: false }],
    ["with one session and no terminal", { config: ["MaxSessions 1", "PermitTTY no"] }, { pty: false }],
    ["where sshd opens no socket", { config: ["AllowStreamLocalForwarding remote"] }, { pty: true }],
    ["without a runtime directory", { setEnv: { XDG_RUNTIME_DIR: null } }, { pty: true, tmp: true }],
  ])("are on CMD's PATH %s, take and give every byte, and are gone afterwards", async (_name, options, wanted) => {
    const sshd = await start(options);
    const { forward, ui } = await open(sshd);
    const { ready } = forward;
    expect(ready.pty).toBe(wanted.pty);
    expect(ready.tools).toMatchObject({
      directory: join(ready.remoteSocket, "../bin"),
      path: join(ready.remoteSocket, "../bin/tokenfwd"),
      nodeVersion: expect.stringMatching(/^v\d+\.\d+\.\d+/),
      bytes: BUNDLE.length,
    });
    expect(ui.events.find((one) => one.name === "tools")?.data).toEqual({
      path: ready.tools?.path,
      node: ready.tools?.node,
      nodeVersion: ready.tools?.nodeVersion,
      bytes: BUNDLE.length,
    });
    const io = collectedIo(EVERY_BYTE);
    expect(await forward.run(["tokenfwd", "sign"], io)).toEqual({ code: 0, signal: null });
    expect(io.err().toString()).toBe("");
    expect(io.out().equals(EVERY_BYTE)).toBe(true);
    const found = collectedIo();
    await forward.run(["sh", "-c", 'command -v tokenfwd; printf %s "$TOKENFWD_SOCKET"'], found);
    expect(found.out().toString()).toBe(`${ready.tools?.path}\n${ready.remoteSocket}`);
    await forward.close();
    if (wanted.tmp !== true) expect(left(sshd)).toEqual([]);
    expect(existsSync(join(ready.remoteSocket, ".."))).toBe(false);
  });

  it.each(["dash", "csh", "tcsh", "fish"])("are found behind the login shell %s", async (shell) => {
    const sshd = await start({ config: [`ForceCommand exec ${shell} -c "$SSH_ORIGINAL_COMMAND"`] });
    const { forward } = await open(sshd);
    const io = collectedIo(EVERY_BYTE);
    expect(await forward.run(["tokenfwd", "it's", "!\\n"], io)).toEqual({ code: 0, signal: null });
    expect(io.out().equals(EVERY_BYTE)).toBe(true);
    await forward.close();
    expect(left(sshd)).toEqual([]);
  });

  it("are not there unless they were asked for", async () => {
    const sshd = await start();
    const { forward } = await openTestForward(sshd);
    cleanUps.push(() => forward.close());
    expect(forward.ready.tools).toBeNull();
    expect(contents(sshd.runtimeDir)).not.toContain("tokenfwd/0a1b2c3d/bin");
  });

  it("go when the connection is cut, and a command that runs them with it", async () => {
    const sshd = await start();
    const proxy = await startProxy(sshd.port);
    cleanUps.push(() => proxy.dispose());
    const { forward } = await open(sshd, { settings: through(proxy, await settingsOf(sshd)) });
    const io = collectedIo(null);
    const echoed = new Promise((resolve) => io.stdout.once("data", resolve));
    const running = forward.run(["tokenfwd", "sign"], io);
    io.stdin.push("here");
    await echoed;
    proxy.cut();
    await Promise.all([running, forward.lost]);
    await untilContents(sshd.runtimeDir, []);
  });

  it("of a dead connect with one session go with the next connect", async () => {
    const sshd = await start({ config: ["MaxSessions 1"] });
    const proxy = await startProxy(sshd.port);
    cleanUps.push(() => proxy.dispose());
    const { forward } = await open(sshd, { settings: through(proxy, await settingsOf(sshd)) });
    const io = collectedIo(null);
    const said = new Promise((resolve) => io.stdout.once("data", resolve));
    const running = forward.run(["sh", "-c", "echo here; exec cat"], io);
    await said;
    proxy.cut();
    await running;
    const bin = join(sshd.runtimeDir, "tokenfwd/0a1b2c3d/bin");
    expect(contents(bin)).toEqual(["tokenfwd", "tokenfwd-bastion.cjs"]);
    const next = await openTestForward(sshd);
    await next.forward.close();
    expect(left(sshd)).toEqual([]);
  });

  it("are given up in the midst when somebody presses Ctrl-C", async () => {
    const sshd = await start();
    const abort = new AbortController();
    const huge = Buffer.concat([BUNDLE, Buffer.alloc(24 * 1024 * 1024, "/")]);
    const ui = recordingUi();
    const opening = rejection(open(sshd, { tools: huge, signal: abort.signal, recorded: ui } as Partial<ForwardOptions>));
    const bin = join(sshd.runtimeDir, "tokenfwd/0a1b2c3d/bin");
    while (!existsSync(bin)) await new Promise((resolve) => setTimeout(resolve, 1));
    abort.abort();
    expect(await opening).toMatchObject({ code: "E_INTERRUPTED" });
    expect(ui.events.map((one) => one.name)).not.toContain("tools");
    expect(left(sshd)).toEqual([]);
  });
});

describe("what keeps the tools away is said before CMD, and nothing is left", () => {
  /** A PATH for CMD without any Node: what our one-liner needs, and the directories of this machine that have none. */
  function pathWithoutNode(): { readonly path: string; readonly bin: string } {
    const bin = join(dir, "bin");
    mkdirSync(bin);
    for (const name of ["sh", "sed", "env"]) symlinkSync(execFileSync("which", [name], { encoding: "utf8" }).trim(), join(bin, name));
    const others = (process.env["PATH"] ?? "")
      .split(delimiter)
      .filter((one) => !["node", "nodejs"].some((name) => existsSync(join(one, name))));
    return { path: [bin, ...others].join(delimiter), bin };
  }

  it("no Node", async () => {
    const sshd = await start({ setEnv: { PATH: pathWithoutNode().path } });
    const error = await rejection(open(sshd));
    expect(error).toMatchObject({ code: "E_TOOLS", message: expect.stringContaining("neither node nor nodejs") });
    expect(error.hint).toContain("Node 20");
    expect(left(sshd)).toEqual([]);
  });

  it("a Node that is too old, which is named", async () => {
    const { path, bin } = pathWithoutNode();
    writeFileSync(join(bin, "node"), "#!/bin/sh\necho v18.19.0\n", { mode: 0o755 });
    const sshd = await start({ setEnv: { PATH: path } });
    expect(await rejection(open(sshd))).toMatchObject({ code: "E_TOOLS", message: expect.stringContaining(`${bin}/node is v18.19.0`) });
    expect(left(sshd)).toEqual([]);
  });

  it("a program that does not run there", async () => {
    const sshd = await start();
    const error = await rejection(open(sshd, { tools: Buffer.from("throw new Error('not today')") }));
    expect(error).toMatchObject({ code: "E_TOOLS", message: expect.stringMatching(/ended with 1 and said .*not today/) });
    expect(left(sshd)).toEqual([]);
  });

  it("a bastion whose disk changes what is written", async () => {
    const bin = join(dir, "bin");
    mkdirSync(bin);
    // What the bastion's own sum says decides, so a sum of something else is a changed file.
    writeFileSync(join(bin, "sha256sum"), "#!/bin/sh\n/usr/bin/sha256sum /dev/null\n", { mode: 0o755 });
    const sshd = await start({ setEnv: { PATH: [bin, process.env["PATH"]].join(delimiter) } });
    expect(await rejection(open(sshd))).toMatchObject({ code: "E_TOOLS", message: expect.stringContaining("not what was sent") });
    expect(left(sshd)).toEqual([]);
  });

  const root = process.getuid?.() === 0 && process.platform === "linux";
  it.skipIf(!root).each([
    ["noexec,mode=700", /noexec/],
    ["size=64k,mode=700", /no room/],
  ])("a directory mounted with %s", async (flags, message) => {
    const runtimeDir = join(dir, "run");
    mkdirSync(runtimeDir, { mode: 0o700 });
    const mount = `mount -t tmpfs -o ${flags} tmpfs ${runtimeDir} && exec "$@"`;
    const sshd = await start({ within: ["unshare", "-m", "sh", "-c", mount, "sh"], setEnv: { XDG_RUNTIME_DIR: runtimeDir } });
    expect(await rejection(open(sshd))).toMatchObject({ code: "E_TOOLS", message: expect.stringMatching(message) });
    const look = spawnSync("ssh", ["-F", sshd.sshConfig, "bastion", `find ${runtimeDir} -mindepth 1`], { encoding: "utf8" });
    expect(look).toMatchObject({ status: 0, stdout: "" });
  });
});
