/* Jump hosts that do what a TCP proxy would not: keep silent, open channels of their own, answer in the bastion's place. */
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import ssh2, { type Connection, type ServerChannel } from "ssh2";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { SshSettings } from "../../src/forward/ssh-settings.js";
import { connectSsh2 } from "../../src/forward/ssh2/connect.js";
import { type RecordedUi, recordingUi, rejection, settingsOf } from "../support/forward.js";
import { type Sshd, startSshd } from "../support/sshd.js";

let sshd: Sshd;
const servers: InstanceType<typeof ssh2.Server>[] = [];
const connections: Connection[] = [];
beforeAll(async () => {
  sshd = await startSshd();
});
afterAll(() => sshd.dispose());
afterEach(async () => {
  for (const connection of connections.splice(0)) connection.end();
  for (const server of servers.splice(0)) await new Promise<void>((resolve) => server.close(() => resolve()));
});

/** Settings that lead to a server of ours with the key that known_hosts has for `bastion`, or with another one. */
async function serve(hostKey: string, behave: (connection: Connection) => void): Promise<SshSettings> {
  const server = new ssh2.Server({ hostKeys: [readFileSync(join(sshd.dir, hostKey))] }, (connection) => {
    connections.push(connection);
    connection.on("error", () => {});
    behave(connection);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const settings = await settingsOf(sshd);
  return { ...settings, port: (server.address() as AddressInfo).port, hostKeyAlias: `[127.0.0.1]:${sshd.port}` };
}

const letIn = (connection: Connection): void => void connection.on("authentication", (context) => context.accept());
const through = async (jump: SshSettings, ui: RecordedUi, signal: AbortSignal, changes: Partial<SshSettings> = {}) =>
  await connectSsh2({ settings: { ...(await settingsOf(sshd)), ...changes, jump }, ui, signal });

it("one that keeps silent after the log-in does not hold up who interrupts", async () => {
  const abort = new AbortController();
  const jump = await serve("host_ed25519", (connection) => {
    letIn(connection);
    // Neither accepted nor rejected.
    connection.on("session", () => abort.abort());
  });
  const error = await rejection(through({ ...jump, connectTimeoutMs: 60_000 }, recordingUi(), abort.signal));
  expect(error.code).toBe("E_INTERRUPTED");
}, 10_000);

it("one that goes while the bastion is called is named as the one that went", async () => {
  const jump = await serve("host_ed25519", (connection) => {
    letIn(connection);
    connection.on("session", () => connection.end());
  });
  const error = await rejection(through(jump, recordingUi(), new AbortController().signal));
  expect(error).toMatchObject({ code: "E_SSH_LOST", message: expect.stringContaining("closed the connection") });
});

it("one that opens channels to the workstation has each refused, and the bastion is reached through it", async () => {
  const answers: Promise<string>[] = [];
  const asked = (open: (done: (error: Error | undefined) => void) => void) =>
    answers.push(new Promise((resolve) => open((error) => resolve(error === undefined ? "opened" : "refused"))));
  const jump = await serve("host_ed25519", (connection) => {
    letIn(connection);
    connection.on("ready", () => {
      asked((done) => connection.openssh_forwardOutStreamLocal("/run/p11.sock", done));
      asked((done) => connection.forwardOut("127.0.0.1", 22, "127.0.0.1", 1, done));
      asked((done) => connection.x11("127.0.0.1", 1, done));
    });
    connection.on("session", (_accept, reject) => reject());
    connection.on("tcpip", (accept, _reject, info) => {
      const channel: ServerChannel = accept();
      void import("node:net").then(({ connect }) => {
        const socket = connect(info.destPort, info.destIP);
        socket.on("error", () => channel.close());
        channel.on("error", () => {}).on("close", () => socket.destroy());
        channel.pipe(socket).pipe(channel);
      });
    });
  });
  const ui = recordingUi();
  const transport = await through(jump, ui, new AbortController().signal);
  expect(await Promise.all(answers)).toEqual(["refused", "refused", "refused"]);
  expect(transport.hostKey).toBe(sshd.hostKey);
  await transport.end();
});

it("one that answers in the bastion's place is told by the bastion's host key, and hears no password", async () => {
  const heard: string[] = [];
  const jump = await serve("host_ed25519", (connection) => {
    letIn(connection);
    connection.on("session", (_accept, reject) => reject());
    connection.on("tcpip", (accept) => {
      const channel: ServerChannel = accept();
      const impostor = new ssh2.Server({ hostKeys: [readFileSync(join(sshd.dir, "id_ed25519"))] }, (inner) => {
        inner.on("error", () => {});
        inner.on("authentication", (context) => {
          heard.push(context.method);
          context.reject(["password"]);
        });
      });
      impostor.injectSocket(channel as never);
    });
  });
  const ui = recordingUi({ confirm: true, passphrases: ["open sesame"] });
  const methods = { loginMethods: ["password"] as const };
  const error = await rejection(through(jump, ui, new AbortController().signal, methods));
  expect(error.code).toBe("E_HOST_KEY_CHANGED");
  expect([heard, ui.questions]).toEqual([[], []]);
});
