/*
 * What a tokenfwd RPC client gets from the agent: the snapshot, signatures in one request, and what it cannot get at.
 * SoftHSM through the real host process; the stream is in memory.
 */
import { createHash, createPublicKey, type KeyObject, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { type AgentEvents, type AgentOptions, type AgentPort, createAgent } from "../../src/agent/agent.js";
import { bytesAttribute, CKA, ulongAttribute } from "../../src/cryptoki/attributes.js";
import { CKF, CKO, CKU } from "../../src/cryptoki/constants.js";
import { localContext } from "../../src/cryptoki/local-context.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { CKR } from "../../src/cryptoki/rv.js";
import { createTokenHost, type TokenHost } from "../../src/token/host/host.js";
import type { RpcClientOptions } from "../../src/wire/rpc/client.js";
import { RpcError, type SignMessage } from "../../src/wire/rpc/messages.js";
import { connectRpc, type RpcAgentClient } from "../support/agent-clients.js";
import { forwardOrigin } from "../support/fake-token-host.js";
import { createRawRpcPeer } from "../support/rpc-raw.js";
import { softHsmHere } from "../support/softhsm-here.js";
import { streamPair } from "../support/stream-pair.js";

const DATA = Buffer.from("a document of any length, hashed where the key is used");

const here = softHsmHere(async (token) => {
  const login = ["--token-label", token.label, "--login", "--pin", token.pin];
  await token.pkcs11Tool(...login, "--keypairgen", "--key-type", "EC:edwards25519", "--id", "05", "--label", "ed key");
});
let host: TokenHost;
let agent: AgentPort;
let uses: AgentEvents["use"][] = [];
let violations: string[] = [];
const clients: RpcAgentClient[] = [];

afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  await agent.close();
  await host.close();
});

async function start(options: Partial<AgentOptions> = {}): Promise<void> {
  const ask = options.pinMode !== "client";
  host = await createTokenHost({
    modulePath: here.token.modulePath,
    pinSource: ask ? { kind: "file", path: here.pinFile } : { kind: "client" },
  });
  agent = await createAgent({ host, token: here.token.label, key: "all", profile: "sign", pinMode: "ask", ...options });
  uses = [];
  violations = [];
  agent.events.on("use", (use) => uses.push(use));
  agent.events.on("violation", ({ reason }) => violations.push(reason));
}

async function connect(options: Partial<RpcClientOptions> = {}, destination = "bastion"): Promise<RpcAgentClient> {
  const client = await connectRpc(agent, forwardOrigin(destination), options);
  clients.push(client);
  return client;
}

const message = (key: string | Buffer, more: Partial<SignMessage> = {}): SignMessage => ({
  key: typeof key === "string" ? { uri: key, spki: null } : { uri: null, spki: key },
  mechanism: null,
  parameter: null,
  data: DATA,
  isDigest: false,
  purpose: "data",
  expect: null,
  ...more,
});
const sha256 = (data: Buffer) => createHash("sha256").update(data).digest();
const publicKey = (file: string | undefined): KeyObject => createPublicKey(readFileSync(file ?? ""));
const spkiOf = (key: KeyObject): Buffer => key.export({ type: "spki", format: "der" });
const rejection = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "resolved",
    (error: unknown) => error,
  );

test("hello shows the keys of the token before any log-in, and the epoch under which that holds", async () => {
  await start();
  const { rpc } = await connect();
  const { agent: name, version, snapshot } = await rpc.ready;
  expect([version, name]).toEqual([1, expect.stringMatching(/^tokenfwd \d+\.\d+\.\d+/)]);
  expect(snapshot?.tokens.map(({ label }) => label)).toEqual([here.token.label]);
  const keys = snapshot?.tokens[0]?.keys ?? [];
  expect(keys.map(({ type }) => type).sort()).toEqual(["EC", "EdDSA", "RSA"]);
  const rsa = keys.find(({ type }) => type === "RSA");
  expect(rsa?.spki).toEqual(spkiOf(publicKey(here.token.keys.rsa?.publicKeyFile)));
  expect([rsa?.bits, rsa?.certificate?.length ?? 0]).toEqual([2048, expect.any(Number)]);
  expect(rsa?.mechanisms).toContain(CKM.CKM_SHA256_RSA_PKCS);
  expect(rsa?.mechanisms).not.toContain(CKM.CKM_RSA_X_509);
  expect((await rpc.request("status", {})).loggedIn).toEqual([]);
});

test("a snapshot shows no key that the origin may not use", async () => {
  await start({ key: "pkcs11:id=%02;type=private" });
  const { rpc } = await connect();
  const { snapshot } = await rpc.ready;
  expect(snapshot?.tokens.flatMap(({ keys }) => keys.map(({ type }) => type))).toEqual(["EC"]);
  const other = createHash("sha256")
    .update(spkiOf(publicKey(here.token.keys.rsa?.publicKeyFile)))
    .digest();
  expect(await rejection(rpc.request("sign", message(other)))).toMatchObject({ code: "key-not-found" });
  expect(uses).toEqual([]);
});

test("one request signs, from no session and no log-in: by URI and by the hash of the public key", async () => {
  await start();
  const { rpc } = await connect({ snapshot: false });
  const rsa = publicKey(here.token.keys.rsa?.publicKeyFile);
  const one = await rpc.request("sign", message("pkcs11:id=%01", { purpose: "git-commit", expect: spkiOf(rsa) }));
  expect(one.mechanism).toBe(CKM.CKM_SHA256_RSA_PKCS);
  expect(one.spki).toEqual(spkiOf(rsa));
  expect(verify("sha256", DATA, rsa, one.signature)).toBe(true);

  const ec = publicKey(here.token.keys.ec?.publicKeyFile);
  const two = await rpc.request("sign", message(sha256(spkiOf(ec)), { data: sha256(DATA), isDigest: true }));
  expect(two.signature).toHaveLength(64);
  expect(verify("sha256", DATA, { key: ec, dsaEncoding: "ieee-p1363" }, two.signature)).toBe(true);

  expect(uses.map(({ key, call, ok, purpose, input }) => [key, call, ok, purpose, input])).toEqual([
    ["rsa key", "C_Sign", true, "git-commit", "document"],
    ["ec key", "C_Sign", true, "data", "digest"],
  ]);
});

test("a mechanism that takes a digest gets the agent's own of the whole document", async () => {
  await start();
  const { rpc } = await connect();
  const key = publicKey(here.token.keys.ec?.publicKeyFile);
  const seen: unknown[] = [];
  const { call } = host.cryptoki;
  vi.spyOn(host.cryptoki, "call").mockImplementation((name, args, ctx) => {
    if (name === "C_Sign") seen.push(Buffer.from((args as { data: Buffer }).data));
    return call(name, args, ctx);
  });
  const { signature } = await rpc.request("sign", message("pkcs11:id=%02", { mechanism: CKM.CKM_ECDSA_SHA256 }));
  expect(verify("sha256", DATA, { key, dsaEncoding: "ieee-p1363" }, signature)).toBe(true);
  expect(seen).toEqual([sha256(DATA)]);
});

test("what was signed is called a document only where it is hashed for certain", async () => {
  await start({ allowRawRsa: true });
  const { rpc } = await connect();
  const block = Buffer.concat([Buffer.from([0, 1]), Buffer.alloc(205, 0xff), Buffer.from([0]), Buffer.alloc(48, 7)]);
  const rsa = "pkcs11:id=%01;type=private";
  await rpc.request("sign", message(rsa, { mechanism: CKM.CKM_RSA_X_509, data: block }));
  await rpc.request("sign", message(rsa, { mechanism: CKM.CKM_SHA256_RSA_PKCS }));
  const parameter = { kind: "rsa-pss", hashAlg: BigInt(CKM.CKM_SHA256), mgf: 2n, saltLength: 32n } as const;
  await rpc.request("sign", message(rsa, { mechanism: CKM.CKM_RSA_PKCS_PSS, parameter }));
  await rpc.request("sign", message("pkcs11:id=%05;type=private", { mechanism: CKM.CKM_EDDSA }));
  await rpc.request("sign", message(rsa, { isDigest: true, data: sha256(DATA) }));
  expect(uses.map(({ input, ok }) => [input, ok])).toEqual([
    [null, true],
    ["document", true],
    ["document", true],
    ["document", true],
    ["digest", true],
  ]);
});

test.each(["another process", "another client"] as const)(
  "a key that %s has replaced by one of the same id and label is not signed with unseen",
  async (who) => {
    const login = ["--token-label", here.token.label, "--login", "--pin", here.token.pin];
    const id = who === "another client" ? "0a" : "0b";
    const make = () => here.token.pkcs11Tool(...login, "--keypairgen", "--key-type", "EC:prime256v1", "--id", id, "--label", "replaced");
    await make();
    await start({ profile: "full" });
    const { rpc } = await connect();
    const other = await connect();
    const uri = `pkcs11:id=%${id};type=private`;
    const before = await rpc.request("sign", message(uri));
    if (before.spki === null) throw new Error("the token shows no public key");
    for (const cls of [CKO.CKO_PRIVATE_KEY, CKO.CKO_PUBLIC_KEY]) {
      if (who === "another process") {
        await here.token.pkcs11Tool(...login, "--delete-object", "--type", cls === CKO.CKO_PRIVATE_KEY ? "privkey" : "pubkey", "--id", id);
        continue;
      }
      const { session = 0n } = await other.cryptoki.call(
        "C_OpenSession",
        { slot: (await agent.slots())[0] ?? 0n, flags: CKF.CKF_SERIAL_SESSION | CKF.CKF_RW_SESSION },
        other.ctx,
      );
      await other.cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, other.ctx);
      const template = [ulongAttribute(CKA.CKA_CLASS, cls), bytesAttribute(CKA.CKA_ID, Buffer.from(id, "hex"))];
      await other.cryptoki.call("C_FindObjectsInit", { session, template }, other.ctx);
      const { objects } = await other.cryptoki.call("C_FindObjects", { session, room: 2 }, other.ctx);
      const [object = 0n] = objects as readonly bigint[];
      expect((await other.cryptoki.call("C_DestroyObject", { session, object }, other.ctx)).rv).toBe(CKR.CKR_OK);
    }
    await make();
    expect(await rejection(rpc.request("sign", message(uri, { expect: before.spki })))).toMatchObject({ code: "key-mismatch" });
    const after = await rpc.request("sign", message(uri));
    if (after.spki === null) throw new Error("the token shows no public key");
    expect(after.spki.equals(before.spki)).toBe(false);
    const key = createPublicKey({ key: after.spki, format: "der", type: "spki" });
    expect(verify("sha256", DATA, { key, dsaEncoding: "ieee-p1363" }, after.signature)).toBe(true);
    expect(uses.filter(({ ok }) => ok).map((use) => use.key)).toEqual(["replaced", "replaced"]);
    await here.token.pkcs11Tool(...login, "--delete-object", "--type", "privkey", "--id", id);
    await here.token.pkcs11Tool(...login, "--delete-object", "--type", "pubkey", "--id", id);
  },
);

test("EdDSA, which stock clients hide: in one request, and call by call", async () => {
  await start();
  const { rpc, cryptoki, ctx } = await connect();
  const { snapshot } = await rpc.ready;
  const entry = snapshot?.tokens[0]?.keys.find(({ type }) => type === "EdDSA");
  expect([entry?.curve, entry?.mechanisms]).toEqual(["Ed25519", [CKM.CKM_EDDSA]]);
  const key = createPublicKey({ key: entry?.spki ?? Buffer.alloc(0), format: "der", type: "spki" });
  const { signature, mechanism } = await rpc.request("sign", message(entry?.uri ?? ""));
  expect(mechanism).toBe(CKM.CKM_EDDSA);
  expect(verify(null, DATA, key, signature)).toBe(true);

  const { slots } = await cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: 8 }, ctx);
  const slot = (slots as readonly bigint[])[0] ?? 0n;
  const { session = 0n } = await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, ctx);
  const template = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY), bytesAttribute(CKA.CKA_ID, Buffer.from([5]))];
  await cryptoki.call("C_FindObjectsInit", { session, template }, ctx);
  const { objects } = await cryptoki.call("C_FindObjects", { session, room: 8 }, ctx);
  const handle = (objects as readonly bigint[])[0] ?? 0n;
  const init = await cryptoki.call("C_SignInit", { session, mechanism: { type: CKM.CKM_EDDSA, parameter: null }, key: handle }, ctx);
  expect(init.rv).toBe(CKR.CKR_OK);
  const made = await cryptoki.call("C_Sign", { session, data: DATA, room: 128 }, ctx);
  expect(made.rv).toBe(CKR.CKR_OK);
  expect(verify(null, DATA, key, made.output as Buffer)).toBe(true);
});

test("a key other than the expected one signs nothing, and nobody is asked for it", async () => {
  await start();
  const { rpc } = await connect();
  const other = spkiOf(publicKey(here.token.keys.ec?.publicKeyFile));
  const error = await rejection(rpc.request("sign", message("pkcs11:id=%01", { expect: other })));
  expect(error).toBeInstanceOf(RpcError);
  expect(error).toMatchObject({ code: "key-mismatch" });
  expect((await rpc.request("status", {})).loggedIn).toEqual([]);
  expect(uses).toEqual([]);
});

test("the policy holds for sign as for calls", async () => {
  await start({ profile: "read" });
  const refused: AgentEvents["refused"][] = [];
  agent.events.on("refused", (event) => refused.push(event));
  const { rpc } = await connect();
  expect(await rejection(rpc.request("sign", message("pkcs11:id=%01")))).toMatchObject({
    code: "cryptoki",
    rv: CKR.CKR_FUNCTION_NOT_SUPPORTED,
    call: "C_Login",
  });
  expect(refused.map(({ call }) => call)).toEqual(["C_Login"]);
  const raw = { mechanism: CKM.CKM_RSA_X_509, data: Buffer.alloc(256), isDigest: true };
  expect(await rejection(rpc.request("sign", message("pkcs11:id=%01", raw)))).toMatchObject({ code: "mechanism" });
});

test("where PINs are the client's own, sign uses its log-in and makes none", async () => {
  await start({ pinMode: "client" });
  const { rpc, cryptoki, ctx } = await connect();
  expect(await rejection(rpc.request("sign", message("pkcs11:id=%01")))).toMatchObject({
    code: "cryptoki",
    rv: CKR.CKR_USER_NOT_LOGGED_IN,
  });
  const { slots } = await cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: 8 }, ctx);
  const slot = (slots as readonly bigint[])[0] ?? 0n;
  const { session = 0n } = await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  expect((await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: Buffer.from(here.token.pin) }, ctx)).rv).toBe(CKR.CKR_OK);
  const { signature } = await rpc.request("sign", message("pkcs11:id=%01"));
  expect(verify("sha256", DATA, publicKey(here.token.keys.rsa?.publicKeyFile), signature)).toBe(true);
  expect(await rpc.request("status", {})).toMatchObject({ pin: "client", loggedIn: [slot] });
});

test("after a log-out by a call the next sign logs in anew, and a finalised client still signs", async () => {
  await start();
  const { rpc, cryptoki, ctx } = await connect();
  const key = publicKey(here.token.keys.rsa?.publicKeyFile);
  await rpc.request("sign", message("pkcs11:id=%01"));
  const { loggedIn } = await rpc.request("status", {});
  const slot = loggedIn[0] ?? 0n;
  const { session = 0n } = await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  expect((await cryptoki.call("C_Logout", { session }, ctx)).rv).toBe(CKR.CKR_OK);
  expect((await rpc.request("status", {})).loggedIn).toEqual([]);
  expect(verify("sha256", DATA, key, (await rpc.request("sign", message("pkcs11:id=%01"))).signature)).toBe(true);
  expect((await cryptoki.call("C_Finalize", {}, ctx)).rv).toBe(CKR.CKR_OK);
  expect((await rpc.request("status", {})).loggedIn).toEqual([]);
  expect(verify("sha256", DATA, key, (await rpc.request("sign", message("pkcs11:id=%01"))).signature)).toBe(true);
});

test.each(["pin-value=canary-271828", "pin-source=file:/etc/passwd", "module-path=/tmp/evil.so"])(
  "a URI with %s closes the stream, and its value is nowhere",
  async (query) => {
    await start();
    const { rpc, closed } = await connect();
    const error = await rejection(rpc.request("sign", message(`pkcs11:id=%01?${query}`)));
    await closed;
    expect(error).toBeInstanceOf(RpcError);
    expect(violations).toHaveLength(1);
    expect(`${violations} ${String(error)}`).not.toContain(query.split("=")[1]);
    expect(uses).toEqual([]);
  },
);

test("status tells of the asking stream alone", async () => {
  await start();
  const [one, two] = [await connect(), await connect({}, "another-bastion")];
  await two.rpc.request("sign", message("pkcs11:id=%01"));
  const status = await one.rpc.request("status", {});
  expect(status).toMatchObject({
    client: one.attachment.client,
    connectId: one.attachment.connectId,
    origin: { kind: "forward", destination: "bastion" },
    policy: "sign",
    pin: "ask",
    loggedIn: [],
  });
  expect(status.bytesIn).toBe(one.attachment.counters.bytesIn);
  expect(JSON.stringify(status, (_key, value: unknown) => (typeof value === "bigint" ? `${value}` : value))).not.toContain("another");
});

test("large answers that nobody reads are made one at a time, and all come once somebody does", async () => {
  await start();
  const [stream, theirs] = streamPair();
  agent.attach(theirs, forwardOrigin("bastion"));
  const peer = createRawRpcPeer(stream);
  peer.send({ type: "hello", id: 1, versions: [1] }, { type: "call", id: 2, call: "C_GetSlotList", args: { tokenPresent: 1, room: 8 } });
  const slot = ((await peer.answer(2))["outs"] as { slots: number[] }).slots[0];
  peer.send({ type: "call", id: 3, call: "C_OpenSession", args: { slot, flags: 4 } });
  const { session } = (await peer.answer(3))["outs"] as { session: number };
  stream.pause();
  const room = 1024 * 1024 - 256;
  const ids = Array.from({ length: 40 }, (_, index) => 100 + index);
  peer.send(...ids.map((id) => ({ type: "call", id, call: "C_GenerateRandom", args: { session, room } })));
  // What the module makes is what is kept for the one who does not read.
  const made = vi.spyOn(host.cryptoki, "call");
  await vi.waitFor(() => expect(theirs.writableNeedDrain).toBe(true));
  for (let turn = 0; turn < 500; turn++) await new Promise((resolve) => setImmediate(resolve));
  await host.cryptoki.call("C_GetInfo", {}, localContext("test", new AbortController().signal));
  expect(made.mock.calls.filter(([name]) => name === "C_GenerateRandom").length).toBeLessThanOrEqual(2);
  expect(theirs.writableLength).toBeLessThan(4 * room);
  stream.resume();
  for (const id of ids) expect(((await peer.answer(id))["outs"] as { output: Buffer }).output).toHaveLength(room);
});

test("many signatures at once, each with its own answer", async () => {
  await start();
  const { rpc } = await connect();
  const key = publicKey(here.token.keys.ec?.publicKeyFile);
  const texts = Array.from({ length: 64 }, (_, index) => Buffer.from(`document ${index}`));
  const made = await Promise.all(texts.map((data) => rpc.request("sign", message("pkcs11:id=%02", { data }))));
  expect(made.every(({ signature }, index) => verify("sha256", texts[index] ?? DATA, { key, dsaEncoding: "ieee-p1363" }, signature))).toBe(
    true,
  );
  expect(uses).toHaveLength(64);
});
