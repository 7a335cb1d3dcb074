/*
 * A real OpenSSH server on a free loopback port, with its own configuration, host keys and authorized key, all in one
 * temporary directory. It must never read or change this machine's own sshd or ssh configuration, and leaves nothing.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { freePort } from "./free-port.js";

export interface SshdOptions {
  /** Lines of sshd_config that go before ours (the first value wins in sshd). */
  readonly config?: readonly string[];
  /** Options in front of the key in authorized_keys, such as `no-port-forwarding`. */
  readonly authorizedKeyOptions?: string;
  /** Environment of every session. XDG_RUNTIME_DIR is `runtimeDir` unless named here; null leaves a variable out. */
  readonly setEnv?: Readonly<Record<string, string | null>>;
  /** The login in the client configuration; ours by default. */
  readonly user?: string;
  /** Words in front of sshd, such as `ip netns exec NAME`; they must end in an exec, so that the process stays the same. */
  readonly within?: readonly string[];
  /** Where it listens, 127.0.0.1 by default. The client configuration calls the first `bastion`, the others `bastion-2` and on. */
  readonly addresses?: readonly string[];
}

export interface Sshd {
  readonly port: number;
  readonly user: string;
  /** Holds everything below; gone after dispose. */
  readonly dir: string;
  /** 0700, ours: what sessions see as XDG_RUNTIME_DIR. */
  readonly runtimeDir: string;
  /** `SHA256:...` of the ed25519 host key. */
  readonly hostKey: string;
  /** `ssh-ed25519 AAAA...` of the host key. */
  readonly hostKeyLine: string;
  /** An ed25519 private key that the server accepts. */
  readonly identityFile: string;
  readonly authorizedKeys: string;
  /** A known_hosts file that holds the ed25519 host key. */
  readonly knownHosts: string;
  /** A client configuration for `ssh -F`, with `Host bastion`. */
  readonly sshConfig: string;
  readonly pid: number;
  /** What the server has logged so far (LogLevel VERBOSE). */
  log(): string;
  /** Stops the server with all its sessions and removes `dir`. */
  dispose(): Promise<void>;
}

/** Runs a program to its end and answers what it printed. */
function output(file: string, args: readonly string[]): string {
  return execFileSync(file, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Makes a key pair without a question. `passphrase` may be empty. */
export function makeSshKey(path: string, type: "ed25519" | "ecdsa" | "rsa" = "ed25519", passphrase = ""): void {
  output("ssh-keygen", ["-q", "-t", type, "-N", passphrase, "-C", "tokenfwd test", "-f", path]);
}

/** The process and all below it, from /proc. */
function descendants(pid: number): number[] {
  const parents = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      parents.set(parent, [...(parents.get(parent) ?? []), Number(name)]);
    } catch {
      // It ended while we looked.
    }
  }
  const found = [pid];
  for (let i = 0; i < found.length; i++) found.push(...(parents.get(found[i] ?? -1) ?? []));
  return found;
}

async function launch(within: readonly string[], configFile: string, logged: { text: string }): Promise<ChildProcess | null> {
  const [program = "", ...args] = [...within, "/usr/sbin/sshd", "-D", "-e", "-f", configFile];
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", () => {
      if (/Address already in use/.test(logged.text)) resolve(null);
      else reject(new Error(`sshd did not start: ${logged.text}`));
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      logged.text += chunk.toString("utf8");
      if (/Server listening on/.test(logged.text)) resolve(child);
    });
  });
}

/** Starts a server; always `await dispose()` it. */
export async function startSshd(options: SshdOptions = {}): Promise<Sshd> {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-sshd-"));
  const file = (name: string) => join(dir, name);
  const user = options.user ?? userInfo().username;
  const addresses = options.addresses ?? ["127.0.0.1"];
  const runtimeDir = file("run");
  mkdirSync(runtimeDir, { mode: 0o700 });
  chmodSync(runtimeDir, 0o700);
  // Privilege separation wants this directory; Debian's service would have made it.
  if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });

  makeSshKey(file("host_ed25519"), "ed25519");
  makeSshKey(file("host_ecdsa"), "ecdsa");
  makeSshKey(file("id_ed25519"), "ed25519");
  const hostKeyLine = readFileSync(file("host_ed25519.pub"), "utf8").split(" ").slice(0, 2).join(" ");
  const hostKey = output("ssh-keygen", ["-l", "-E", "sha256", "-f", file("host_ed25519.pub")]).split(" ")[1] ?? "";
  const prefix = options.authorizedKeyOptions === undefined ? "" : `${options.authorizedKeyOptions} `;
  writeFileSync(file("authorized_keys"), `${prefix}${readFileSync(file("id_ed25519.pub"), "utf8")}`, { mode: 0o600 });

  const environment = Object.entries({ XDG_RUNTIME_DIR: runtimeDir, ...options.setEnv })
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `"${name}=${value}"`);
  const logged = { text: "" };
  let child: ChildProcess | null = null;
  let port = 0;
  for (let attempt = 0; child === null && attempt < 5; attempt++) {
    port = await freePort();
    logged.text = "";
    const lines = [
      ...(options.config ?? []),
      `Port ${port}`,
      ...addresses.map((address) => `ListenAddress ${address}`),
      `HostKey ${file("host_ed25519")}`,
      `HostKey ${file("host_ecdsa")}`,
      `AuthorizedKeysFile ${file("authorized_keys")}`,
      "StrictModes no",
      "UsePAM no",
      "PasswordAuthentication no",
      "KbdInteractiveAuthentication no",
      "PermitRootLogin yes",
      "PidFile none",
      "LogLevel VERBOSE",
      "MaxStartups 200",
      "PrintMotd no",
      "PrintLastLog no",
      ...(environment.length > 0 ? [`SetEnv ${environment.join(" ")}`] : []),
    ];
    writeFileSync(file("sshd_config"), `${lines.join("\n")}\n`);
    child = await launch(options.within ?? [], file("sshd_config"), logged);
  }
  if (child?.pid === undefined) throw new Error("no free port for sshd");
  const server = child;
  const pid = child.pid;

  writeFileSync(file("known_hosts"), addresses.map((address) => `[${address}]:${port} ${hostKeyLine}\n`).join(""), { mode: 0o600 });
  const client = addresses.flatMap((address, index) => [
    index === 0 ? "Host bastion" : `Host bastion-${index + 1}`,
    `  HostName ${address}`,
    `  Port ${port}`,
    `  User ${user}`,
    `  IdentityFile ${file("id_ed25519")}`,
    "  IdentitiesOnly yes",
    "  IdentityAgent none",
    `  UserKnownHostsFile ${file("known_hosts")}`,
    "  GlobalKnownHostsFile /dev/null",
    "  StrictHostKeyChecking yes",
  ]);
  writeFileSync(file("ssh_config"), `${client.join("\n")}\n`, { mode: 0o600 });

  let disposed = false;
  return {
    port,
    user,
    dir,
    runtimeDir,
    hostKey,
    hostKeyLine,
    identityFile: file("id_ed25519"),
    authorizedKeys: file("authorized_keys"),
    knownHosts: file("known_hosts"),
    sshConfig: file("ssh_config"),
    pid,
    log: () => logged.text,
    async dispose() {
      if (disposed) return;
      disposed = true;
      const all = descendants(pid);
      const exited = new Promise<void>((resolve) => {
        if (server.exitCode !== null || server.signalCode !== null) resolve();
        else server.once("exit", () => resolve());
      });
      for (const one of all) {
        try {
          process.kill(one, one === pid ? "SIGTERM" : "SIGKILL");
        } catch {
          // It ended by itself.
        }
      }
      await exited;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
