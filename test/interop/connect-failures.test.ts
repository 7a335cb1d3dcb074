/*
 * What stands between a workstation and a bastion, one row each, through the real command and a real sshd: the exit status, one error
 * with a hint, and nothing left on the bastion (looked for by our mark and by owner).
 */
import { spawn } from "node:child_process";
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ownTmp } from "../support/own-mounts.js";
import { makeSshKey, type Sshd, type SshdOptions } from "../support/sshd.js";
import { P11KIT_CLIENT as CLIENT } from "./agent-process.js";
import { runCli } from "./cli-process.js";
import { connectScene } from "./connect-scene.js";

const root = process.getuid?.() === 0;
const scene = connectScene();

interface Refused {
  readonly name: string;
  readonly code: string;
  readonly cause: string;
  readonly status: number;
  readonly message: RegExp;
  readonly hint: RegExp;
  readonly sshd?: SshdOptions;
  readonly destination?: string;
  /** Further words, and what is done to the bastion first. Answers what has to be there afterwards. */
  prepare?(bastion: Sshd): { options?: readonly string[]; kept?: readonly string[] };
  readonly needsRoot?: boolean;
}

const knownHosts = (text: string, mode: string) => {
  writeFileSync(join(scene.dir, "known"), text);
  return [`UserKnownHostsFile=${join(scene.dir, "known")}`, `StrictHostKeyChecking=${mode}`].flatMap((option) => ["--ssh-option", option]);
};
const name = (bastion: Sshd) => `[127.0.0.1]:${bastion.port}`;

const LONG = join(tmpdir(), `tfwd-${"x".repeat(90)}`);
const ROWS: readonly Refused[] = [
  ...["yes", "accept-new", "no"].map((mode) => ({
    name: `a changed host key, StrictHostKeyChecking ${mode}`,
    code: "E_HOST_KEY_CHANGED",
    cause: "host-key-changed",
    status: 11,
    message: /has changed: it is ssh-ed25519 SHA256:/,
    hint: /known line 1.*ssh-keygen -R/,
    prepare(bastion: Sshd) {
      makeSshKey(join(scene.dir, "other"));
      return { options: knownHosts(`${name(bastion)} ${readFileSync(join(scene.dir, "other.pub"), "utf8")}`, mode) };
    },
  })),
  ...["yes", "ask"].map((mode) => ({
    name: `an unknown host key and nobody to ask, StrictHostKeyChecking ${mode}`,
    code: "E_HOST_KEY_UNKNOWN",
    cause: "host-key-unknown",
    status: 11,
    message: /is not known \(ssh-ed25519 SHA256:/,
    hint: /compare the fingerprint/,
    prepare: () => ({ options: knownHosts("", mode) }),
  })),
  {
    name: "a revoked host key",
    code: "E_HOST_KEY_CHANGED",
    cause: "host-key-revoked",
    status: 11,
    message: /is revoked/,
    hint: /line 1 revokes it/,
    prepare: (bastion) => ({ options: knownHosts(`@revoked * ${bastion.hostKeyLine}\n`, "accept-new") }),
  },
  {
    name: "a host key that a certificate authority vouches for",
    code: "E_SSH_UNSUPPORTED",
    cause: "host-key-authority",
    status: 10,
    message: /@cert-authority/,
    hint: /plain key/,
    prepare: (bastion) => ({ options: knownHosts(`@cert-authority * ${bastion.hostKeyLine}\n`, "accept-new") }),
  },
  {
    name: "a file of revoked host keys, which is not passed over",
    code: "E_SSH_UNSUPPORTED",
    cause: "ssh-setting",
    status: 10,
    message: /RevokedHostKeys/,
    hint: /@revoked/,
    prepare: (bastion) => ({ options: ["--ssh-option", `RevokedHostKeys=${bastion.knownHosts}`] }),
  },
  {
    name: "a user that is not there",
    code: "E_SSH_AUTH",
    cause: "login-key-refused",
    status: 10,
    message: /did not accept nobody-of-that-name: tried publickey/,
    hint: /-i KEY/,
    destination: "nobody-of-that-name@bastion",
  },
  {
    name: "a key without permission",
    code: "E_SSH_AUTH",
    cause: "login-key-refused",
    status: 10,
    message: /did not accept/,
    hint: /authorized_keys/,
    prepare(bastion) {
      writeFileSync(bastion.authorizedKeys, "");
      return {};
    },
  },
  {
    name: "a directory that belongs to somebody else",
    code: "E_RUNTIME_DIR",
    cause: "runtime-dir-foreign",
    status: 12,
    message: /tokenfwd on the bastion belongs to somebody else/,
    hint: /ls -ld .*mode 0700/,
    needsRoot: true,
    prepare(bastion) {
      mkdirSync(join(bastion.runtimeDir, "tokenfwd"), { mode: 0o700 });
      chownSync(join(bastion.runtimeDir, "tokenfwd"), 65534, 65534);
      return {};
    },
  },
  {
    name: "a directory that is open to others",
    code: "E_RUNTIME_DIR",
    cause: "runtime-dir-open",
    status: 12,
    message: /is open to others/,
    hint: /mode 0700/,
    prepare(bastion) {
      mkdirSync(join(bastion.runtimeDir, "tokenfwd"));
      chmodSync(join(bastion.runtimeDir, "tokenfwd"), 0o755);
      return { kept: [join(bastion.runtimeDir, "tokenfwd")] };
    },
  },
  {
    name: "a missing runtime directory, and none that may be made",
    code: "E_RUNTIME_DIR",
    cause: "no-runtime-dir",
    status: 12,
    message: /XDG_RUNTIME_DIR is missing; .*\/tmp\/tokenfwd-0 is not a directory/,
    hint: /ls -ld \/tmp\/tokenfwd-0/,
    needsRoot: true,
    sshd: { within: ownTmp(": > /tmp/tokenfwd-0"), setEnv: { XDG_RUNTIME_DIR: "/nowhere" } },
  },
  {
    name: "a path that is too long",
    code: "E_PATH_TOO_LONG",
    cause: "path-too-long",
    status: 12,
    message: /bytes long and 107 fit/,
    hint: /shorter directory/,
    sshd: { setEnv: { XDG_RUNTIME_DIR: LONG } },
    prepare() {
      mkdirSync(LONG, { mode: 0o700 });
      scene.cleanUps.push(() => rmSync(LONG, { recursive: true, force: true }));
      return {};
    },
  },
  {
    name: "AllowStreamLocalForwarding no",
    code: "E_FORWARD_REFUSED",
    cause: "forward-switched-off",
    status: 12,
    message: /forwarding of Unix sockets is switched off/,
    hint: /AllowStreamLocalForwarding yes/,
    sshd: { config: ["AllowStreamLocalForwarding no"] },
  },
  {
    name: "-t where there is no terminal",
    code: "E_PTY_REFUSED",
    cause: "no-terminal",
    status: 12,
    message: /gives no terminal/,
    hint: /-t away/,
    sshd: { config: ["PermitTTY no"] },
    prepare: () => ({ options: ["-t"] }),
  },
];

describe("a bastion that cannot be used ends in one error with a hint, and nothing is left there:", () => {
  for (const row of ROWS) {
    test.skipIf(row.needsRoot === true && !root)(`${row.name}: ${row.code} ${row.status}`, async () => {
      const bastion = await scene.bastion(row.sshd);
      const { options = [], kept = [] } = row.prepare?.(bastion) ?? {};
      const known = existsSync(join(scene.dir, "known")) ? readFileSync(join(scene.dir, "known"), "utf8") : null;
      // With CMD the status is 255, and CMD must not run.
      const ran = join(scene.dir, "ran");
      const withCommand = await runCli(scene.words(bastion, [...options, "--", "touch", ran], row.destination), { env: scene.env });
      expect(withCommand).toMatchObject({ code: 255, stdout: Buffer.alloc(0) });
      expect(withCommand.stderr).toContain(`[${row.code} ${row.status}]`);
      expect(existsSync(ran)).toBe(false);
      const forCommand = options.filter((word) => word !== "-t");
      if (forCommand.length === options.length) {
        const plain = await runCli(scene.words(bastion, [...options, "--json"], row.destination), { env: scene.env });
        expect(plain.code).toBe(row.status);
        const events = plain.stdout
          .toString()
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as Record<string, unknown>);
        expect(events.filter((one) => one["event"] === "error")).toMatchObject([
          {
            code: row.code,
            cause: row.cause,
            exitCode: row.status,
            message: expect.stringMatching(row.message) as string,
            hint: expect.stringMatching(row.hint) as string,
          },
        ]);
        expect(events.at(-1)).toMatchObject({ event: "closed", exitCode: row.status });
      }
      expect(withCommand.stderr.match(/^hint: .*$/gm)).toEqual([expect.stringMatching(row.hint)]);
      expect(known === null ? null : readFileSync(join(scene.dir, "known"), "utf8")).toBe(known);
      // The key may have lost its permission for the row; looking needs it.
      writeFileSync(bastion.authorizedKeys, readFileSync(`${bastion.identityFile}.pub`));
      expect(scene.left(bastion)).toEqual(kept);
    });
  }
});

describe("what lives on the bastion already", () => {
  test("another p11-kit server on our path is a squatter: 13, and it is kept", async () => {
    const bastion = await scene.bastion({ config: ["StreamLocalBindUnlink yes"] });
    const ours = join(bastion.runtimeDir, "tokenfwd", scene.mark);
    mkdirSync(ours, { recursive: true, mode: 0o700 });
    chmodSync(join(bastion.runtimeDir, "tokenfwd"), 0o700);
    const path = join(ours, "p11.sock");
    const server = spawn("p11-kit", ["server", "-f", "-n", path, "--provider", scene.token.modulePath, "pkcs11:"], {
      env: scene.token.env,
    });
    scene.cleanUps.push(() => {
      server.kill("SIGKILL");
    });
    await new Promise<void>((resolve) => server.stdout?.once("data", () => resolve()));
    const inode = lstatSync(path).ino;
    const ended = await runCli(scene.words(bastion, []), { env: scene.env });
    expect(ended.code).toBe(13);
    expect(ended.stderr).toContain("[E_SOCKET_FOREIGN 13]");
    expect(ended.stderr).toMatch(/^hint: .*fuser/m);
    expect(lstatSync(path).ino).toBe(inode);
    expect(server.exitCode).toBe(null);
  });

  test("a live foreign socket at the well-known path is left alone, and the line to export is printed and works", async () => {
    const bastion = await scene.bastion();
    mkdirSync(join(bastion.runtimeDir, "p11-kit"), { mode: 0o700 });
    const known = join(bastion.runtimeDir, "p11-kit", "pkcs11");
    const foreign = createServer((socket) => scene.cleanUps.push(() => socket.destroy()));
    await new Promise<void>((resolve) => foreign.listen(known, resolve));
    scene.cleanUps.push(() => new Promise((resolve) => foreign.close(resolve)));
    const inode = lstatSync(known).ino;
    const cli = scene.start(bastion);
    await cli.untilStderr(/until this command ends/);
    const line = /(export P11_KIT_SERVER_ADDRESS='unix:path=[^']+')/.exec(cli.stderr())?.[1] ?? "exit 1";
    expect(scene.onBastion(bastion, `${line}; pkcs11-tool --module ${CLIENT} -L`).stdout).toContain(scene.token.label);
    cli.child.kill("SIGINT");
    expect((await cli.exited).code).toBe(0);
    expect(lstatSync(known).ino).toBe(inode);
    expect(scene.left(bastion)).toEqual([join(bastion.runtimeDir, "p11-kit"), known]);
  });
});

describe("a bastion that restricts works and warns:", () => {
  const rows: readonly (readonly [string, SshdOptions, RegExp | null])[] = [
    ["PermitTTY no", { config: ["PermitTTY no"] }, /warning: the bastion gives no terminal .*--shell/],
    ["MaxSessions 1", { config: ["MaxSessions 1"] }, /warning: the bastion allows one session/],
    ["AllowStreamLocalForwarding remote", { config: ["AllowStreamLocalForwarding remote"] }, null],
    [
      "AllowStreamLocalForwarding remote and MaxSessions 1",
      { config: ["AllowStreamLocalForwarding remote", "MaxSessions 1"] },
      /warning: the socket could not be verified/,
    ],
  ];
  for (const [what, options, warning] of rows) {
    test(what, async () => {
      const bastion = await scene.bastion(options);
      const script = `test -S "$TOKENFWD_SOCKET" && echo "$P11_KIT_SERVER_ADDRESS"; pkcs11-tool --module ${CLIENT} -L; exit 5`;
      const ended = await runCli(scene.words(bastion, ["--", "sh", "-c", script]), { env: scene.env });
      expect(ended.code).toBe(5);
      expect(ended.stdout.toString()).toContain(`unix:path=${bastion.runtimeDir}/tokenfwd/${scene.mark}/p11.sock\n`);
      expect(ended.stdout.toString()).toContain(scene.token.label);
      if (warning !== null) expect(ended.stderr).toMatch(warning);
      expect(scene.left(bastion)).toEqual([]);
    });
  }

  test.skipIf(!root)("no runtime directory at all: /tmp/tokenfwd-UID, no well-known path, and the line to export", async () => {
    const bastion = await scene.bastion({ within: ownTmp(":"), setEnv: { XDG_RUNTIME_DIR: null } });
    const cli = scene.start(bastion, "--json");
    const ready = await cli.untilEvent("ready");
    expect(ready).toMatchObject({ remoteSocket: `/tmp/tokenfwd-0/tokenfwd/${scene.mark}/p11.sock`, wellKnown: "none", verified: "rpc" });
    const line = `P11_KIT_SERVER_ADDRESS='${String(ready["address"])}'`;
    expect(scene.onBastion(bastion, `${line} pkcs11-tool --module ${CLIENT} -L`).stdout).toContain(scene.token.label);
    cli.child.kill("SIGINT");
    expect((await cli.exited).code).toBe(0);
    expect(scene.onBastion(bastion, "ls -A /tmp").stdout).not.toContain("tokenfwd-0");
    expect(scene.left(bastion)).toEqual([]);
  });
});
