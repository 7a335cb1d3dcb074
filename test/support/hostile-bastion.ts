/*
 * An SSH server that misbehaves on purpose: it stops answering at a chosen step, or does what nobody asked for. Otherwise a
 * working bastion for one login: commands run in /bin/sh, Unix sockets are forwarded, and a port that was asked for is tried from all sides. It must never be reached by anything but a test.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Server, connect as socketTo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import ssh2, { type Connection, type ServerChannel } from "ssh2";
import { resolveSshSettings, type SshSettings } from "../../src/forward/ssh-settings.js";
import { makeSshKey } from "./sshd.js";

/** The step that is never answered, or what is done instead. */
export type Misbehaviour =
  | "none"
  /** No answer to the request for a session. */
  | "session"
  /** A session whose command is never answered. */
  | "exec"
  /** The shell starts and says nothing. */
  | "helper"
  /** The shell prints without end. */
  | "flood"
  /** The first short command never ends. */
  | "short command"
  /** No answer to the request for the socket. */
  | "listen"
  /** Ends the connection at the request for the socket. */
  | "hang up"
  /** No answer to a channel to the socket. */
  | "open"
  /** Opens channels that nobody asked for as soon as the socket is made. */
  | "unsolicited"
  /** Shows another host key at a second key exchange. */
  | "other host key";

export interface HostileBastion extends AsyncDisposable {
  /** What sessions have as XDG_RUNTIME_DIR. */
  readonly runtimeDir: string;
  settings(): Promise<SshSettings>;
  /** What became of channels that nobody asked for: true when one was accepted. */
  readonly intrusions: readonly (readonly [kind: string, accepted: boolean])[];
  /** Exchanges keys again, with whatever host key it has by now. */
  rekey(): void;
}

/** What it answers to a request for a port; nobody listens there. */
const PORT = 30_000;

/** Starts one on a free loopback port. */
export async function startHostileBastion(how: Misbehaviour): Promise<HostileBastion> {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-hostile-"));
  const runtimeDir = join(dir, "run");
  mkdirSync(runtimeDir, { mode: 0o700 });
  for (const name of ["host", "other", "id"]) makeSshKey(join(dir, name));
  const children: ChildProcess[] = [];
  const listeners: Server[] = [];
  const intrusions: (readonly [string, boolean])[] = [];
  const connections: Connection[] = [];

  function runIn(stream: ServerChannel, command: string): void {
    const child = spawn("/bin/sh", ["-c", command], { env: { ...process.env, XDG_RUNTIME_DIR: runtimeDir } });
    children.push(child);
    child.stdin.on("error", () => {});
    stream.pipe(child.stdin);
    stream.on("close", () => child.stdin.end());
    child.stdout.pipe(stream, { end: false });
    child.stderr.pipe(stream.stderr, { end: false });
    child.once("close", (code) => {
      stream.exit(code ?? 1);
      stream.end();
    });
  }

  const server = new ssh2.Server({ hostKeys: [readFileSync(join(dir, "host"))] }, (connection) => {
    connections.push(connection);
    let sessions = 0;
    connection.on("error", () => {});
    connection.on("authentication", (context) => context.accept());
    connection.on("session", (accept) => {
      if (how === "session") return;
      const session = accept();
      session.on("pty", (acceptPty) => acceptPty());
      session.on("exec", (acceptExec, _reject, { command }) => {
        if (how === "exec") return;
        const stream = acceptExec();
        stream.on("error", () => {});
        if (how === "helper") return;
        if (how === "flood") runIn(stream, "exec yes");
        else if (how === "short command" && command === "exit 0" && sessions++ === 0) runIn(stream, "exec sleep 600");
        else runIn(stream, command);
      });
    });
    connection.on("request", (accept, reject, name, info) => {
      const { socketPath } = info as { socketPath?: string };
      const heard = (kind: string) => (error: Error | undefined) => void intrusions.push([kind, error === undefined]);
      if (name === "tcpip-forward") {
        (accept as ((port: number) => void) | undefined)?.(PORT);
        // The answer comes first.
        setImmediate(() => {
          connection.forwardOut("127.0.0.1", PORT + 1, "127.0.0.1", 40_000, heard("a port that was not asked for"));
          connection.forwardOut("0.0.0.0", PORT, "127.0.0.1", 40_000, heard("our port on every address"));
          connection.forwardOut("127.0.0.1", PORT, "192.0.2.1", 40_000, heard("our port, from another machine"));
          connection.forwardOut("127.0.0.1", PORT, "127.0.0.1", 40_000, heard("our port"));
        });
        return;
      }
      if ((name as string) !== "streamlocal-forward@openssh.com" || socketPath === undefined) return reject?.();
      if (how === "listen") return;
      if (how === "hang up") return void connection.end();
      const listener = createServer((socket) => {
        connection.openssh_forwardOutStreamLocal(socketPath, (error, channel) => {
          if (error) socket.destroy();
          else socket.pipe(channel).pipe(socket);
        });
        socket.on("error", () => {});
      });
      listeners.push(listener);
      listener.listen(socketPath, () => {
        accept?.();
        if (how !== "unsolicited") return;
        connection.openssh_forwardOutStreamLocal("/tmp/not-ours", heard("another socket"));
        connection.forwardOut("127.0.0.1", 22, "127.0.0.1", 22, heard("a TCP port"));
        connection.x11("127.0.0.1", 6000, heard("X11"));
      });
    });
    connection.on(
      "openssh.streamlocal" as "tcpip",
      ((accept: () => Duplex, reject: () => void, info: { socketPath: string }) => {
        if (how === "open") return;
        const socket = socketTo(info.socketPath);
        socket.once("error", reject);
        socket.once("connect", () => {
          const channel = accept();
          socket.pipe(channel).pipe(socket);
        });
      }) as never,
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;

  return {
    runtimeDir,
    intrusions,
    async settings() {
      const options = [
        "User=root",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        `UserKnownHostsFile=${join(dir, "known")}`,
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=accept-new",
        "ConnectTimeout=1",
      ];
      return await resolveSshSettings("127.0.0.1", { configFile: "none", port, identity: join(dir, "id"), sshOptions: options });
    },
    rekey() {
      for (const connection of connections) {
        // ssh2 has no server that changes its key; its own table does it.
        const inner = connection as unknown as { _protocol: { _hostKeys: Record<string, unknown>; _offer?: unknown } };
        if (how === "other host key") {
          const other = ssh2.utils.parseKey(readFileSync(join(dir, "other")));
          for (const type of Object.keys(inner._protocol._hostKeys))
            inner._protocol._hostKeys[type] = Array.isArray(other) ? other[0] : other;
        }
        connection.rekey();
      }
    },
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.end();
      for (const listener of listeners) listener.close();
      for (const child of children) child.kill("SIGKILL");
      await new Promise<void>((resolve) => server.close(() => resolve()));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
