/*
 * The faults between the workstation and a shell on the bastion, each made for real: names, ports, host keys, keys, login shells. No
 * fault may touch this machine's own accounts or network.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import type { DoctorFault } from "./doctor-fault.js";
import type { DoctorStage, DoctorWords } from "./doctor-stage.js";
import { fails, ssh, warns } from "./doctor-words.js";
import { ownShell } from "./own-mounts.js";
import { makeSshKey } from "./sshd.js";
import { startBlackHole } from "./strange-sockets.js";

/** known_hosts of the stage's own. */
function knownHosts(stage: DoctorStage, text: string, strict: string): DoctorWords {
  const path = join(stage.dir, "known");
  writeFileSync(path, text);
  return ssh(`UserKnownHostsFile=${path}`, `StrictHostKeyChecking=${strict}`);
}

async function listening(stage: DoctorStage): Promise<number> {
  const server = createServer((socket) => socket.on("error", () => {}).resume());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stage.defer(() => new Promise((resolve) => server.close(resolve)));
  return (server.address() as { port: number }).port;
}

/** sshd and what is before it. */
const REACHING: readonly DoctorFault[] = [
  {
    name: "a name that nobody knows",
    ...fails("resolve", "name-unknown", 10, /spelling/),
    make: () => ssh("HostName=bastion.invalid"),
  },
  {
    name: "a closed port",
    ...fails("tcp", "port-closed", 10, /is sshd running there/),
    fast: true,
    make: () => ({ options: ["-p", "1"] }),
  },
  {
    name: "a black hole",
    ...fails("tcp", "host-silent", 10, /firewall/),
    fast: true,
    async make(stage) {
      const hole = await startBlackHole();
      stage.defer(() => hole.dispose());
      return { options: ["-p", String(hole.port), "--ssh-option", "ConnectTimeout=2"] };
    },
  },
  {
    name: "a port at which no SSH server answers",
    ...fails("handshake", "ssh-silent", 10, /firewall/),
    make: async (stage) => ({ options: ["-p", String(await listening(stage)), "--ssh-option", "ConnectTimeout=1"] }),
  },
  {
    name: "post-quantum key exchange alone",
    ...fails("handshake", "no-common-algorithm", 10, /curve25519/),
    sshd: { config: ["KexAlgorithms sntrup761x25519-sha512@openssh.com"] },
  },
  {
    name: "a setting that this version cannot do",
    ...fails("ssh-config", "ssh-setting", 10, /ProxyJump/),
    make: () => ssh("ProxyCommand=nc %h %p"),
  },
  {
    name: "a configuration that leaves no algorithm of ours",
    ...fails("ssh-config", "ssh-setting", 10, /allow one of/),
    make: () => ssh("KexAlgorithms=sntrup761x25519-sha512@openssh.com"),
  },
  {
    name: "an unknown host key",
    ...fails("host-key", "host-key-unknown", 11, /compare the fingerprint/),
    fast: true,
    make: (stage) => knownHosts(stage, "", "ask"),
  },
  {
    name: "a changed host key",
    ...fails("host-key", "host-key-changed", 11, /ssh-keygen -R/),
    fast: true,
    make(stage) {
      makeSshKey(join(stage.dir, "other"));
      return knownHosts(stage, `[127.0.0.1]:${stage.sshd.port} ${readFileSync(join(stage.dir, "other.pub"), "utf8")}`, "accept-new");
    },
  },
  {
    name: "a revoked host key",
    ...fails("host-key", "host-key-revoked", 11, /revokes it/),
    make: (stage) => knownHosts(stage, `@revoked * ${stage.sshd.hostKeyLine}\n`, "accept-new"),
  },
  {
    name: "a host key that an authority vouches for",
    ...fails("host-key", "host-key-authority", 10, /plain key/),
    make: (stage) => knownHosts(stage, `@cert-authority * ${stage.sshd.hostKeyLine}\n`, "accept-new"),
  },
  {
    name: "a wrong user",
    ...fails("login", "login-key-refused", 10, /-i KEY/),
    fast: true,
    make: () => ({ destination: "nobody-of-that-name@bastion" }),
  },
  {
    name: "no key that is accepted",
    ...fails("login", "login-key-refused", 10, /authorized_keys/),

    make(stage) {
      writeFileSync(stage.sshd.authorizedKeys, "");
      return {};
    },
  },
  {
    name: "nothing to log in with",
    ...fails("login", "login-nothing-to-try", 10, /ssh-add/),
    make(stage) {
      rmSync(stage.sshd.identityFile);
      return {};
    },
  },
  {
    name: "more keys than the server lets try",
    ...fails("login", "login-too-many-keys", 10, /IdentitiesOnly/),
    sshd: { config: ["MaxAuthTries 1"] },
    make(stage) {
      const keys = [0, 1, 2].map((number) => join(stage.dir, `key${number}`));
      for (const key of keys) makeSshKey(key);
      return ssh(...keys.map((key) => `IdentityFile=${key}`));
    },
  },
];

/** What the account gives. */
const SHELLS: readonly DoctorFault[] = [
  {
    name: "MaxSessions 0",
    ...fails("remote-shell", "no-session", 12, /MaxSessions/),
    sshd: { config: ["MaxSessions 0"] },
  },
  {
    name: "ForceCommand",
    ...fails("remote-shell", "command-not-run", 12, /ForceCommand/),
    fast: true,
    sshd: { config: ["ForceCommand echo only sftp here; exit 1"] },
  },
  {
    name: "a forced command of the key",
    ...fails("remote-shell", "forced-command", 12, /command=/),
    fast: true,
    sshd: { authorizedKeyOptions: 'command="echo only this"' },
  },
  {
    name: "nologin",
    ...fails("remote-shell", "command-not-run", 12, /nologin/),
    needsRoot: true,
    sshd: { within: ownShell("/usr/sbin/nologin") },
  },
  {
    name: "a login shell that prints without end",
    ...fails("remote-shell", "shell-prints-without-end", 12, /login script/),
    needsRoot: true,
    sshd: { within: ownShell("#!/bin/sh\nexec yes") },
  },
  {
    name: "a login shell that prints",
    ...warns("remote-shell", "shell-prints", /start file/),
    needsRoot: true,
    fast: true,
    sshd: { within: ownShell('#!/bin/sh\necho "Welcome to the bastion"\nexec /bin/sh "$@"') },
  },
  {
    name: "csh as login shell",
    needsFile: "/bin/csh",
    ...warns("login-shell", "shell-csh", /setenv/),
    needsRoot: true,
    fast: true,
    sshd: { within: ownShell("/bin/csh") },
  },
  {
    name: "fish as login shell",
    needsFile: "/usr/bin/fish",
    ...warns("login-shell", "shell-fish", /set -x/),
    needsRoot: true,
    sshd: { within: ownShell("/usr/bin/fish") },
  },
  {
    name: "MaxSessions 1",
    ...warns("sessions", "one-session", /MaxSessions/),
    fast: true,
    sshd: { config: ["MaxSessions 1"] },
  },
  {
    name: "PermitTTY no",
    ...warns("terminal", "no-terminal", /PermitTTY yes/),
    fast: true,
    sshd: { config: ["PermitTTY no"] },
  },
];

/** Every fault on the way to a shell. */
export const LOGIN_FAULTS: readonly DoctorFault[] = [...REACHING, ...SHELLS];
