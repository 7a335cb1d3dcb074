/* TCP through a forward, and small files beside it: what a client there reaches, what sshd forbids, what is left. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, connect as tcpConnect } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, describe, expect, it } from "vitest";
import { connectBastion } from "../../src/forward/forward.js";
import { TRY_WORD } from "../../src/forward/remote/command-files-script.js";
import { collectedIo, contents, openTestForward, recordingUi, rejection, settingsOf, untilContents } from "../support/forward.js";
import { type Sshd, type SshdOptions, startSshd } from "../support/sshd.js";

const cleanUps: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function start(options: SshdOptions = {}): Promise<Sshd> {
  const sshd = await startSshd(options);
  cleanUps.push(() => sshd.dispose());
  return sshd;
}

async function open(sshd: Sshd) {
  const opened = await openTestForward(sshd);
  cleanUps.push(() => opened.forward.close());
  return opened;
}

const echo = (stream: Duplex): void => void stream.on("error", () => {}).pipe(stream);
const never = new AbortController().signal;

/** What comes back for one line: the line, or how the connection ended. */
function said(port: number, host = "127.0.0.1"): Promise<string> {
  return new Promise((resolve) => {
    const socket = tcpConnect({ port, host }, () => socket.write("hello"));
    socket.on("data", (chunk) => {
      resolve(chunk.toString());
      socket.destroy();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
    socket.on("close", () => resolve("closed"));
  });
}

/** A server that answers with what it got, on loopback. */
async function echoServer(): Promise<number> {
  const server = createServer(echo);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanUps.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

describe("a port on the bastion's loopback", () => {
  it("leads to us, both ways, beside a second one, until the forward closes", async () => {
    const { forward } = await open(await start());
    const [one, two] = [await forward.listenLoopback(echo), await forward.listenLoopback((stream) => stream.end("two"))];
    expect(one).not.toBe(two);
    expect([await said(one), await said(two)]).toEqual(["hello", "two"]);
    await forward.close();
    expect(await said(one)).toBe("ECONNREFUSED");
  });

  it("is closed to other machines where sshd listens for them too, and that is said", async () => {
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((address) => address?.family === "IPv4" && !address.internal)?.address;
    const { forward, ui } = await open(await start({ config: ["GatewayPorts yes"] }));
    const port = await forward.listenLoopback(echo);
    expect(await said(port)).toBe("hello");
    if (outside !== undefined) expect(await said(port, outside)).toMatch(/closed|ECONNRESET/);
    expect(ui.events.some(({ name, data }) => name === "warning" && String(data["text"]).includes("GatewayPorts yes"))).toBe(true);
  });

  for (const [what, options] of [
    ["PermitListen none", { config: ["PermitListen none"] }],
    ["permitlisten of the key", { authorizedKeyOptions: 'permitlisten="8080"' }],
  ] as const) {
    it(`is refused under ${what}, with the line that allows it and the way without`, async () => {
      const { forward } = await open(await start(options));
      const error = await rejection(forward.listenLoopback(echo));
      expect(error).toMatchObject({ code: "E_FORWARD_REFUSED", message: expect.stringContaining("PermitListen") });
      expect(error.hint).toMatch(/PermitListen any.*--tools -- tokenfwd choria run/);
    });
  }
});

describe("a connection from the bastion to elsewhere", () => {
  it("carries bytes both ways, and says why where nobody listens", async () => {
    const { forward } = await open(await start());
    const stream = await forward.dial("127.0.0.1", await echoServer(), never);
    stream.write("over");
    expect(String(await new Promise((resolve) => stream.once("data", resolve)))).toBe("over");
    stream.destroy();
    await expect(forward.dial("127.0.0.1", 1, never)).rejects.toThrow(/Connection refused/);
  });

  for (const [what, options] of [
    ["AllowTcpForwarding remote", { config: ["AllowTcpForwarding remote"] }],
    ["PermitOpen of another", { config: ["PermitOpen broker.example:4222"] }],
    ["permitopen of the key", { authorizedKeyOptions: 'permitopen="broker.example:4222"' }],
  ] as const) {
    it(`is refused under ${what} as a rule of sshd, with the line that allows it`, async () => {
      const { forward } = await open(await start(options));
      const error = await rejection(forward.dial("127.0.0.1", await echoServer(), never));
      expect(error).toMatchObject({ code: "E_FORWARD_REFUSED", message: expect.stringContaining("connects nobody to 127.0.0.1") });
      expect(error.hint).toMatch(/AllowTcpForwarding yes, and PermitOpen 127\.0\.0\.1:\d+/);
    });
  }

  it("is given up when nobody waits for it any more, and closed when it comes after all", async () => {
    const { forward } = await open(await start());
    const stop = new AbortController();
    const dialling = forward.dial("127.0.0.1", await echoServer(), stop.signal);
    stop.abort(new Error("enough"));
    await expect(dialling).rejects.toThrow("enough");
  });
});

describe("files of the bastion", () => {
  async function look(home: string, path: string) {
    const sshd = await start({ setEnv: { HOME: home, PATH: path } });
    const bastion = await connectBastion({
      settings: await settingsOf(sshd),
      workstationId: "0a1b2c3d",
      connectId: "test-files",
      ui: recordingUi(),
      signal: never,
      requirePty: false,
    });
    cleanUps.push(() => bastion.close());
    return bastion.files;
  }
  function directory(): string {
    const made = mkdtempSync(join(tmpdir(), "tfwd files "));
    cleanUps.push(() => rmSync(made, { recursive: true, force: true }));
    return made;
  }

  it("are found and read byte for byte as a program there would find them", async () => {
    const home = directory();
    const bytes = randomBytes(9_000);
    writeFileSync(join(home, "it's a $file;"), bytes);
    writeFileSync(join(home, "empty"), "");
    mkdirSync(join(home, "bin"));
    writeFileSync(join(home, "bin", "choria"), "#!/bin/sh\n", { mode: 0o755 });
    const files = await look(home, `${home}/bin:/usr/bin:/bin`);
    expect(await files.login("choria")).toMatchObject({ home, program: join(home, "bin", "choria") });
    expect((await files.login("nothing")).program).toBeNull();
    const paths = [join(home, "it's a $file;"), join(home, "missing"), home, join(home, "empty")];
    expect(await files.present(paths)).toEqual({ files: new Set([paths[0], paths[3]]), others: new Set([home]) });
    expect((await files.read(paths[0] ?? "", 10_000))?.equals(bytes)).toBe(true);
    expect(await files.read(paths[3] ?? "", 10_000)).toEqual(Buffer.alloc(0));
    expect(await files.read(paths[1] ?? "", 10_000)).toBeNull();
    expect(await rejection(files.read(paths[0] ?? "", 8_999))).toMatchObject({ code: "E_CONFIG" });
  });

  it("are put in front of CMD's PATH with the modes that were named, and go with what still runs with them", async () => {
    const sshd = await start();
    const { forward } = await open(sshd);
    let kept = "";
    const secret = `a 'secret' $(id) \u20ac\n1 exit\n`;
    await forward.keep((made) => {
      kept = made;
      return [
        { name: "client.conf", mode: "600", text: secret },
        { name: "choria", mode: "700", text: `#!/bin/sh\ntest "$1" = ${TRY_WORD}\n` },
      ];
    });
    expect(readFileSync(join(kept, "client.conf"), "utf8")).toBe(secret);
    const modes = [kept, join(kept, "client.conf"), join(kept, "choria")].map((path) => statSync(path).mode & 0o777);
    expect(modes).toEqual([0o700, 0o600, 0o700]);
    const io = collectedIo();
    expect((await forward.run(["sh", "-c", 'command -v choria; echo "$PATH"'], io)).code).toBe(0);
    expect(io.out().toString()).toMatch(new RegExp(`^${kept}/choria\\n${kept}:`));
    // Left running by CMD, as a choria that has lost its relay is.
    const left = spawn("sleep", ["600"], { argv0: `choria --config ${kept}/client.conf`, stdio: "ignore" });
    const ended = new Promise((resolve) => left.once("exit", (_, signal) => resolve(signal)));
    await forward.close();
    expect(await ended).toBe("SIGTERM");
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("of CMD that a killed connection left are gone before there are new ones", async () => {
    const sshd = await start();
    const left = join(sshd.runtimeDir, "tokenfwd", "0a1b2c3d", "cmd");
    mkdirSync(left, { recursive: true, mode: 0o700 });
    for (const path of [join(left, "..", ".."), join(left, "..")]) chmodSync(path, 0o700);
    writeFileSync(join(left, "client.conf"), "old");
    writeFileSync(join(left, "err.123"), "");
    const { forward } = await open(sshd);
    await forward.keep(() => [{ name: "client.conf", mode: "600", text: "new" }]);
    expect(contents(left)).toEqual(["client.conf"]);
    await forward.close();
    await untilContents(sshd.runtimeDir, []);
  });

  it.skipIf(process.getuid?.() !== 0 || process.platform !== "linux")("of CMD are not put where no program may be started", async () => {
    const runtimeDir = directory();
    const mount = `mount -t tmpfs -o noexec,mode=700 tmpfs '${runtimeDir}' && exec "$@"`;
    const sshd = await start({ within: ["unshare", "-m", "sh", "-c", mount, "sh"], setEnv: { XDG_RUNTIME_DIR: runtimeDir } });
    const { forward } = await open(sshd);
    const error = await rejection(forward.keep(() => [{ name: "choria", mode: "700", text: "#!/bin/sh\n" }]));
    expect(error).toMatchObject({ code: "E_RUNTIME_DIR", message: expect.stringContaining("noexec") });
  });

  it("of CMD are not put where somebody else's link leads", async () => {
    const sshd = await start();
    const { forward } = await open(sshd);
    const elsewhere = directory();
    symlinkSync(elsewhere, join(sshd.runtimeDir, "tokenfwd", "0a1b2c3d", "cmd"));
    const error = await rejection(forward.keep(() => [{ name: "client.conf", mode: "600", text: "secret" }]));
    expect(error.code).toBe("E_RUNTIME_DIR");
    expect(contents(elsewhere)).toEqual([]);
    rmSync(join(sshd.runtimeDir, "tokenfwd", "0a1b2c3d", "cmd"));
  });
});
