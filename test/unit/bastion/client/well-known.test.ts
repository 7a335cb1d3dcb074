/*
 * Which of several sockets the client takes when nobody named one, and how long it looks.
 */
import { mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectClient } from "../../../../src/bastion/client/connect-client.js";
import { MAGIC } from "../../../../src/wire/rpc/messages.js";
import { agent, failure, REQUEST, SIGNED, TIMES } from "./peers.js";

let dir: string;
const servers: Server[] = [];
const sockets: Socket[] = [];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-known-"));
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
  rmSync(dir, { recursive: true, force: true });
});

async function listen(path: string, scene: (socket: Socket) => void): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    scene(socket);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return server;
}

/** A socket file that nobody listens on any more. */
async function abandon(path: string): Promise<void> {
  const server = await listen(`${path}.old`, () => {});
  renameSync(`${path}.old`, path);
  await new Promise((resolve) => server.close(resolve));
}

describe("sockets that nobody named", () => {
  const signs = agent(async () => SIGNED);
  const at = (name: string) => join(dir, "tokenfwd", name, "p11.sock");
  const find = () => connectClient({ env: { XDG_RUNTIME_DIR: dir } }, { times: TIMES });

  it("are not guessed at when several workstations are connected", async () => {
    for (const name of ["00000001", "00000002"]) await listen(at(name), signs);
    const error = await failure(find());
    expect([error.code, error.message]).toEqual(["E_AGENT_SOCKET", expect.stringMatching(/^2 workstations are connected/)]);
    for (const name of ["00000001", "00000002"]) expect(error.hint).toContain(`--socket '${at(name)}'`);
    await using named = await connectClient({ socket: at("00000001"), env: {} }, { times: TIMES });
    expect(named.socket).toBe(at("00000001"));
  });

  it("are taken when all but one workstation's are abandoned", async () => {
    for (const name of ["00000002", "00000002-2"]) await listen(at(name), signs);
    mkdirSync(dirname(at("00000001")));
    await abandon(at("00000001"));
    await using client = await find();
    expect(dirname(client.socket)).toMatch(/\/00000002(-2)?$/);
  });
});

it("an agent that greets and then says nothing is given up", async () => {
  const path = join(dir, "s");
  await listen(path, (socket) => void socket.write(MAGIC));
  const error = await failure(connectClient({ socket: path, env: {} }, { times: { ...TIMES, snapshotMs: 50 } }));
  expect([error.code, error.message]).toEqual(["E_AGENT_SOCKET", expect.stringMatching(/does not name its keys in 0.05 s$/)]);
});

it("the time of a signature is also that of the search for who makes it", async () => {
  const path = join(dir, "s");
  let connections = 0;
  await listen(path, (socket) => {
    connections += 1;
    if (connections > 1) return;
    agent(async () => {
      socket.destroy();
      return SIGNED;
    })(socket);
  });
  await using client = await connectClient({ socket: path, env: {} }, { times: { ...TIMES, firstByteMs: 60_000 } });
  expect((await failure(client.signer.sign(REQUEST))).message).toMatch(/^the connection to the agent was lost/);
  const error = await failure(client.signer.sign(REQUEST, { deadlineMs: 50 }));
  expect([error.code, error.message]).toEqual(["E_AGENT_LOST", "the agent did not answer in the time given"]);
  expect(connections).toBe(2);
});
