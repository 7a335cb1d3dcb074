/*
 * A stranger's client, in another language and from the specification alone, against a real agent on a real token; and
 * the vectors as that stranger's code reads and writes them.
 */
import { spawn } from "node:child_process";
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent, startStockServer } from "./agent-process.js";

const CLIENT = join(import.meta.dirname, "rpc-client.py");
const VECTORS = join(import.meta.dirname, "../../protocol/vectors/rpc");

let token: SoftHsm;
let agent: ServerProcess;

beforeAll(async () => {
  token = await createSoftHsm();
  agent = await startAgent({ token, pin: "file" });
});

afterAll(async () => {
  await agent?.dispose();
  await token?.dispose();
});

interface Ran {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs Python and ends its input. */
function python(args: readonly string[], input: Buffer = Buffer.alloc(0)): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn("python3", ["-B", ...args], { stdio: ["pipe", "pipe", "pipe"] });
    const out: Buffer[] = [];
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout: Buffer.concat(out), stderr }));
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}

const DOCUMENT = Buffer.from("a document of a stranger\n");
const publicKey = (kind: "rsa" | "ec") => createPublicKey(readFileSync(token.keys[kind]?.publicKeyFile ?? ""));
const fingerprint = (kind: "rsa" | "ec") =>
  createHash("sha256")
    .update(publicKey(kind).export({ type: "spki", format: "der" }))
    .digest("hex");

it("lists the keys of the snapshot, with the public keys and certificates that are on the token", async () => {
  const { code, stdout, stderr } = await python([CLIENT, agent.socket, "keys"]);
  expect([code, stderr]).toEqual([0, ""]);
  const keys = JSON.parse(stdout.toString()) as { id: string; type: string; spki: string; certificate: string | null }[];
  expect(keys.map(({ id, type }) => `${id} ${type}`).sort()).toEqual(["01 RSA", "02 EC"]);
  for (const kind of ["rsa", "ec"] as const) {
    const spki = publicKey(kind).export({ type: "spki", format: "der" }).toString("hex");
    expect(keys.filter((key) => key.spki === spki && key.certificate !== null).length).toBe(1);
  }
});

it.each(["rsa", "ec"] as const)("signs a document with the %s key by its fingerprint, and the signature is good", async (kind) => {
  const { code, stdout, stderr } = await python([CLIENT, agent.socket, "sign", fingerprint(kind), "stranger"], DOCUMENT);
  expect([code, stderr]).toEqual([0, ""]);
  expect(verify("sha256", DOCUMENT, { key: publicKey(kind), dsaEncoding: "ieee-p1363" }, stdout)).toBe(true);
  expect(verify("sha256", Buffer.from("another"), { key: publicKey(kind), dsaEncoding: "ieee-p1363" }, stdout)).toBe(false);
});

it("signs by URI, and the workstation is told the purpose", async () => {
  const { code, stdout } = await python([CLIENT, agent.socket, "sign", "pkcs11:id=%02;type=private", "from-python"], DOCUMENT);
  expect(code).toBe(0);
  expect(verify("sha256", DOCUMENT, { key: publicKey("ec"), dsaEncoding: "ieee-p1363" }, stdout)).toBe(true);
  await agent.waitFor(/from-python/);
});

it.each([
  ["a key that is not there", "pkcs11:id=%55;type=private", /^key-not-found: /],
  ["a choice of two keys", "pkcs11:type=private", /^key-ambiguous: /],
  ["a fingerprint of nothing", "00".repeat(32), /^key-not-found: /],
  ["a URI with a PIN", "pkcs11:id=%02?pin-value=1234", /protocol: sign\.key\.uri carries query attributes/],
])("is told of %s by the code that the specification names", async (_what, key, message) => {
  const { code, stdout, stderr } = await python([CLIENT, agent.socket, "sign", key], DOCUMENT);
  expect(code).toBe(1);
  expect(stdout.length).toBe(0);
  expect(stderr.split("\n").filter(Boolean).at(-1)).toMatch(message);
});

it("tells a stock server from an agent by its first byte, and writes nothing more to it", async () => {
  const stock = await startStockServer(token);
  try {
    const { code, stderr } = await python([CLIENT, stock.socket, "keys"]);
    expect(code).toBe(1);
    expect(stderr).toContain("no tokenfwd agent answers there");
  } finally {
    await stock.dispose();
  }
});

it("sends the magic alone until the agent's has come", async () => {
  const got: Buffer[] = [];
  const path = join(token.dir, "silent");
  const server = createServer((socket) => {
    socket.on("data", (chunk) => {
      got.push(chunk);
      // What a server before this protocol says.
      if (Buffer.concat(got).length >= 8) socket.end(Buffer.from([0]));
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    expect((await python([CLIENT, path, "keys"])).code).toBe(1);
    expect(Buffer.concat(got).toString("hex")).toBe("f4746f6b66776401");
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

it("reads every good vector as it is meant, and writes the canonical ones byte for byte", async () => {
  const script = `
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("client", sys.argv[1]); client = importlib.util.module_from_spec(spec); spec.loader.exec_module(client)
def revive(value):
    if isinstance(value, list): return [revive(one) for one in value]
    if not isinstance(value, dict): return value
    if list(value) == ["bytes"]: return bytes.fromhex(value["bytes"])
    if list(value) == ["number"]: return int(value["number"])
    return {name: revive(one) for name, one in value.items()}
count = 0
for path in sys.argv[2:]:
    for vector in json.load(open(path)):
        whole, message = bytes.fromhex(vector["hex"]), revive(vector["expect"])
        reader = client.Reader(whole[4:])
        assert reader.value() == message and reader.at == len(whole) - 4, vector["name"]
        if vector.get("canonical", True):
            again = client.frame(message)
            # Numbers of 64 bits have two formats of one length.
            assert again.replace(b"\\xd3", b"\\xcf") == whole.replace(b"\\xd3", b"\\xcf"), vector["name"]
        count += 1
print(count)
`;
  const files = ["requests.json", "answers.json"].map((name) => join(VECTORS, name));
  const { code, stdout, stderr } = await python(["-c", script, CLIENT, ...files]);
  expect([code, stderr]).toEqual([0, ""]);
  expect(Number(stdout.toString())).toBeGreaterThan(50);
});
