/* The helper's answers come from a machine that may be hostile; its script runs in whatever sh there is. */
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex, PassThrough } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bastionFiles } from "../../../src/forward/remote/command-files.js";
import { parseAnswer, startHelper } from "../../../src/forward/remote/helper.js";
import { bootstrapCommand, helperScript, SCRIPT_END } from "../../../src/forward/remote/helper-script.js";
import type { Transport } from "../../../src/forward/transport.js";
import { rejection } from "../../support/forward.js";

describe("an answer", () => {
  it("holds known keys with values in their pattern", () => {
    expect(parseAnswer(["uid=0", "tool=nc", "tool=perl", "rt=/run/user/0", ""])).toEqual(
      new Map([
        ["uid", ["0"]],
        ["tool", ["nc", "perl"]],
        ["rt", ["/run/user/0"]],
      ]),
    );
  });

  for (const line of [
    "uid=x",
    "nokey",
    "=",
    "evil=1",
    "__proto__=1",
    "constructor=1",
    "rt=relative",
    "rt=/a\u001b[2J",
    "rt=/a\u202eb",
    "tool=rm",
    "sock=a b",
    `rt=/${"x".repeat(2000)}`,
  ]) {
    it(`is refused with the line ${JSON.stringify(line.slice(0, 30))}, in printable words`, () => {
      try {
        parseAnswer([line]);
        expect.unreachable();
      } catch (error) {
        expect(error).toMatchObject({ code: "E_REMOTE_SHELL" });
        expect((error as Error).message).not.toMatch(/[\p{Cc}\p{Cf}]/u);
      }
    });
  }
});

/** A transport whose only command is played by `react`, called with "" at the start and then with each line sent. */
function fakeBastion(react: (line: string, print: (text: string) => void, nonce: string) => void): Transport {
  const exec: Transport["exec"] = async (command) => {
    const nonce = /tokenfwd ([0-9a-f]{32});/.exec(command)?.[1] ?? "";
    let close: () => void = () => {};
    const exit = new Promise<{ code: null; signal: null }>((resolve) => {
      close = () => resolve({ code: null, signal: null });
    });
    let pending = "";
    const stream = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        pending += chunk.toString();
        for (let end = pending.indexOf("\n"); end !== -1; end = pending.indexOf("\n")) {
          react(pending.slice(0, end), print, nonce);
          pending = pending.slice(end + 1);
        }
        done();
      },
    });
    const print = (text: string) => void stream.push(text);
    queueMicrotask(() => react("", print, nonce));
    return { ok: true, value: { stream, stderr: new PassThrough(), exit, resize() {}, signal() {}, close: () => close() } };
  };
  return { exec } as unknown as Transport;
}

async function start(react: Parameters<typeof fakeBastion>[0]) {
  const helper = await startHelper(fakeBastion(react), false);
  if (!("request" in helper)) throw new Error(helper.reason);
  return helper;
}

describe("a helper", () => {
  it("is found behind noise, carriage returns and an echo of what we send", async () => {
    const helper = await start((line, print, nonce) => {
      if (line === "") print(`Welcome!\r\nno line end tokenfwd-${nonce}\r\n`);
      else print(`${line}\r\n`);
      const [seq, verb] = line.split(" ");
      if (verb === "probe") print(`junk\r\ntokenfwd-${nonce} ${seq} begin\r\nuid=7\r\ntokenfwd-${nonce} ${seq} end\r\n`);
    });
    expect((await helper.request("probe")).get("uid")).toEqual(["7"]);
  });

  it("that answers more than 8 KiB is given up", async () => {
    const helper = await start((line, print, nonce) => {
      if (line === "") print(`tokenfwd-${nonce}\n`);
      if (line === "1 probe") print(`tokenfwd-${nonce} 1 begin\n${"uid=1\n".repeat(2000)}tokenfwd-${nonce} 1 end\n`);
    });
    expect(await rejection(helper.request("probe"))).toMatchObject({ code: "E_REMOTE_SHELL", message: expect.stringContaining("8 KiB") });
    expect(await rejection(helper.request("probe"))).toMatchObject({ code: "E_REMOTE_SHELL" });
  });

  it("that prints without end is given up", async () => {
    const endless = startHelper(
      fakeBastion((line, print) => {
        if (line === "") for (let i = 0; i < 300; i++) print(`${"x".repeat(1024)}\n`);
      }),
      false,
    );
    expect(await rejection(endless)).toMatchObject({ code: "E_REMOTE_SHELL", message: expect.stringContaining("without end") });
  });

  it("takes no answer with another connection's marker or another number", async () => {
    const helper = await start((line, print, nonce) => {
      if (line === "") print(`tokenfwd-${nonce}\n`);
      if (line === "1 probe") {
        print(`tokenfwd-${"0".repeat(32)} 1 begin\nuid=1\ntokenfwd-${"0".repeat(32)} 1 end\n`);
        print(`tokenfwd-${nonce} 2 begin\nuid=2\ntokenfwd-${nonce} 2 end\n`);
        print(`tokenfwd-${nonce} 1 begin\nuid=3\ntokenfwd-${nonce} 1 end\n`);
      }
    });
    expect((await helper.request("probe")).get("uid")).toEqual(["3"]);
  });
});

describe("a file of the bastion", () => {
  const block = (...answer: readonly string[]) => {
    let blocks = 0;
    const helper = start((line, print, nonce) => {
      if (line === "") print(`tokenfwd-${nonce}\n`);
      const [seq = "", verb] = line.split(" ");
      if (verb !== "block" || blocks++ > 5) return;
      print([`tokenfwd-${nonce} ${seq} begin`, ...answer, `tokenfwd-${nonce} ${seq} end`, ""].join("\n"));
    });
    return helper.then((one) => bastionFiles(one).read("/etc/choria/client.conf", 64 * 1024)).finally(() => expect(blocks).toBe(1));
  };
  const hex = "61".repeat(3_500);

  it("is no longer than it says, and is given up where it does not say how long", async () => {
    expect(String(await block("size=2", "hex=6162"))).toBe("ab");
    expect(await rejection(block(`hex=${hex}`))).toMatchObject({ code: "E_REMOTE_SHELL" });
    expect(await rejection(block("size=3499", `hex=${hex}`))).toMatchObject({ code: "E_REMOTE_SHELL" });
    expect(await rejection(block("size=65537", `hex=${hex}`))).toMatchObject({ code: "E_CONFIG" });
  });
});

describe("the helper's script", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "tfwd-helper-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  const play = (shell: string, verbs: string[]) =>
    spawnSync(shell, ["-c", bootstrapCommand("ab")], {
      input: `${helperScript("ab")}${SCRIPT_END}\n${verbs.map((verb, index) => `${index + 1} ${verb}\n`).join("")}`,
      env: { PATH: process.env["PATH"] ?? "", XDG_RUNTIME_DIR: directory, TMOUT: "1" },
    }).stdout.toString();

  for (const shell of ["dash", "bash", "csh", "tcsh", "fish"]) {
    it(`makes, links and removes behind the login shell ${shell}`, () => {
      const said = play(shell, ["probe", "look 00000000", "claim 00000000 me-1", "look 00000000", "known 00000000", "link"]);
      expect(said).toContain("tokenfwd-ab 2 begin\nbase=missing\ndir=missing\nowner=\nalive=no\nsock=none\n");
      expect(said).toContain("tokenfwd-ab 4 begin\nbase=ok\ndir=ok\nowner=me-1\nalive=yes\nsock=none\n");
      expect(said).toContain("link=ok");
      // stdin has ended, as it does when the connection goes: the trap has run.
      expect(readdirSync(directory)).toEqual([]);
    });
  }

  it("keeps what another connection owns by then", () => {
    mkdirSync(join(directory, "tokenfwd/00000000"), { recursive: true, mode: 0o700 });
    play("dash", ["probe", "claim 00000000 me-1", "release"]);
    writeFileSync(join(directory, "tokenfwd/00000000/owner"), "you-2 1\n");
    play("dash", ["probe", "adopt 00000000 me-1", "exit"]);
    expect(existsSync(join(directory, "tokenfwd/00000000/owner"))).toBe(true);
    play("dash", ["probe", "adopt 00000000 you-2", "exit"]);
    expect(readdirSync(directory)).toEqual([]);
  });

  it("removes no empty directory of that name that was not fit", () => {
    mkdirSync(join(directory, "tokenfwd"), { mode: 0o700 });
    chmodSync(join(directory, "tokenfwd"), 0o755);
    expect(play("dash", ["probe", "claim 00000000 me-1"])).toContain("fail=mode");
    expect(readdirSync(directory)).toEqual(["tokenfwd"]);
  });

  it.skipIf(process.getuid?.() !== 0)("takes a socket it may not open for none that is dead, with perl, python3 or nc", async () => {
    mkdirSync(join(directory, "p11-kit"), { mode: 0o700 });
    const socket = join(directory, "p11-kit", "pkcs11");
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    for (const path of [directory, join(directory, "p11-kit")]) chownSync(path, 65534, 65534);
    chmodSync(socket, 0o600);
    try {
      for (const tool of ["perl", "python3", "nc"]) {
        // A PATH with one of them alone; the script appends the system's own, so the others are shadowed by what fails.
        const bin = mkdtempSync(join(tmpdir(), "tfwd-bin-"));
        chmodSync(bin, 0o755);
        for (const other of ["perl", "python3", "nc"].filter((one) => one !== tool)) {
          writeFileSync(join(bin, other), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
          chmodSync(join(bin, other), 0o755);
        }
        const ping = spawnSync("/bin/sh", ["-c", bootstrapCommand("ab")], {
          input: `${helperScript("ab")}${SCRIPT_END}\n1 probe\n2 pingknown\n`,
          env: { PATH: `${bin}:${process.env["PATH"]}`, XDG_RUNTIME_DIR: directory },
          uid: 65534,
          gid: 65534,
          cwd: "/",
        });
        expect(`${tool}: ${ping.stdout.toString()}`).toContain("ping=unknown");
        rmSync(bin, { recursive: true });
      }
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("makes an owner file that is no word into one that is, and takes no claim that somebody else holds", () => {
    mkdirSync(join(directory, "tokenfwd/00000000"), { recursive: true, mode: 0o700 });
    writeFileSync(join(directory, "tokenfwd/00000000/owner"), "\u001b[2J$(touch x) 12\n");
    expect(play("dash", ["probe", "look 00000000"])).toContain("owner=invalid\n");
    writeFileSync(join(directory, "tokenfwd/00000000/owner"), "you-2 1\n");
    expect(play("dash", ["probe", "claim 00000000 me-1"])).toContain("fail=taken");
    expect(play("dash", ["probe", "claim 00000000 me-1 you-2"])).toContain("claim=ok");
  });
});
