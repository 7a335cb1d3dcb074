/*
 * Both wires on the one socket of `tokenfwd agent run`, at the same time: our client and a stock one, each with what is its
 * own, and what the person at the workstation reads of it.
 */
import { execFile } from "node:child_process";
import { createHash, createPublicKey, verify } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createRpcClient, type RpcClient } from "../../src/wire/rpc/client.js";
import { MAGIC, type SignMessage } from "../../src/wire/rpc/messages.js";
import { createRawRpcPeer } from "../support/rpc-raw.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";

const DATA = Buffer.from("over the socket");
let token: SoftHsm;
let agent: ServerProcess;
const sockets: Socket[] = [];

beforeAll(async () => {
  token = await createSoftHsm();
  agent = await startAgent({ token, pin: "file" });
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});
afterAll(async () => {
  await agent?.dispose();
  await token?.dispose();
});

async function dial(): Promise<Socket> {
  const socket = connect({ path: agent.socket });
  sockets.push(socket);
  await once(socket, "connect");
  return socket;
}

async function rpcClient(): Promise<{ rpc: RpcClient; writes: () => number }> {
  const socket = await dial();
  let writes = 0;
  const rpc = createRpcClient({
    write(bytes) {
      writes += 1;
      socket.write(bytes);
    },
    end: () => void socket.end(),
    client: "test",
    snapshot: false,
  });
  socket.on("data", (chunk) => rpc.push(chunk));
  socket.on("close", () => rpc.closed());
  return { rpc, writes: () => writes };
}

const stock = (...args: string[]) =>
  promisify(execFile)("pkcs11-tool", ["--module", P11KIT_CLIENT, ...args], {
    env: { ...process.env, P11_KIT_SERVER_ADDRESS: agent.address },
  });

const signing = (uri: string, purpose: string): SignMessage => ({
  key: { uri, spki: null },
  mechanism: null,
  parameter: null,
  data: DATA,
  isDigest: false,
  purpose,
  expect: null,
});

test("a signature over each wire while the other is logged in, and a line for each with what its client said", async () => {
  const { rpc } = await rpcClient();
  const made = await rpc.request("sign", signing("pkcs11:id=%02;type=private", "git-commit"));
  const key = createPublicKey(readFileSync(token.keys.ec?.publicKeyFile ?? ""));
  expect(verify("sha256", DATA, { key, dsaEncoding: "ieee-p1363" }, made.signature)).toBe(true);

  // The stock client is not logged in by that: without its own log-in it sees no private key.
  expect((await stock("-O")).stdout).not.toMatch(/Private Key/);
  writeFileSync(join(token.dir, "hash"), createHash("sha256").update(DATA).digest());
  const [input, output] = [join(token.dir, "hash"), join(token.dir, "sig")];
  await stock("--login", "--pin", "0", "--sign", "-m", "ECDSA", "--id", "02", "-i", input, "-o", output);
  expect(verify("sha256", DATA, { key, dsaEncoding: "ieee-p1363" }, readFileSync(output))).toBe(true);

  // Its end is not ours.
  expect((await rpc.request("status", {})).loggedIn).toHaveLength(1);
  const again = await rpc.request("sign", signing("pkcs11:id=%01;type=private", "data"));
  const rsa = createPublicKey(readFileSync(token.keys.rsa?.publicKeyFile ?? ""));
  expect(verify("sha256", DATA, rsa, again.signature)).toBe(true);
  await agent.waitFor(/used rsa key with CKM_SHA256_RSA_PKCS \(C_Sign\) for c\d+\n/);
  expect(agent.stderr()).toMatch(/used ec key with CKM_ECDSA \(C_Sign\) for c\d+, for git-commit\n/);
  expect(agent.stderr()).toMatch(/used ec key with CKM_ECDSA \(C_Sign\) for c\d+\n/);
});

test("from nothing to a signature in one flight each way", async () => {
  const socket = await dial();
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  const peer = createRawRpcPeer(socket, { magic: Buffer.alloc(0) });
  const hello = { type: "hello", id: 1, versions: [1] };
  const sign = { type: "sign", id: 2, key: { uri: "pkcs11:id=%02;type=private" }, data: DATA };
  // Everything is on its way before anything has come back.
  socket.cork();
  socket.write(MAGIC);
  peer.send(hello, sign);
  socket.uncork();
  expect(chunks).toEqual([]);
  const answer = await peer.answer(2);
  expect([answer["type"], (answer["signature"] as Buffer).length]).toEqual(["result", 64]);
  expect(Buffer.concat(chunks).subarray(0, MAGIC.length)).toEqual(MAGIC);
});

test("a connection that breaks the protocol is closed and named, and the others go on", async () => {
  const { rpc } = await rpcClient();
  const bad = await dial();
  const peer = createRawRpcPeer(bad);
  peer.send({ type: "hello", id: 1, versions: [1] }, { type: "sign", id: 2, key: { uri: "pkcs11:?pin-value=canary-31415" }, data: DATA });
  expect(await peer.answer(null)).toMatchObject({ type: "error", code: "protocol" });
  if (!bad.closed) await once(bad, "close");
  await agent.waitFor(/closed a connection \(c\d+\): .*query attributes/);
  expect(`${agent.stderr()}${agent.stdout()}`).not.toContain("canary-31415");
  expect(await rpc.request("ping", {})).toEqual({});
});
