/*
 * `tokenfwd keys` and `tokenfwd sign` against an agent that answers with what would take over a terminal, or with nonsense: a
 * socket on a bastion may be anybody's.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { RpcError, type SignResult } from "../../src/wire/rpc/messages.js";
import { createRpcServer } from "../../src/wire/rpc/server.js";
import type { RpcHandlers } from "../../src/wire/rpc/server-types.js";
import { expectFailure, type InstalledBundle, installBundle } from "./bastion-bundle.js";

const ATTACK = "\u001b]0;owned\u0007\u001b[2J\r\nhint: rm -rf\u202e\u200b";
const KEY = "pkcs11:id=%01;type=private";
let bastion: InstalledBundle;
let dir: string;
let server: Server;
let handlers: RpcHandlers;
const open = new Set<Socket>();

beforeAll(async () => {
  bastion = await installBundle();
});
afterAll(() => bastion?.dispose());
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-hostile-agent-"));
  handlers = {
    hello: async () => ({ agent: ATTACK, snapshot: null }),
    sign: async () => {
      throw new RpcError("internal", "not set up");
    },
    call: async () => ({ rv: 0x54, outs: {} }),
    status: () => {
      throw new RpcError("internal", "not set up");
    },
    subscribe: () => {},
  };
  server = createServer((socket) => {
    open.add(socket);
    socket.on("error", () => {});
    const rpc = createRpcServer({ handlers, write: (bytes) => void socket.write(bytes) });
    socket.on("data", (chunk: Buffer) => rpc.push(chunk));
    socket.on("close", () => rpc.end());
  });
  await new Promise<void>((resolve) => server.listen(join(dir, "s"), resolve));
});
afterEach(async () => {
  for (const socket of open) socket.destroy();
  open.clear();
  await new Promise((resolve) => server.close(resolve));
  rmSync(dir, { recursive: true, force: true });
});

const run = (words: readonly string[]) => bastion.run([...words, "--socket", join(dir, "s")], { input: "a document" });
/** Bytes that a terminal obeys, our own line ends aside. */
const obeyed = (text: string) => text.match(/[^\n\x20-\x7e]/g) ?? [];

test("an error's text and hint reach the terminal as text, and an error of its own making stays one line", async () => {
  handlers = {
    ...handlers,
    sign: async () => {
      throw new RpcError("key-not-found", `no key ${ATTACK}`, { hint: `try ${ATTACK}` });
    },
  };
  const ended = await run(["sign", "--key", KEY]);
  expectFailure(ended, "E_KEY_NOT_FOUND", 20);
  expect(obeyed(ended.stderr)).toEqual([]);
});

test("labels, URIs and certificates are shown as text, and a certificate that is none is left out", async () => {
  const key = {
    type: "EC",
    bits: null,
    curve: ATTACK,
    spki: Buffer.from(ATTACK),
    certificate: Buffer.from(ATTACK),
    mechanisms: [1],
  } as const;
  const uri = `pkcs11:object=a'${ATTACK};type=private`;
  const text = { uri: ATTACK, label: ATTACK, manufacturer: ATTACK, model: ATTACK, serial: ATTACK, flags: 0n, mechanisms: [] };
  const keys = [{ ...key, uri, label: Buffer.from(ATTACK), id: Buffer.from(ATTACK) }];
  handlers = {
    ...handlers,
    hello: async () => ({ agent: ATTACK, snapshot: { epoch: 1, tokens: [{ ...text, slot: 1n, keys }] } }),
  };
  const shown = await run(["keys"]);
  expect(shown).toMatchObject({ code: 0, stderr: "" });
  expect(obeyed(shown.stdout.toString())).toEqual([]);
  // A quote in a URI does not end the word that a person copies into a shell.
  expect(shown.stdout.toString()).toContain("uri    'pkcs11:object=a'\\''");
  const json = await run(["keys", "--json"]);
  expect(obeyed(json.stdout.toString())).toEqual([]);
  expect(JSON.parse(json.stdout.toString()).keys).toMatchObject([{ certificate: null, type: "EC" }]);
});

test("a signature that is no r and s is not written as DER", async () => {
  const answer = (signature: Buffer): SignResult => ({ signature, mechanism: 0x1044, uri: KEY, spki: null });
  for (const length of [0, 63]) {
    handlers = { ...handlers, sign: async () => answer(Buffer.alloc(length, 1)) };
    expectFailure(await run(["sign", "--key", KEY, "--der"]), "E_MODULE_FAULT", 21);
  }
  handlers = { ...handlers, sign: async () => answer(Buffer.alloc(64, 1)) };
  expect((await run(["sign", "--key", KEY, "--der"])).stdout.subarray(0, 2).toString("hex")).toBe("3044");
});
