/*
 * The faults of the bastion behind its shell, each made for real: directories, sockets, what sshd and the key allow to forward, p11-kit.
 * What cannot be made here stands as a unit test of the facts (test/unit/doctor).
 */
import { spawn } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DoctorFault } from "./doctor-fault.js";
import type { DoctorStage, DoctorWords } from "./doctor-stage.js";
import { choriaConfig, fails, ssh, warns } from "./doctor-words.js";
import { startProxy } from "./forward.js";
import { ownTmp, readOnlyRuntimeDir, without } from "./own-mounts.js";
import { deadSocket, startStranger } from "./strange-sockets.js";

async function stranger(stage: DoctorStage, path: string, answers = true): Promise<DoctorWords> {
  const started = await startStranger(path, answers);
  stage.defer(() => started.dispose());
  return {};
}

/** A real `p11-kit server` of the stage's token. */
async function p11KitServer(stage: DoctorStage, path: string): Promise<DoctorWords> {
  const server = spawn("p11-kit", ["server", "-f", "-n", path, "--provider", stage.token.modulePath, "pkcs11:"], { env: stage.token.env });
  const ended = new Promise((resolve) => server.once("close", resolve));
  stage.defer(() => {
    server.kill("SIGKILL");
    return ended;
  });
  await new Promise<void>((resolve) => server.stdout.once("data", () => resolve()));
  return {};
}

const LONG = join(tmpdir(), `tfwd-${"y".repeat(90)}`);
const NOBODY = 65_534;
const MODULES = "/usr/lib/x86_64-linux-gnu/pkcs11";
const LOOKERS = ["/usr/bin/perl", "/usr/bin/python3", "/usr/local/bin/python3", "/usr/bin/nc", "/usr/bin/socat"];

/** Where the socket goes, and what lies there. */
const PLACES: readonly DoctorFault[] = [
  {
    name: "no runtime directory",
    ...warns("runtime-dir", "runtime-dir-tmp", /pam_systemd/),
    needsRoot: true,
    fast: true,
    sshd: { within: ownTmp(":"), setEnv: { XDG_RUNTIME_DIR: null } },
  },
  {
    name: "a foreign runtime directory",
    ...warns("runtime-dir", "runtime-dir-tmp", /pam_systemd/),
    needsRoot: true,
    sshd: { within: ownTmp(`chown ${NOBODY} "$d/run"`) },
  },
  {
    name: "a missing runtime directory, and none that may be made",
    ...fails("runtime-dir", "no-runtime-dir", 12, /ls -ld \/tmp\/tokenfwd-0/),
    needsRoot: true,
    fast: true,
    sshd: { within: ownTmp(": > /tmp/tokenfwd-0"), setEnv: { XDG_RUNTIME_DIR: "/nowhere" } },
  },
  {
    name: "a read-only runtime directory",
    ...fails("runtime-dir", "runtime-dir-read-only", 12, /ls -ld/),
    needsRoot: true,
    fast: true,
    sshd: { within: readOnlyRuntimeDir },
  },
  {
    name: "a directory of ours that is somebody else's",
    ...fails("runtime-dir", "runtime-dir-foreign", 12, /yours/),
    needsRoot: true,
    fast: true,
    make({ sshd }) {
      mkdirSync(join(sshd.runtimeDir, "tokenfwd"), { mode: 0o700 });
      chownSync(join(sshd.runtimeDir, "tokenfwd"), NOBODY, NOBODY);
      return {};
    },
  },
  {
    name: "a directory of ours that is open to others",
    ...fails("runtime-dir", "runtime-dir-open", 12, /mode 0700/),
    make({ sshd }) {
      mkdirSync(join(sshd.runtimeDir, "tokenfwd"));
      chmodSync(join(sshd.runtimeDir, "tokenfwd"), 0o755);
      return {};
    },
  },
  {
    name: "a path that is too long",
    ...fails("path", "path-too-long", 12, /shorter directory/),
    fast: true,
    sshd: { setEnv: { XDG_RUNTIME_DIR: LONG } },
    make(stage) {
      mkdirSync(LONG, { mode: 0o700 });
      stage.defer(() => rmSync(LONG, { recursive: true, force: true }));
      return {};
    },
  },
  {
    name: "a stale socket, which connect replaces",
    ...warns("socket", "stale-socket", /nothing is to be done/),
    fast: true,
    async make(stage) {
      await deadSocket(stage.ours("p11.sock"));
      return {};
    },
  },
  {
    name: "a stale socket that nothing can tell from a live one",
    ...fails("socket", "socket-doubtful", 13, /fuser/),
    needsRoot: true,
    sshd: { config: ["AllowStreamLocalForwarding remote"], within: without([], LOOKERS) },
    async make(stage) {
      await deadSocket(stage.ours("p11.sock"));
      return {};
    },
  },
  {
    name: "a live foreign socket on our path",
    ...fails("socket", "socket-foreign", 13, /fuser/),

    make: (stage) => stranger(stage, stage.ours("p11.sock")),
  },
  {
    name: "a foreign p11-kit server on our path",
    ...fails("socket", "socket-foreign", 13, /fuser/),
    fast: true,
    detail: /process \d+ p11-kit/,
    make: (stage) => p11KitServer(stage, stage.ours("p11.sock")),
  },
  {
    name: "a file on our path",
    ...fails("socket", "socket-is-none", 13, /rm -r/),
    make(stage) {
      writeFileSync(stage.ours("p11.sock"), "");
      return {};
    },
  },
  {
    name: "a live foreign socket where stock programs look",
    ...warns("well-known", "path-in-use", /fuser/),
    fast: true,
    make: (stage) => stranger(stage, stage.p11Kit("pkcs11")),
  },
  {
    name: "a p11-kit server where stock programs look",
    ...warns("well-known", "path-in-use", /P11_KIT_SERVER_ADDRESS/),
    detail: /process \d+ p11-kit/,
    make: (stage) => p11KitServer(stage, stage.p11Kit("pkcs11")),
  },
  {
    name: "a file where stock programs look",
    ...warns("well-known", "path-unfit", /ls -ld/),
    make(stage) {
      writeFileSync(stage.p11Kit("pkcs11"), "");
      return {};
    },
  },
  {
    name: "a variable that outweighs the path",
    ...warns("address", "address-set", /SetEnv/),
    sshd: { setEnv: { P11_KIT_SERVER_ADDRESS: "unix:path=/run/old" } },
  },
  {
    name: "a start file that names another socket",
    ...warns("address", "address-in-start-file", /grep -n P11_KIT_SERVER_ADDRESS .*profile/),
    make({ bastionHome }) {
      writeFileSync(join(bastionHome, ".profile"), "export P11_KIT_SERVER_ADDRESS=unix:path=/run/old\n");
      return {};
    },
  },
  {
    name: "a choria configuration on the bastion in the wrong syntax",
    ...fails("choria-there", "syntax", 50, /plugin\.choria\.srv_domain = example\.net/),
    connectGoesOn: true,
    make({ bastionHome, token }) {
      writeFileSync(join(bastionHome, ".choriarc"), `${choriaConfig(token)}plugin.choria.srv_domain: "example.net"\n`, { mode: 0o600 });
      return {};
    },
  },
  {
    name: "no p11-kit on the bastion",
    ...warns("p11-kit", "no-client-module", /p11-kit-modules/),
    needsRoot: true,
    fast: true,
    sshd: { within: without([MODULES]) },
  },
  {
    name: "a left-over RemoteForward",
    ...warns("stale-forward", "left-over-forward", /delete this line/),
    fast: true,
    make: () => ssh("RemoteForward=/run/user/1000/p11-kit/pkcs11 /run/user/1000/p11-kit/pkcs11"),
  },
];

/** Whether sshd makes the socket, and opens it. */
const FORWARDING: readonly DoctorFault[] = [
  ...(["AllowStreamLocalForwarding no", "AllowStreamLocalForwarding local", "DisableForwarding yes"] as const).map(
    (line): DoctorFault => ({
      name: line,
      ...fails("forward", "forward-switched-off", 12, /AllowStreamLocalForwarding yes/),
      ...(line === "AllowStreamLocalForwarding no" ? { fast: true as const } : {}),
      sshd: { config: [line] },
    }),
  ),
  ...(["no-port-forwarding", "restrict", "restrict,pty"] as const).map(
    (options): DoctorFault => ({
      name: `the key's option ${options}`,
      ...fails("forward", "forward-key-options", 12, /authorized_keys/),
      ...(options === "no-port-forwarding" ? { fast: true as const } : {}),
      sshd: { authorizedKeyOptions: options },
    }),
  ),
  {
    // The issue has this one as a warning; OpenSSH 9.2 refuses the socket.
    name: "AllowTcpForwarding no alone",
    ...fails("forward", "forward-tcp-off", 12, /AllowTcpForwarding remote/),
    fast: true,
    sshd: { config: ["AllowTcpForwarding no"] },
  },
  {
    name: "AllowStreamLocalForwarding remote",
    ...warns("verify", "opened-otherwise", /AllowStreamLocalForwarding yes/),
    fast: true,

    sshd: { config: ["AllowStreamLocalForwarding remote"] },
  },
  {
    name: "a proxy that holds small packets back",
    ...warns("latency", "packets-held", /TCP_NODELAY/),
    fast: true,
    async make(stage) {
      // Node leaves Nagle on; sshd behind it does not.
      const proxy = await startProxy(stage.sshd.port);
      stage.defer(() => proxy.dispose());
      return { options: ["-p", String(proxy.port), "--ssh-option", `HostKeyAlias=[127.0.0.1]:${stage.sshd.port}`] };
    },
  },
];

/** Every fault of the socket's place and of the forward. */
export const PLACE_FAULTS: readonly DoctorFault[] = [...PLACES, ...FORWARDING];
