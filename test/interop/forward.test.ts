/* The forward against a real sshd: what a good bastion gives, what a command sees, and that nothing stays behind. */
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createFakeP11Server } from "../support/fake-p11-server.js";
import {
  collectedIo,
  contents,
  modeOf,
  openTestForward,
  rejection,
  settingsOf,
  startProxy,
  through,
  untilContents,
  untilGone,
} from "../support/forward.js";
import { type Sshd, startSshd } from "../support/sshd.js";

let sshd: Sshd;
beforeAll(async () => {
  sshd = await startSshd();
});
afterAll(async () => {
  await sshd.dispose();
});

describe("a forward over a real sshd", () => {
  it("makes a verified socket in a private directory, links the well-known path and says so", async () => {
    const { forward, ui, agent } = await openTestForward(sshd);
    const socket = join(sshd.runtimeDir, "tokenfwd/0a1b2c3d/p11.sock");
    expect(forward.ready).toMatchObject({
      user: sshd.user,
      host: "127.0.0.1",
      port: sshd.port,
      hostKey: sshd.hostKey,
      pty: true,
      verified: "rpc",
      remoteSocket: socket,
      address: `unix:path=${socket}`,
      wellKnown: "ours",
      warnings: [],
    });
    expect(forward.ready.rttMs).toBeGreaterThan(0);
    expect(modeOf(sshd.runtimeDir, "tokenfwd/0a1b2c3d")).toBe(0o700);
    expect(modeOf(sshd.runtimeDir, "tokenfwd")).toBe(0o700);
    expect(modeOf(socket)).toBe(0o600);
    expect(readlinkSync(join(sshd.runtimeDir, "p11-kit/pkcs11"))).toBe(socket);
    expect(readFileSync(join(sshd.runtimeDir, "tokenfwd/0a1b2c3d/owner"), "utf8")).toMatch(/^test-\d+-\d+ \d+\n$/);
    expect(agent.options.filter((text) => /^tokenfwd-verify:[0-9a-f]{32}$/.test(text))).toHaveLength(1);
    expect(ui.events.map((event) => event.name)).toEqual(["hostkey", "auth", "probe", "forward", "verify"]);
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("hands each connection to the socket to the agent, through the well-known path too", async () => {
    const { forward, agent } = await openTestForward(sshd);
    const before = agent.streams.length;
    const answers = await Promise.all(
      [forward.ready.remoteSocket, join(sshd.runtimeDir, "p11-kit/pkcs11")].map(
        (path) =>
          new Promise<number>((resolve, reject) => {
            const socket = connect(path, () => socket.write(Buffer.from([1])));
            socket.on("error", reject);
            socket.on("data", (chunk) => {
              resolve(chunk[0] ?? -1);
              socket.destroy();
            });
          }),
      ),
    );
    expect(answers).toEqual([1, 1]);
    expect(agent.streams.length - before).toBe(2);
    await forward.close();
  });

  it("is not verified when the slots seen from the bastion are not the agent's, and leaves nothing", async () => {
    const agent = createFakeP11Server({ slots: [1n] });
    const error = await rejection(openTestForward(sshd, { agent }));
    expect(error).toMatchObject({ code: "E_NOT_VERIFIED" });
    expect(error.message).toContain("[1]");
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("cleans up when interrupted at any point before ready", async () => {
    for (const stage of ["hostkey", "auth", "probe", "forward", "verify"]) {
      const abort = new AbortController();
      const events: string[] = [];
      const ui = {
        confirmHostKey: async () => false,
        askPassphrase: async () => null,
        askLogin: async () => null,
        event(name: string) {
          events.push(name);
          if (name === stage) abort.abort();
        },
      };
      expect(await rejection(openTestForward(sshd, { ui, signal: abort.signal }))).toMatchObject({ code: "E_INTERRUPTED" });
      expect(events.at(-1)).toBe(stage);
      await untilContents(sshd.runtimeDir, []);
    }
  });

  it("leaves nothing on the bastion when the connection is cut, as kill -9 of our process does", async () => {
    const proxy = await startProxy(sshd.port);
    const { forward } = await openTestForward(sshd, { settings: through(proxy, await settingsOf(sshd)) });
    expect(existsSync(forward.ready.remoteSocket)).toBe(true);
    proxy.cut();
    expect((await forward.lost).code).toBe("E_SSH_LOST");
    await untilContents(sshd.runtimeDir, []);
    await forward.close();
    await proxy.dispose();
  });

  it("notices a dead link, takes the place of the dead connection, and survives the old one's trap", async () => {
    const proxy = await startProxy(sshd.port);
    const settings = { ...through(proxy, await settingsOf(sshd)), keepaliveMs: 100, keepaliveCount: 2 };
    const first = await openTestForward(sshd, { settings });
    const oldHelper = Number(readFileSync(join(sshd.runtimeDir, "tokenfwd/0a1b2c3d/owner"), "utf8").split(" ")[1]);
    proxy.freeze();
    expect((await first.forward.lost).code).toBe("E_SSH_LOST");
    expect(existsSync(first.forward.ready.remoteSocket)).toBe(true);
    const second = await openTestForward(sshd);
    expect(second.forward.ready.remoteSocket).toBe(first.forward.ready.remoteSocket);
    expect(second.forward.ready.wellKnown).toBe("ours");
    proxy.cut();
    await untilGone(oldHelper);
    const again = await second.forward.run(["sh", "-c", 'test -S "$TOKENFWD_SOCKET"'], collectedIo());
    expect(again.code).toBe(0);
    await second.forward.close();
    await untilContents(sshd.runtimeDir, []);
    await first.forward.close();
    await proxy.dispose();
  });

  it("keeps connects that start at the same moment apart", async () => {
    const forwards = await Promise.all([1, 2, 3].map(async () => (await openTestForward(sshd)).forward));
    expect(new Set(forwards.map((forward) => forward.ready.remoteSocket)).size).toBe(3);
    expect(forwards.map((forward) => forward.ready.verified)).toEqual(["rpc", "rpc", "rpc"]);
    await Promise.all(forwards.map((forward) => forward.close()));
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("is lost when the shell that keeps it is ended on the bastion", async () => {
    const { forward } = await openTestForward(sshd);
    process.kill(Number(readFileSync(join(sshd.runtimeDir, "tokenfwd/0a1b2c3d/owner"), "utf8").split(" ")[1]), "SIGTERM");
    expect(await forward.lost).toMatchObject({ code: "E_SSH_LOST", message: expect.stringContaining("shell") });
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("gives a second connect of the same workstation its own directory and takes neither away from the other", async () => {
    const first = await openTestForward(sshd);
    const second = await openTestForward(sshd);
    expect(second.forward.ready.remoteSocket).toBe(join(sshd.runtimeDir, "tokenfwd/0a1b2c3d-2/p11.sock"));
    expect(second.forward.ready.wellKnown).toBe("foreign");
    await second.forward.close();
    expect(contents(sshd.runtimeDir)).toContain("tokenfwd/0a1b2c3d/p11.sock");
    expect(contents(sshd.runtimeDir)).toContain("p11-kit/pkcs11");
    await first.forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });
});

describe("a command on the bastion", () => {
  it("gets its argv, both variables and stdin byte for byte, and its status comes back", async () => {
    const { forward } = await openTestForward(sshd);
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const input = Buffer.concat(Array.from({ length: 1024 }, () => bytes));
    const io = collectedIo(input);
    expect(
      await forward.run(
        ["sh", "-c", 'cat; printf \'%s|\' "$@" "$TOKENFWD_SOCKET" "$P11_KIT_SERVER_ADDRESS" >&2; exit 7', "x", "a  b", "!'\\\n", ""],
        io,
      ),
    ).toEqual({ code: 7, signal: null });
    expect(io.out().equals(input)).toBe(true);
    expect(io.err().toString()).toBe(`a  b|!'\\\n||${forward.ready.remoteSocket}|${forward.ready.address}|`);
    await forward.close();
  });

  it("reports a signal, a command that is not there, and an end of output without an end of input", async () => {
    const { forward } = await openTestForward(sshd);
    expect(await forward.run(["sh", "-c", "kill -KILL $$"], collectedIo(null))).toEqual({ code: null, signal: "SIGKILL" });
    expect((await forward.run(["tokenfwd-no-such-program"], collectedIo())).code).toBe(127);
    const io = collectedIo(null);
    expect(await forward.run(["echo", "done"], io)).toEqual({ code: 0, signal: null });
    expect(io.out().toString()).toBe("done\n");
    await forward.close();
  });

  it("gets a terminal of the given kind and size, and hears of a new size", async () => {
    const { forward } = await openTestForward(sshd);
    const io = collectedIo(null, { cols: 101, rows: 33, term: "vt100" });
    let resize: (size: { cols: number; rows: number }) => void = () => {};
    const running = forward.run(
      ["sh", "-c", 'trap "stty size; exit 3" WINCH; tty >/dev/null && stty size; echo $TERM; while :; do sleep 0.05; done'],
      {
        ...io,
        onResize: (listener) => {
          resize = listener;
        },
      },
    );
    const seen = (text: string) =>
      new Promise<void>((resolve) => {
        const look = () => (io.out().toString().includes(text) ? resolve() : io.stdout.once("data", look));
        look();
      });
    await seen("vt100");
    expect(io.out().toString()).toContain("33 101");
    resize({ cols: 77, rows: 22 });
    expect(await running).toEqual({ code: 3, signal: null });
    expect(io.out().toString()).toContain("22 77");
    await forward.close();
  });

  it("is abandoned when its signal is aborted, and refuses more than 32 KiB of arguments", async () => {
    const { forward } = await openTestForward(sshd);
    const io = collectedIo(null);
    const running = forward.run(["sh", "-c", "echo up; exec cat"], io);
    await new Promise((resolve) => io.stdout.once("data", resolve));
    io.abort.abort();
    expect((await running).code).toBe(null);
    expect(await rejection(forward.run(["echo", "x".repeat(33_000)], collectedIo()))).toMatchObject({ code: "E_USAGE" });
    const long = collectedIo();
    expect((await forward.run(["printf", "%s", "y".repeat(32_000)], long)).code).toBe(0);
    expect(long.out().length).toBe(32_000);
    await forward.close();
  });

  it("does not lose output to a slow reader", async () => {
    const { forward } = await openTestForward(sshd);
    const io = collectedIo();
    const size = 8 * 1024 * 1024;
    io.stdout.cork();
    const running = forward.run(["sh", "-c", `head -c ${size} /dev/zero`], io);
    setTimeout(() => io.stdout.uncork(), 50);
    expect((await running).code).toBe(0);
    expect(io.out().length).toBe(size);
    await forward.close();
  });
});
