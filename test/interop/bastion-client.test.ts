/*
 * The client for a bastion against real peers: our agent on a SoftHSM token, and stock p11-kit's server.
 */
import { createHash, createPublicKey, constants as cryptoConstants, type KeyObject, verify, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TokenfwdError } from "../../src/base/errors.js";
import { type ConnectOptions, connectClient, type SignMessage, type TokenfwdClient } from "../../src/bastion/client/index.js";
import { spkiFingerprint } from "../../src/cryptoki/keys/spki.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { MAGIC } from "../../src/wire/rpc/messages.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { createTapProxy, roundTrips, type TapProxy } from "../support/tap-proxy.js";
import { type ServerProcess, startAgent, startStockServer } from "./agent-process.js";

const DOCUMENT = Buffer.from("a document of some length, signed by a token that is elsewhere");

let token: SoftHsm;
let agent: ServerProcess;
let stock: ServerProcess;
let rsa: KeyObject;
let ec: KeyObject;

beforeAll(async () => {
  token = await createSoftHsm();
  const where = ["--token-label", token.label, "--login", "--pin", token.pin];
  await token.pkcs11Tool(...where, "--keypairgen", "--key-type", "EC:edwards25519", "--id", "03", "--label", "ed key");
  // A chain as users store it: the CA under an id of its own, and once more under the key's.
  const ca = join(token.dir, "ca.der");
  writeFileSync(ca, new X509Certificate(readFileSync(token.caFile ?? "")).raw);
  for (const id of ["09", "02"]) {
    await token.pkcs11Tool(...where, "--write-object", ca, "--type", "cert", "--id", id, "--label", "the CA");
  }
  rsa = createPublicKey(readFileSync(token.keys.rsa?.publicKeyFile ?? ""));
  ec = createPublicKey(readFileSync(token.keys.ec?.publicKeyFile ?? ""));
  agent = await startAgent({ token, pin: "file" });
  stock = await startStockServer(token);
});
afterAll(async () => {
  await stock?.dispose();
  await agent?.dispose();
  await token?.dispose();
});

const asked = (key: { uri?: string; spki?: Buffer }, more: Partial<SignMessage> = {}): SignMessage => ({
  key: { uri: key.uri ?? null, spki: key.spki ?? null },
  mechanism: null,
  parameter: null,
  data: DOCUMENT,
  isDigest: false,
  purpose: "test",
  expect: null,
  ...more,
});

const der = (key: KeyObject) => key.export({ type: "spki", format: "der" });
const ecVerified = (signature: Buffer, data = DOCUMENT) => verify("sha256", data, { key: ec, dsaEncoding: "ieee-p1363" }, signature);

/** Options for one of the two servers; the PIN is of use at the stock one alone. */
const at =
  (server: () => ServerProcess, pin: string): (() => ConnectOptions) =>
  () => ({
    socket: server().socket,
    env: {},
    pin: async () => Buffer.from(pin),
  });

async function failure(work: Promise<unknown>): Promise<TokenfwdError> {
  const thrown = await work.then(
    () => null,
    (error: unknown) => error,
  );
  if (!(thrown instanceof TokenfwdError)) throw new Error(`no TokenfwdError but ${String(thrown)}`);
  return thrown;
}

describe.each([
  { name: "our agent", protocol: "tokenfwd", server: () => agent },
  { name: "stock p11-kit server", protocol: "p11-kit", server: () => stock },
])("the bastion's client at $name", ({ protocol, server }) => {
  const options = at(server, "1234");
  let client: TokenfwdClient;
  beforeAll(async () => {
    client = await connectClient(options());
  });
  afterAll(async () => client?.close());

  it("knows what it speaks to", () => {
    expect(client.protocol).toBe(protocol);
    expect(client.socket).toBe(server().socket);
  });

  it("lists the keys with their public keys and certificates, before and after", async () => {
    for (const keys of [await client.keys(), await client.keys()]) {
      expect(keys.map((key) => key.id.toString("hex")).sort()).toEqual(["01", "02", "03"]);
      const [first, second] = ["01", "02"].map((id) => keys.find((key) => key.id.toString("hex") === id));
      expect(first).toMatchObject({ type: "RSA", bits: 2048, curve: null });
      expect(first?.spki?.equals(der(rsa))).toBe(true);
      expect(first?.label.toString()).toBe("rsa key");
      expect(second).toMatchObject({ type: "EC", bits: null, curve: "P-256" });
      expect(second?.spki?.equals(der(ec))).toBe(true);
      expect(new X509Certificate(second?.certificate ?? "").subject).toBe("CN=ops.mcollective");
      expect(second?.mechanisms).toContain(CKM.CKM_ECDSA);
    }
  });

  it("signs with RSA by URI, and with EC by the fingerprint of the public key", async () => {
    const byUri = await client.signer.sign(asked({ uri: "pkcs11:id=%01" }));
    expect(verify("sha256", DOCUMENT, rsa, byUri.signature)).toBe(true);
    expect(byUri.mechanism).toBe(CKM.CKM_SHA256_RSA_PKCS);
    expect(byUri.spki?.equals(der(rsa))).toBe(true);
    const bySpki = await client.signer.sign(asked({ spki: spkiFingerprint(der(ec)) }));
    expect(bySpki.mechanism).toBe(CKM.CKM_ECDSA_SHA256);
    expect(bySpki.signature).toHaveLength(64);
    expect(ecVerified(bySpki.signature)).toBe(true);
  });

  it("signs a digest as it would the document", async () => {
    const digest = createHash("sha256").update(DOCUMENT).digest();
    const withRsa = await client.signer.sign(asked({ uri: "pkcs11:id=%01" }, { data: digest, isDigest: true }));
    expect(verify("sha256", DOCUMENT, rsa, withRsa.signature)).toBe(true);
    const withEc = await client.signer.sign(asked({ uri: "pkcs11:id=%02" }, { data: digest, isDigest: true }));
    expect(ecVerified(withEc.signature)).toBe(true);
  });

  it("makes ECDSA of any hash, also of one longer than the curve", async () => {
    const key = { key: ec, dsaEncoding: "ieee-p1363" } as const;
    const named = await client.signer.sign(asked({ uri: "pkcs11:id=%02" }, { mechanism: CKM.CKM_ECDSA_SHA384 }));
    expect(verify("sha384", DOCUMENT, key, named.signature)).toBe(true);
    const digest = createHash("sha512").update(DOCUMENT).digest();
    const made = await client.signer.sign(asked({ uri: "pkcs11:object=ec%20key;type=cert" }, { data: digest, isDigest: true }));
    expect(verify("sha512", DOCUMENT, key, made.signature)).toBe(true);
  });

  it("signs with PSS, whose parameter it fills in", async () => {
    const { signature } = await client.signer.sign(asked({ uri: "pkcs11:id=%01" }, { mechanism: CKM.CKM_SHA384_RSA_PKCS_PSS }));
    const key = { key: rsa, padding: cryptoConstants.RSA_PKCS1_PSS_PADDING, saltLength: 48 };
    expect(verify("sha384", DOCUMENT, key, signature)).toBe(true);
  });

  it("signs nothing when the token's key is not the expected one", async () => {
    const wrong = await failure(client.signer.sign(asked({ uri: "pkcs11:id=%01" }, { expect: der(ec) })));
    expect(wrong.code).toBe("E_KEY_MISMATCH");
    const right = await client.signer.sign(asked({ uri: "pkcs11:id=%01" }, { expect: der(rsa) }));
    expect(verify("sha256", DOCUMENT, rsa, right.signature)).toBe(true);
  });

  it("says which of the things it was asked for cannot be", async () => {
    const codes = await Promise.all(
      [
        asked({ uri: "pkcs11:id=%77" }),
        asked({ uri: "pkcs11:token=tokenfwd%20test;type=private" }),
        asked({ uri: "pkcs11:id=%02" }, { mechanism: CKM.CKM_SHA256_RSA_PKCS }),
        asked({ uri: "pkcs11:id=%02" }, { mechanism: CKM.CKM_ECDSA }),
        asked({ uri: "pkcs11:id=%02" }, { isDigest: true }),
      ].map(async (request) => (await failure(client.signer.sign(request))).code),
    );
    expect(codes).toEqual(["E_KEY_NOT_FOUND", "E_KEY_CHOICE", "E_MECHANISM", "E_MECHANISM", "E_USAGE"]);
  });

  it("overlaps a hundred signatures and keeps each to its document", async () => {
    const documents = Array.from({ length: 100 }, (_, index) => Buffer.from(`document ${index}`));
    const made = await Promise.all(documents.map((data) => client.signer.sign(asked({ uri: "pkcs11:id=%02" }, { data }))));
    expect(documents.every((data, index) => ecVerified(made[index]?.signature ?? Buffer.alloc(64), data))).toBe(true);
  });

  it("takes a request back", async () => {
    const stop = new AbortController();
    const signing = client.signer.sign(asked({ uri: "pkcs11:id=%01" }), { signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(signing).rejects.toThrow("enough");
    const next = await client.signer.sign(asked({ uri: "pkcs11:id=%01" }));
    expect(verify("sha256", DOCUMENT, rsa, next.signature)).toBe(true);
  });
});

describe("the first flight", () => {
  async function withProxy<T>(server: ServerProcess, run: (proxy: TapProxy) => Promise<T>): Promise<T> {
    const proxy = await createTapProxy(server.socket);
    try {
      return await run(proxy);
    } finally {
      await proxy.dispose();
    }
  }

  it("takes one trip to a signature where the socket is known to be ours", async () => {
    await withProxy(agent, async (proxy) => {
      await using client = await connectClient({ env: { TOKENFWD_SOCKET: proxy.socket }, snapshot: false });
      const { signature } = await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      expect(ecVerified(signature)).toBe(true);
      expect(proxy.connections.map(roundTrips)).toEqual([1]);
      expect(proxy.connections[0]?.sent.filter(({ from }) => from === "client")).toHaveLength(1);
    });
  });

  it("takes two trips where it has to find out first, and one for each signature after that", async () => {
    await withProxy(agent, async (proxy) => {
      await using client = await connectClient({ socket: proxy.socket, env: {}, snapshot: false });
      await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      expect(proxy.connections.map(roundTrips)).toEqual([2]);
      await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      expect(proxy.connections.map(roundTrips)).toEqual([3]);
    });
  });

  it("lists all keys in one trip", async () => {
    await withProxy(agent, async (proxy) => {
      await using client = await connectClient({ env: { TOKENFWD_SOCKET: proxy.socket } });
      expect((await client.keys()).length).toBeGreaterThanOrEqual(2);
      expect(proxy.connections.map(roundTrips)).toEqual([1]);
    });
  });

  it("sends nothing but the magic to a stock server before it knows, and the PIN in C_Login alone", async () => {
    await withProxy(stock, async (proxy) => {
      const pin = Buffer.from("1234");
      await using client = await connectClient({ socket: proxy.socket, env: {}, pin: async () => pin });
      await client.keys();
      await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      const [first, second] = proxy.connections.map(({ sent }) => sent.filter(({ from }) => from === "client").map(({ bytes }) => bytes));
      expect(Buffer.concat(first ?? [])).toEqual(MAGIC);
      const withPin = (second ?? []).filter((bytes) => bytes.includes("1234"));
      expect(withPin).toHaveLength(1);
      // code, options length, body length; then the options and the call's id, 18 being C_Login.
      const frame = withPin[0] ?? Buffer.alloc(0);
      expect(frame.readUInt32BE(12 + frame.readUInt32BE(4))).toBe(18);
      expect(pin.every((byte) => byte === 0)).toBe(true);
    });
  });

  it("falls back to a stock server also where an agent was expected", async () => {
    await withProxy(stock, async (proxy) => {
      await using client = await connectClient({
        env: { TOKENFWD_SOCKET: proxy.socket },
        snapshot: false,
        pin: async () => Buffer.from("1234"),
      });
      const { signature } = await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      expect(ecVerified(signature)).toBe(true);
      expect(client.protocol).toBe("p11-kit");
    });
  });

  it("connects anew for the call after a loss, and says that the one before was lost", async () => {
    await withProxy(agent, async (proxy) => {
      await using client = await connectClient({ socket: proxy.socket, env: {} });
      const epochs: number[] = [];
      client.events.on("epoch", ({ epoch }) => epochs.push(epoch));
      await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      const cut = client.signer.sign(asked({ uri: "pkcs11:id=%01" }));
      const lost = failure(cut);
      await new Promise(setImmediate);
      proxy.cut();
      expect((await lost).code).toBe("E_AGENT_LOST");
      const again = await client.signer.sign(asked({ uri: "pkcs11:id=%02" }));
      expect(ecVerified(again.signature)).toBe(true);
      expect(proxy.connections).toHaveLength(2);
      expect(epochs).toContain(2);
    });
  });
});

describe("what only our agent can do", () => {
  it("signs with an Ed25519 key, which no stock client can", async () => {
    await using client = await connectClient({ socket: agent.socket, env: {} });
    const key = (await client.keys()).find(({ id }) => id.toString("hex") === "03");
    expect(key).toMatchObject({ type: "EdDSA", curve: "Ed25519", mechanisms: [CKM.CKM_EDDSA] });
    const { signature, mechanism, spki } = await client.signer.sign(asked({ uri: key?.uri ?? "" }));
    expect(mechanism).toBe(CKM.CKM_EDDSA);
    const publicKey = createPublicKey({ key: spki ?? Buffer.alloc(0), format: "der", type: "spki" });
    expect(verify(null, DOCUMENT, publicKey, signature)).toBe(true);
    expect((await failure(client.signer.sign(asked({ uri: key?.uri ?? "" }, { data: Buffer.alloc(32), isDigest: true })))).code).toBe(
      "E_MECHANISM",
    );
  });

  it("says what it thinks of this connection", async () => {
    await using client = await connectClient({ socket: agent.socket, env: {} });
    expect(await client.status()).toMatchObject({ policy: "sign", origin: { kind: "local" } });
  });
});

describe("an agent that takes the client's PIN", () => {
  it("gets it in a log-in when a signature wants one, and is an error of its own without", async () => {
    const server = await startAgent({ token, pin: "client" });
    try {
      const request = asked({ uri: "pkcs11:id=%02" });
      await using without = await connectClient({ socket: server.socket, env: {} });
      expect((await failure(without.signer.sign(request))).code).toBe("E_PIN_SOURCE");
      const pin = Buffer.from(token.pin);
      await using client = await connectClient({ socket: server.socket, env: {}, pin: async () => pin });
      for (let index = 0; index < 2; index += 1) expect(ecVerified((await client.signer.sign(request)).signature)).toBe(true);
      expect(client.protocol).toBe("tokenfwd");
      expect(pin.every((byte) => byte === 0)).toBe(true);
    } finally {
      await server.dispose();
    }
  });
});

describe("a token that hides its keys until a log-in", () => {
  it.each([
    { name: "an agent that takes the client's PIN", pin: "client", listed: 1, questions: 1 },
    { name: "an agent that has its own", pin: "file", listed: 0, questions: 0 },
  ] as const)("is asked for with a PIN from here by $name: $questions", async ({ pin, listed, questions }) => {
    const own = await createSoftHsm({ objects: "rsa", certificates: false });
    await own.pkcs11Tool("--token-label", own.label, "--login", "--pin", own.pin, "--delete-object", "--type", "pubkey", "--id", "01");
    const server = await startAgent({ token: own, pin });
    try {
      await using without = await connectClient({ socket: server.socket, env: {} });
      expect(await without.keys()).toEqual([]);
      let asked = 0;
      const answer = async () => {
        asked += 1;
        return Buffer.from(own.pin);
      };
      await using client = await connectClient({ socket: server.socket, env: {}, pin: answer });
      expect([(await client.keys()).length, asked]).toEqual([listed, questions]);
    } finally {
      await server.dispose();
      await own.dispose();
    }
  });
});

describe("a PIN at a stock server", () => {
  it("is tried once when it is wrong, and not again", async () => {
    const own = await createSoftHsm({ objects: "ec", certificates: false });
    const server = await startStockServer(own);
    try {
      let questions = 0;
      const pin = async () => {
        questions += 1;
        return Buffer.from("9999");
      };
      await using client = await connectClient({ socket: server.socket, env: {}, pin });
      const request = asked({ uri: "pkcs11:object=ec%20key" });
      const [first, second] = [await failure(client.signer.sign(request)), await failure(client.signer.sign(request))];
      expect([first.code, second.code]).toEqual(["E_PIN_WRONG", "E_PIN_WRONG"]);
      expect(second.message).toContain("not tried again");
      expect(questions).toBe(2);
    } finally {
      await server.dispose();
      await own.dispose();
    }
  });

  it("is missed with a code of its own when there is nothing to ask with", async () => {
    await using client = await connectClient({ socket: stock.socket, env: {} });
    expect((await failure(client.signer.sign(asked({ uri: "pkcs11:id=%02" })))).code).toBe("E_PIN_SOURCE");
  });

  it("is not asked for when the request cannot be carried out", async () => {
    let questions = 0;
    const pin = async () => {
      questions += 1;
      return null;
    };
    await using client = await connectClient({ socket: stock.socket, env: {}, pin });
    await failure(client.signer.sign(asked({ uri: "pkcs11:id=%02" }, { mechanism: CKM.CKM_ECDSA })));
    await failure(client.signer.sign(asked({ uri: "pkcs11:id=%01" }, { expect: der(ec) })));
    expect(questions).toBe(0);
    expect((await failure(client.signer.sign(asked({ uri: "pkcs11:id=%01" })))).code).toBe("E_PIN_CANCELLED");
  });
});
