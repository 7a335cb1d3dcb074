/*
 * `tokenfwd choria sign-request` as the bundle has it, against our agent and against a stock p11-kit server on a real token. The
 * signatures are verified by Node's crypto with the certificate in the answer, never by us.
 */
import { randomBytes, verify, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent, startStockServer } from "./agent-process.js";
import { expectFailure, type InstalledBundle, installBundle, keyOfToken } from "./bastion-bundle.js";

let token: SoftHsm;
let bastion: InstalledBundle;

beforeAll(async () => {
  token = await createSoftHsm({ commonName: "ptittle" });
  bastion = await installBundle();
});
afterAll(async () => {
  bastion?.dispose();
  await token?.dispose();
});

/** A request as stock Choria makes it, of now. */
function request(envelope: Readonly<Record<string, unknown>> = {}): string {
  const filter = { fact: [], cf_class: [], agent: ["rpcutil"], identity: [], compound: [] };
  const requestid = randomBytes(16).toString("hex");
  const time = Math.floor(Date.now() / 1000);
  const who = {
    requestid,
    senderid: "bastion.example.net",
    callerid: "choria=joe.mcollective",
    collective: "mcollective",
    agent: "rpcutil",
  };
  const message = JSON.stringify({ agent: "rpcutil", action: "ping", data: {} });
  return JSON.stringify({ protocol: "choria:request:1", message, envelope: { ...who, ttl: 60, time, filter, ...envelope } });
}

interface Secure {
  readonly message: string;
  readonly signature: string;
  readonly pubcert: string;
}

/** Checks an answer with nothing of ours, and answers the request in it. */
function opened(stdout: Buffer): Record<string, Record<string, unknown>> {
  const { message, signature, pubcert } = JSON.parse(stdout.toString()) as Secure;
  const certificate = new X509Certificate(pubcert);
  expect(certificate.subject).toBe("CN=ptittle");
  expect(pubcert).toBe(readFileSync(keyOfToken(token, "rsa").certificateFile, "utf8"));
  expect(verify("sha256", Buffer.from(message), certificate.publicKey, Buffer.from(signature, "base64"))).toBe(true);
  return JSON.parse(message) as Record<string, Record<string, unknown>>;
}

describe("against our agent", () => {
  let agent: ServerProcess;
  beforeAll(async () => {
    agent = await startAgent({ token, pin: "file" });
  });
  afterAll(async () => {
    await agent?.dispose();
  });
  const signRequest = (input: string, ...words: string[]) =>
    bastion.run(["choria", "sign-request", ...words], { env: { TOKENFWD_SOCKET: agent.socket }, input });
  const uses = () => agent.stderr().match(/ used /g)?.length ?? 0;

  test("signs a request in the name of the certificate, with the one RSA key that has one", async () => {
    const given = request();
    const ended = await signRequest(given);
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.stringify(opened(ended.stdout))).toBe(given.replace("choria=joe.mcollective", "choria=ptittle"));
    expect(agent.stderr()).toMatch(
      / used rsa key with CKM_RSA_PKCS \(C_Sign\) for c\d+, for choria-request: rpcutil#ping in mcollective, filter: none, by choria=ptittle\n/,
    );
  });

  test("the workstation signs nothing for this purpose that it cannot read, and no digest", async () => {
    const before = uses();
    const purpose = ["sign", "--key", "pkcs11:id=%01", "--purpose", "choria-request"];
    const env = { TOKENFWD_SOCKET: agent.socket };
    for (const [words, input] of [
      [[], "junk"],
      [[], request({ callerid: "choria=ptittle root" })],
      [[], request({ extra: 1 })],
      [["--digest"], randomBytes(32)],
      [["--mechanism", "CKM_SHA512_RSA_PKCS"], request()],
    ] as const) {
      const ended = await bastion.run([...purpose, ...words], { env, input });
      expectFailure(ended, "E_REFUSED", 32);
      expect(ended.stderr).toMatch(/hint: (for|what was sent for) the purpose choria-request /);
    }
    expect(uses()).toBe(before);
    expect(agent.stderr()).toMatch(
      /refused: C_Sign for c\d+: what was sent for the purpose choria-request is not such a document \(CKR_FUNCTION_REJECTED\)/,
    );
    // What the signer would have made is signed as well when it is sent by hand.
    expect((await bastion.run(purpose, { env, input: request({ callerid: "choria=ptittle" }) })).code).toBe(0);
    expect(uses()).toBe(before + 1);
  });

  test("the workstation signs no request in the name of somebody else, whoever sends it", async () => {
    const before = uses();
    const ended = await bastion.run(["sign", "--key", "pkcs11:id=%01", "--purpose", "choria-request"], {
      env: { TOKENFWD_SOCKET: agent.socket },
      input: request({ callerid: "choria=root" }),
    });
    expectFailure(ended, "E_REFUSED", 32);
    const why = "the request names the caller choria=root, and this key's certificate is the one of choria=ptittle";
    expect(ended.stderr).toContain(`hint: ${why}\n`);
    expect(agent.stderr()).toMatch(new RegExp(`refused: C_Sign for c\\d+: ${why}`));
    expect(uses()).toBe(before);
  });

  test.each([
    ["old", () => request({ time: 1_795_418_660 }), "E_CHORIA_REQUEST", /not signed: the request was made \d+ s /],
    ["with a ttl of a day", () => request({ ttl: 86_400 }), "E_CHORIA_REQUEST", /hint: a request in batches may need more: --max-ttl/],
    ["junk", () => "junk", "E_CHORIA_REQUEST", /not signed: the request is not JSON, at character 1/],
    ["of protocol v2", () => '{"protocol":"io.choria.protocol.v2.request"}', "E_CHORIA_REQUEST", /it is a document of protocol v2/],
    ["too long", () => " ".repeat(300_000), "E_CHORIA_REQUEST", /not signed: the request has \d+ bytes, and 196608 are the most/],
  ])("refuses one that is %s, and uses no key", async (_name, given, code, text) => {
    const before = uses();
    const ended = await signRequest(given());
    expectFailure(ended, code, 50);
    expect(ended.stderr).toMatch(text);
    expect(uses()).toBe(before);
  });

  test("refuses the EC key that is named, which would end every server", async () => {
    const before = uses();
    const ended = await signRequest(request(), "--key", "pkcs11:id=%02");
    expectFailure(ended, "E_CHORIA_CERT", 50);
    expect(ended.stderr).toContain("has a key of type EC (P-256)");
    expect(uses()).toBe(before);
  });

  test("takes options alone, a longer ttl when told, and nothing from an empty stdin", async () => {
    expect((await signRequest(request({ ttl: 600 }), "--max-ttl", "600")).code).toBe(0);
    for (const words of [["--max-ttl", "29"], ["--max-ttl", "18001"], ["--key", "1234"], ["x"], ["--", "x"]]) {
      expectFailure(await signRequest(request(), ...words), "E_USAGE", 2);
    }
    expectFailure(await signRequest(""), "E_USAGE", 2);
  });
});

test("a stock p11-kit server signs the same, with the PIN from this side", async () => {
  const server = await startStockServer(token);
  try {
    const pin = join(bastion.dir, "pin");
    writeFileSync(pin, token.pin, { mode: 0o600 });
    const words = ["choria", "sign-request", "--socket", server.socket, "--pin-source", `file:${pin}`];
    const given = request();
    const ended = await bastion.run(words, { input: given });
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(opened(ended.stdout)["envelope"]?.["callerid"]).toBe("choria=ptittle");
  } finally {
    await server.dispose();
  }
});
