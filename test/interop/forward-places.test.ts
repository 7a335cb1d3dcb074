/* What may already lie on our paths on the bastion, and which directory is taken: dead things go, living things stay. */
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { contents, openTestForward, rejection, untilContents } from "../support/forward.js";
import { type Sshd, type SshdOptions, startSshd } from "../support/sshd.js";
import { deadSocket, startStranger } from "../support/strange-sockets.js";

let sshd: Sshd;
const cleanUps: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  cleanUps.length = 0;
});
afterEach(async () => {
  for (const cleanUp of cleanUps.reverse()) await cleanUp();
});

async function start(options: SshdOptions = {}): Promise<void> {
  const started = await startSshd(options);
  sshd = started;
  cleanUps.push(() => started.dispose());
}

const WS = "0a1b2c3d";
const wsPath = (...names: string[]) => join(sshd.runtimeDir, "tokenfwd", WS, ...names);

function makeWs(): void {
  mkdirSync(wsPath(), { recursive: true, mode: 0o700 });
  chmodSync(join(sshd.runtimeDir, "tokenfwd"), 0o700);
}

/** As in strange-sockets.ts; ended after the test. */
async function stranger(path: string, answers: boolean): Promise<void> {
  const server = await startStranger(path, answers);
  cleanUps.push(() => server.dispose());
}

describe("our own path", () => {
  it("is cleared of a dead socket with a dead owner", async () => {
    await start();
    makeWs();
    writeFileSync(wsPath("owner"), "earlier 999999999\n");
    await deadSocket(wsPath("p11.sock"));
    const { forward } = await openTestForward(sshd);
    expect(forward.ready.remoteSocket).toBe(wsPath("p11.sock"));
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("is cleared of a socket that accepts and does not answer", async () => {
    await start();
    makeWs();
    await stranger(wsPath("p11.sock"), false);
    const { forward } = await openTestForward(sshd);
    expect(forward.ready).toMatchObject({ remoteSocket: wsPath("p11.sock"), verified: "rpc" });
    await forward.close();
  });

  for (const unlink of ["no", "yes"]) {
    it(`is not taken from a stranger who answers there, with StreamLocalBindUnlink ${unlink}`, async () => {
      await start({ config: [`StreamLocalBindUnlink ${unlink}`] });
      makeWs();
      await stranger(wsPath("p11.sock"), true);
      const inode = lstatSync(wsPath("p11.sock")).ino;
      expect(await rejection(openTestForward(sshd))).toMatchObject({ code: "E_SOCKET_FOREIGN" });
      expect(lstatSync(wsPath("p11.sock")).ino).toBe(inode);
    });
  }

  it("is recognised as a stranger's also where sshd opens no socket for us", async () => {
    await start({ config: ["AllowStreamLocalForwarding remote"] });
    makeWs();
    await stranger(wsPath("p11.sock"), true);
    expect(await rejection(openTestForward(sshd))).toMatchObject({ code: "E_SOCKET_FOREIGN" });
  });

  it("is left alone when it is a file, and never followed when its directory is a link", async () => {
    await start();
    makeWs();
    writeFileSync(wsPath("p11.sock"), "mine");
    expect(await rejection(openTestForward(sshd))).toMatchObject({ code: "E_SOCKET_FOREIGN" });
    expect(readFileSync(wsPath("p11.sock"), "utf8")).toBe("mine");
    rmSync(wsPath(), { recursive: true });
    mkdirSync(join(sshd.runtimeDir, "elsewhere"), { mode: 0o700 });
    symlinkSync(join(sshd.runtimeDir, "elsewhere"), wsPath());
    expect(await rejection(openTestForward(sshd))).toMatchObject({
      code: "E_RUNTIME_DIR",
      message: expect.stringContaining("symbolic link"),
    });
    expect(contents(join(sshd.runtimeDir, "elsewhere"))).toEqual([]);
  });

  it("is refused below a directory that others may open", async () => {
    await start();
    makeWs();
    chmodSync(join(sshd.runtimeDir, "tokenfwd"), 0o755);
    expect(await rejection(openTestForward(sshd))).toMatchObject({
      code: "E_RUNTIME_DIR",
      message: expect.stringContaining("open to others"),
    });
  });

  it("is refused before anything is made when it does not fit a socket address", async () => {
    await start();
    const long = join(sshd.dir, "x".repeat(60));
    mkdirSync(long, { mode: 0o700 });
    await sshd.dispose();
    mkdirSync(long, { recursive: true, mode: 0o700 });
    cleanUps.push(() => rmSync(sshd.dir, { recursive: true, force: true }));
    const other = await startSshd({ setEnv: { XDG_RUNTIME_DIR: long } });
    cleanUps.push(() => other.dispose());
    const error = await rejection(openTestForward(other));
    expect(error).toMatchObject({ code: "E_PATH_TOO_LONG" });
    expect(error.message).toMatch(/107 fit/);
    expect(contents(long)).toEqual([]);
  });

  it("lies below /tmp/tokenfwd-UID, with no well-known path, where no runtime directory is fit", async () => {
    const uid = process.getuid?.() ?? 0;
    await start();
    chmodSync(sshd.runtimeDir, 0o755);
    const { forward, ui } = await openTestForward(sshd, { workstationId: "feedf00d" });
    const probe = ui.events.find((event) => event.name === "probe")?.data;
    expect(probe?.["skipped"]).toContain("XDG_RUNTIME_DIR mode");
    // A machine with a login manager has the second choice.
    const base = existsSync(`/run/user/${uid}`) ? `/run/user/${uid}` : `/tmp/tokenfwd-${uid}`;
    expect(forward.ready.remoteSocket).toBe(`${base}/tokenfwd/feedf00d/p11.sock`);
    if (base.startsWith("/tmp")) expect(forward.ready.wellKnown).toBe("none");
    await forward.close();
    expect(existsSync(`${base}/tokenfwd/feedf00d`)).toBe(false);
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });
});

describe("the well-known path", () => {
  const known = () => join(sshd.runtimeDir, "p11-kit", "pkcs11");

  it("is taken from a dead server, and a directory that others made stays", async () => {
    await start();
    mkdirSync(join(sshd.runtimeDir, "p11-kit"), { mode: 0o755 });
    await deadSocket(known());
    const { forward } = await openTestForward(sshd);
    expect(forward.ready.wellKnown).toBe("ours");
    expect(readlinkSync(known())).toBe(forward.ready.remoteSocket);
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual(["p11-kit"]);
  });

  it("is left alone while somebody answers or only listens there", async () => {
    for (const answers of [true, false]) {
      await start();
      mkdirSync(join(sshd.runtimeDir, "p11-kit"), { mode: 0o700 });
      await stranger(known(), answers);
      const { forward } = await openTestForward(sshd);
      expect(forward.ready.wellKnown).toBe("foreign");
      expect(forward.ready.warnings.join()).toMatch(/P11_KIT_SERVER_ADDRESS/);
      await forward.close();
      expect(lstatSync(known()).isSocket()).toBe(true);
    }
  });

  it("is mended when it dangles, and taken away only while it is ours", async () => {
    await start();
    mkdirSync(join(sshd.runtimeDir, "p11-kit"), { mode: 0o700 });
    symlinkSync(join(sshd.runtimeDir, "nowhere"), known());
    const { forward } = await openTestForward(sshd);
    expect(forward.ready.wellKnown).toBe("ours");
    rmSync(known());
    symlinkSync("/somebody/elses", known());
    await forward.close();
    expect(readlinkSync(known())).toBe("/somebody/elses");
    await untilContents(sshd.runtimeDir, ["p11-kit", "p11-kit/pkcs11"]);
  });
});
