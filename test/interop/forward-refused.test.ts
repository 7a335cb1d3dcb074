/* Bastions that refuse or restrict: each cause is told apart and leaves nothing behind (reference: OpenSSH 9.2). */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { openBridge } from "../../src/forward/remote/bridge.js";
import { connectSsh2 } from "../../src/forward/ssh2/connect.js";
import { createNonceWatch, verifyStream } from "../../src/forward/verify.js";
import { createFakeP11Server } from "../support/fake-p11-server.js";
import { collectedIo, contents, openTestForward, recordingUi, rejection, SLOTS, settingsOf } from "../support/forward.js";
import { type Sshd, type SshdOptions, startSshd } from "../support/sshd.js";

let running: Sshd | null = null;
async function start(options: SshdOptions): Promise<Sshd> {
  running = await startSshd(options);
  return running;
}
afterEach(async () => {
  await running?.dispose();
  running = null;
});

describe("a bastion that refuses the forward", () => {
  const cases: readonly (readonly [string, SshdOptions, string, string, RegExp, RegExp])[] = [
    [
      "AllowStreamLocalForwarding no",
      { config: ["AllowStreamLocalForwarding no"] },
      "E_FORWARD_REFUSED",
      "forward-switched-off",
      /switched off/,
      /AllowStreamLocalForwarding yes/,
    ],
    [
      "AllowStreamLocalForwarding local",
      { config: ["AllowStreamLocalForwarding local"] },
      "E_FORWARD_REFUSED",
      "forward-switched-off",
      /switched off/,
      /AllowStreamLocalForwarding yes/,
    ],
    [
      "DisableForwarding yes",
      { config: ["DisableForwarding yes"] },
      "E_FORWARD_REFUSED",
      "forward-switched-off",
      /switched off/,
      /DisableForwarding/,
    ],
    [
      "AllowTcpForwarding no",
      { config: ["AllowTcpForwarding no"] },
      "E_FORWARD_REFUSED",
      "forward-tcp-off",
      /AllowTcpForwarding no/,
      /AllowTcpForwarding remote/,
    ],
    [
      "AllowTcpForwarding local",
      { config: ["AllowTcpForwarding local"] },
      "E_FORWARD_REFUSED",
      "forward-tcp-off",
      /AllowTcpForwarding/,
      /AllowTcpForwarding remote/,
    ],
    [
      "no-port-forwarding",
      { authorizedKeyOptions: "no-port-forwarding" },
      "E_FORWARD_REFUSED",
      "forward-key-options",
      /your key may not forward/,
      /authorized_keys/,
    ],
    [
      "restrict,pty",
      { authorizedKeyOptions: "restrict,pty" },
      "E_FORWARD_REFUSED",
      "forward-key-options",
      /your key may not forward/,
      /port-forwarding after restrict/,
    ],
    ["MaxSessions 0", { config: ["MaxSessions 0"] }, "E_REMOTE_SHELL", "no-session", /starts no shell/, /MaxSessions/],
    [
      "a ForceCommand that ends",
      { config: ["ForceCommand echo only sftp here; exit 1"] },
      "E_REMOTE_SHELL",
      "command-not-run",
      /only sftp here/,
      /ForceCommand/,
    ],
    [
      "a command= of the key",
      { authorizedKeyOptions: 'command="echo only this"' },
      "E_REMOTE_SHELL",
      "forced-command",
      /only this.*command=/,
      /another key/,
    ],
    [
      "only post-quantum key exchange",
      { config: ["KexAlgorithms sntrup761x25519-sha512@openssh.com"] },
      "E_SSH_UNSUPPORTED",
      "no-common-algorithm",
      /key exchange/,
      /curve25519/,
    ],
  ];
  for (const [name, options, code, reason, message, hint] of cases) {
    it(`is told apart by its cause: ${name}`, async () => {
      const sshd = await start(options);
      const error = await rejection(openTestForward(sshd));
      expect(error).toMatchObject({ code, reason });
      expect(error.message).toMatch(message);
      expect(error.hint).toMatch(hint);
      expect(contents(sshd.runtimeDir)).toEqual([]);
    });
  }
});

describe("a bastion that restricts", () => {
  it("gives a warning and a working forward without a terminal, and an error only when one is required", async () => {
    const sshd = await start({ config: ["PermitTTY no"] });
    const { forward } = await openTestForward(sshd);
    expect(forward.ready).toMatchObject({ pty: false, verified: "rpc" });
    expect(forward.ready.warnings.join()).toMatch(/gives no terminal/);
    expect(await rejection(forward.run(["true"], collectedIo("", { cols: 80, rows: 24, term: "dumb" })))).toMatchObject({
      code: "E_PTY_REFUSED",
    });
    await forward.close();
    expect(await rejection(openTestForward(sshd, { requirePty: true }))).toMatchObject({ code: "E_PTY_REFUSED" });
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("works with one session per connection, runs commands one after the other and cleans up", async () => {
    const sshd = await start({ config: ["MaxSessions 1"] });
    const { forward } = await openTestForward(sshd);
    expect(forward.ready.warnings.join()).toMatch(/MaxSessions 1/);
    for (const code of [3, 4])
      expect(await forward.run(["sh", "-c", `test -S "$TOKENFWD_SOCKET" && exit ${code}`], collectedIo())).toEqual({ code, signal: null });
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("is verified through a program on the bastion where sshd opens no Unix socket for us", async () => {
    const sshd = await start({ config: ["AllowStreamLocalForwarding remote"] });
    const { forward, ui } = await openTestForward(sshd);
    expect(forward.ready.verified).toBe("rpc");
    expect(ui.events.find((event) => event.name === "verify")?.data["via"]).toMatch(/^(nc|socat|perl|python3)$/);
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("is not verified, with the reason as a warning, where nothing can look from the bastion's side", async () => {
    const sshd = await start({ config: ["AllowStreamLocalForwarding remote", "MaxSessions 1"] });
    const { forward } = await openTestForward(sshd);
    expect(forward.ready).toMatchObject({ verified: "no", rttMs: 0 });
    expect(forward.ready.verifiedWhy).toMatch(/AllowStreamLocalForwarding remote.*MaxSessions 1/);
    expect(forward.ready.warnings.join()).toMatch(/could not be verified/);
    await forward.close();
    expect(contents(sshd.runtimeDir)).toEqual([]);
  });

  it("is verified through each of nc, socat, perl and python3", async () => {
    const sshd = await start({ config: ["AllowStreamLocalForwarding remote"] });
    const ui = recordingUi();
    const transport = await connectSsh2({ settings: await settingsOf(sshd), ui, signal: new AbortController().signal });
    const agent = createFakeP11Server({ slots: SLOTS });
    const watch = createNonceWatch();
    const path = `${sshd.runtimeDir}/a.sock`;
    expect(
      (await transport.listenRemote(path, (stream) => agent.attach(stream).onFirstFrameOptions((options) => watch.seen(options)))).ok,
    ).toBe(true);
    for (const tool of ["nc", "socat", "perl", "python3"] as const) {
      const bridge = await openBridge(transport, tool, path);
      if ("reason" in bridge) throw new Error(`${tool}: ${bridge.reason}`);
      expect({ tool, ...(await verifyStream(bridge.stream, watch, SLOTS)) }).toMatchObject({ tool, passed: true });
    }
    await transport.end();
  });

  for (const shell of ["dash", "bash", "csh", "tcsh", "fish"]) {
    it(`works behind the login shell ${shell} that prints noise`, async () => {
      const sshd = await start({
        config: [`ForceCommand echo 'noise=1'; printf 'no line end'; echo err >&2; exec ${shell} -c "$SSH_ORIGINAL_COMMAND"`],
      });
      const { forward } = await openTestForward(sshd);
      expect(forward.ready).toMatchObject({ verified: "rpc", pty: true });
      const io = collectedIo();
      expect((await forward.run(["printf", "<%s>", "a!b'\\\"\n $HOME"], io)).code).toBe(0);
      expect(io.out().toString()).toBe("noise=1\nno line end<a!b'\\\"\n $HOME>");
      await forward.close();
      expect(contents(sshd.runtimeDir)).toEqual([]);
    });
  }

  it("has its banner made printable before anybody sees it", async () => {
    const directory = mkdtempSync(join(tmpdir(), "tfwd-banner-"));
    writeFileSync(join(directory, "banner"), "\u001b]0;owned\u0007hello\u202e\n");
    try {
      const hostile = await start({ config: [`Banner ${join(directory, "banner")}`] });
      const { forward, ui } = await openTestForward(hostile);
      const shown = ui.events.flatMap((event) => (typeof event.data["banner"] === "string" ? [event.data["banner"]] : []));
      expect(shown.join()).toContain("hello");
      expect(shown.join()).not.toMatch(/[\p{Cc}\p{Cf}]/u);
      await forward.close();
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
