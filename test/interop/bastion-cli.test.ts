/*
 * `tokenfwd sign` and `tokenfwd keys` as the bundle has them, copied alone into a directory, against our agent on a real token.
 * Every signature is verified by openssl or Node, never by us.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, createPublicKey, randomBytes, verify } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent } from "./agent-process.js";
import { expectFailure, type InstalledBundle, installBundle, keyOfToken, listenBetween, verifiedByOpenssl } from "./bastion-bundle.js";
import { runCli, startCli } from "./cli-process.js";

const PIN = "31415926";
const DOCUMENT = Buffer.from("a document that is to be signed\n");
const RSA_KEY = "pkcs11:object=rsa%20key;type=private";
const EC_KEY = "pkcs11:id=%02;type=private";
let token: SoftHsm;
let bastion: InstalledBundle;

const keyOf = (name: "rsa" | "ec") => keyOfToken(token, name);
const spkiHex = (name: "rsa" | "ec") => keyOf(name).spkiHex;
const opensslVerifies = (name: "rsa" | "ec", document: Buffer, signature: Buffer, hash = "sha256") =>
  verifiedByOpenssl(keyOf(name).publicKeyFile, document, signature, hash);
const rawVerifies = (document: Buffer, signature: Buffer): boolean =>
  verify("sha256", document, { key: keyOf("ec").publicKey, dsaEncoding: "ieee-p1363" }, signature);

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN });
  bastion = await installBundle();
});
afterAll(async () => {
  bastion?.dispose();
  await token?.dispose();
});

describe("against our agent", () => {
  let agent: ServerProcess;
  beforeAll(async () => {
    agent = await startAgent({ token, pin: "file" });
  });
  afterAll(async () => {
    await agent?.dispose();
  });
  const run = (words: readonly string[], input?: Buffer | string) =>
    bastion.run(words, { env: { TOKENFWD_SOCKET: agent.socket }, ...(input === undefined ? {} : { input }) });
  const uses = () => agent.stderr().match(/ used /g)?.length ?? 0;

  test("keys --json is the pinned document, and its spki and uri name the key for sign", async () => {
    const { code, stdout, stderr } = await run(["keys", "--json"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const document = JSON.parse(stdout.toString()) as { v: number; keys: Record<string, unknown>[] };
    expect(document.v).toBe(1);
    const byLabel = new Map(document.keys.map((key) => [key["label"], key]));
    expect([...byLabel.keys()].sort()).toEqual(["ec key", "rsa key"]);
    expect(byLabel.get("rsa key")).toEqual({
      uri: expect.stringMatching(/^pkcs11:.*;id=%01;.*type=private$/),
      label: "rsa key",
      id: "01",
      type: "RSA",
      bits: 2048,
      spki: spkiHex("rsa"),
      certificate: {
        subject: "CN=ops.mcollective",
        issuer: "CN=tokenfwd test CA",
        notAfter: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      },
      mechanisms: expect.arrayContaining(["CKM_RSA_PKCS", "CKM_SHA256_RSA_PKCS"]),
    });
    expect(byLabel.get("ec key")).toMatchObject({ id: "02", type: "EC", curve: "P-256", spki: spkiHex("ec") });
    expect(byLabel.get("ec key")).not.toHaveProperty("bits");
    const uri = String(byLabel.get("rsa key")?.["uri"]);
    expect(opensslVerifies("rsa", DOCUMENT, (await run(["sign", "--key", uri], DOCUMENT)).stdout)).toBe(true);
  });

  test("the workstation's own program has the same commands", async () => {
    const env = { ...bastion.env, TOKENFWD_SOCKET: agent.socket };
    const listed = await runCli(["keys", "--json"], { env });
    expect(listed).toMatchObject({ code: 0, stderr: "", stdout: (await run(["keys", "--json"])).stdout });
    const signed = await runCli(["sign", "--key", RSA_KEY], { env, input: DOCUMENT });
    expect(opensslVerifies("rsa", DOCUMENT, signed.stdout)).toBe(true);
    expectFailure(await runCli(["keys", "--json", "--", "x"], { env }), "E_USAGE", 2);
    expectFailure(await runCli(["keys", "--json", "--socket", "/"], { env }), "E_AGENT_SOCKET", 40);
  });

  test("keys for a person has lines with the URI and the certificate", async () => {
    const { code, stdout } = await run(["keys"]);
    expect(code).toBe(0);
    expect(stdout.toString()).toMatch(/^ec key\n {2}key {4}EC P-256, id 02\n {2}uri {4}'pkcs11:.*'\n {2}spki {3}[0-9a-f]{64}\n/m);
    expect(stdout.toString()).toMatch(/\n {2}cert {3}CN=ops\.mcollective\n {2}from {3}CN=tokenfwd test CA\n {2}until {2}\d{4}-.*Z\n/);
  });

  test("RSA signs with CKM_SHA256_RSA_PKCS by itself, with others when told, and the workstation is shown what for", async () => {
    const plain = await run(["sign", "--key", RSA_KEY, "--purpose", "release"], DOCUMENT);
    expect(plain).toMatchObject({ code: 0, stderr: "" });
    expect(opensslVerifies("rsa", DOCUMENT, plain.stdout)).toBe(true);
    await agent.waitFor(/used rsa key with CKM_SHA256_RSA_PKCS .*release/);
    const longer = await run(["sign", "--key", RSA_KEY, "--mechanism", "CKM_SHA512_RSA_PKCS"], DOCUMENT);
    expect(opensslVerifies("rsa", DOCUMENT, longer.stdout, "sha512")).toBe(true);
  });

  test("EC signs as r and s, and with --der as openssl takes it; --base64 is the same in text", async () => {
    const raw = await run(["sign", "--spki", spkiHex("ec")], DOCUMENT);
    expect(raw).toMatchObject({ code: 0, stderr: "" });
    expect(raw.stdout).toHaveLength(64);
    expect(rawVerifies(DOCUMENT, raw.stdout)).toBe(true);
    const der = await run(["sign", "--spki", spkiHex("ec").toUpperCase(), "--der"], DOCUMENT);
    expect(opensslVerifies("ec", DOCUMENT, der.stdout)).toBe(true);
    const text = await run(["sign", "--key", EC_KEY, "--der", "--base64"], DOCUMENT);
    expect(text.stdout.toString()).toMatch(/^[A-Za-z0-9+/]+=*\n$/);
    expect(opensslVerifies("ec", DOCUMENT, Buffer.from(text.stdout.toString(), "base64"))).toBe(true);
  });

  test("--digest signs a digest as if it had been the document", async () => {
    const digest = createHash("sha256").update(DOCUMENT).digest();
    expect(opensslVerifies("rsa", DOCUMENT, (await run(["sign", "--key", RSA_KEY, "--digest"], digest)).stdout)).toBe(true);
    expect(opensslVerifies("ec", DOCUMENT, (await run(["sign", "--key", EC_KEY, "--digest", "--der"], digest)).stdout)).toBe(true);
    const longer = createHash("sha384").update(DOCUMENT).digest();
    const words = ["sign", "--key", RSA_KEY, "--digest", "--mechanism", "CKM_SHA384_RSA_PKCS"];
    expect(opensslVerifies("rsa", DOCUMENT, (await run(words, longer)).stdout, "sha384")).toBe(true);
  });

  test("a document of many megabytes is signed, as a whole", async () => {
    const long = randomBytes(5 * 1024 * 1024);
    const rsa = await run(["sign", "--key", RSA_KEY], long);
    expect(rsa).toMatchObject({ code: 0, stderr: "" });
    expect(opensslVerifies("rsa", long, rsa.stdout)).toBe(true);
    const ec = await run(["sign", "--key", EC_KEY, "--mechanism", "CKM_ECDSA_SHA256", "--der"], long);
    expect(opensslVerifies("ec", long, ec.stdout)).toBe(true);
    // And one that just fits goes as it is.
    const fits = long.subarray(0, 1000 * 1024);
    expect(opensslVerifies("rsa", fits, (await run(["sign", "--key", RSA_KEY], fits)).stdout)).toBe(true);
  });

  test("--expect-cert signs with the certificate's key, and with another signs nothing", async () => {
    const { certificateFile } = keyOf("rsa");
    const right = await run(["sign", "--key", RSA_KEY, "--expect-cert", certificateFile], DOCUMENT);
    expect(opensslVerifies("rsa", DOCUMENT, right.stdout)).toBe(true);
    const der = join(bastion.dir, "rsa.der");
    writeFileSync(der, execFileSync("openssl", ["x509", "-in", certificateFile, "-outform", "DER"]));
    expect((await run(["sign", "--key", RSA_KEY, "--expect-cert", der], DOCUMENT)).code).toBe(0);
    const before = uses();
    expectFailure(await run(["sign", "--key", RSA_KEY, "--expect-cert", keyOf("ec").certificateFile], DOCUMENT), "E_KEY_MISMATCH", 20);
    expect(uses()).toBe(before);
  });

  test("what cannot be signed ends with its own status, nothing on stdout, and no use of a key", async () => {
    const before = uses();
    const sign = (...words: string[]) => run(["sign", ...words], DOCUMENT);
    expectFailure(await sign("--key", "pkcs11:object=nothing;type=private"), "E_KEY_NOT_FOUND", 20);
    expectFailure(await sign("--spki", "00".repeat(32)), "E_KEY_NOT_FOUND", 20);
    expectFailure(await sign("--key", "pkcs11:type=private"), "E_KEY_CHOICE", 20);
    const der = await sign("--key", RSA_KEY, "--der");
    expectFailure(der, "E_MECHANISM", 20);
    expect(der.stderr).toContain("--der is for ECDSA keys");
    expectFailure(await sign("--key", RSA_KEY, "--mechanism", "CKM_ECDSA"), "E_MECHANISM", 20);
    expectFailure(await sign("--key", EC_KEY, "--mechanism", "CKM_ECDSA"), "E_MECHANISM", 20);
    const secret = await sign("--key", `${RSA_KEY}?pin-value=${PIN}`);
    expectFailure(secret, "E_USAGE", 2);
    expect(secret.stderr).not.toContain(PIN);
    expect(uses()).toBe(before);
  });

  test("a signature is one flight there and one back, and so is the list of keys", async () => {
    for (const words of [
      ["sign", "--key", EC_KEY],
      ["keys", "--json"],
    ]) {
      const tap = await listenBetween(agent.socket);
      try {
        const ended = await bastion.run(words, { env: { TOKENFWD_SOCKET: tap.path }, input: DOCUMENT });
        expect(ended).toMatchObject({ code: 0, stderr: "" });
        expect(tap.flights()).toEqual(["there", "back"]);
      } finally {
        await tap.close();
      }
    }
  });

  test("a PIN source is not used, which is said, and the signature is made", async () => {
    const ended = await run(["sign", "--key", RSA_KEY, "--pin-source", `file:${join(bastion.dir, "none")}`], DOCUMENT);
    expect(ended).toMatchObject({ code: 0, stderr: expect.stringContaining("warning: --pin-source was not used") });
    expect(opensslVerifies("rsa", DOCUMENT, ended.stdout)).toBe(true);
  });

  test("a signature that cannot be written is a failure, not a silence", async () => {
    const line = `"$1" sign --key "${RSA_KEY}" > /dev/full`;
    const env = { ...bastion.env, TOKENFWD_SOCKET: agent.socket };
    const ended = spawnSync("sh", ["-c", line, "sh", bastion.program], { env, input: DOCUMENT, encoding: "utf8" });
    expect(ended).toMatchObject({ status: 1, stderr: expect.stringContaining("[E_OUTPUT 1]") });
  });

  test("on a terminal bytes are refused and text is written", async () => {
    const env = { ...bastion.env, TOKENFWD_SOCKET: agent.socket };
    const file = join(bastion.dir, "document");
    writeFileSync(file, DOCUMENT);
    const line = (more: string) => ["sh", "-c", `"$1" sign --key '${RSA_KEY}' ${more} < "$2"`, "sh", bastion.program, file];
    const bytes = await runUnderPty({ argv: line(""), env });
    expect(bytes).toMatchObject({ exitCode: 2, output: expect.stringContaining("--base64") });
    const text = await runUnderPty({ argv: line("--base64"), env });
    expect(text.exitCode).toBe(0);
    expect(opensslVerifies("rsa", DOCUMENT, Buffer.from(text.output.trim(), "base64"))).toBe(true);
  });

  test("Ctrl-C while the document is still being typed ends it with 130", async () => {
    const cli = startCli(["sign", "--key", RSA_KEY], {
      program: bastion.program,
      env: { ...bastion.env, TOKENFWD_SOCKET: agent.socket },
      stdin: "pipe",
    });
    cli.child.stdin?.write(Buffer.alloc(65_536));
    await new Promise((resolve) => cli.child.stdin?.write(Buffer.alloc(1 << 20), resolve));
    cli.child.kill("SIGINT");
    const { code, stdout, stderr } = await cli.exited;
    expect({ code, stdout: stdout.length, stderr }).toEqual({
      code: 130,
      stdout: 0,
      stderr: "tokenfwd: interrupted [E_INTERRUPTED 130]\n",
    });
  });
});

test("an Ed25519 key, which stock clients hide, signs the document itself and refuses a digest in its place", async () => {
  await using ed = await createSoftHsm({ pin: PIN, objects: "none" });
  const made = await ed.pkcs11Tool("--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:edwards25519", "--id", "03", "--label", "ed");
  const point = /EC_POINT:\s+0420([0-9a-f]{64})/.exec(made.stdout)?.[1] ?? "";
  const spki = Buffer.from(`302a300506032b6570032100${point}`, "hex");
  const agent = await startAgent({ token: ed, pin: "file" });
  try {
    const env = { TOKENFWD_SOCKET: agent.socket };
    const words = ["sign", "--spki", createHash("sha256").update(spki).digest("hex")];
    const signed = await bastion.run(words, { env, input: DOCUMENT });
    expect(signed).toMatchObject({ code: 0, stderr: "" });
    expect(verify(null, DOCUMENT, createPublicKey({ key: spki, format: "der", type: "spki" }), signed.stdout)).toBe(true);
    expectFailure(await bastion.run([...words, "--digest"], { env, input: Buffer.alloc(32, 0xee) }), "E_MECHANISM", 20);
    const long = await bastion.run(words, { env, input: Buffer.alloc(2 << 20) });
    expectFailure(long, "E_MECHANISM", 20);
    expect(long.stderr).toContain("hint: a document this long is signed as its digest");
  } finally {
    await agent.dispose();
  }
});

describe("without an agent", () => {
  test("it says where it looked, and that a named socket is not one", async () => {
    const nowhere = await bastion.run(["keys"]);
    expectFailure(nowhere, "E_AGENT_NOT_FOUND", 40);
    expect(nowhere.stderr).toContain(bastion.dir);
    expectFailure(await bastion.run(["keys", "--socket", join(bastion.dir, "none")]), "E_AGENT_SOCKET", 40);
    expectFailure(await bastion.run(["sign", "--key", RSA_KEY, "--socket", bastion.program], { input: DOCUMENT }), "E_AGENT_SOCKET", 40);
  });

  test("a directory or nothing at all on stdin is not a document", async () => {
    for (const stdin of ["< /", "< /dev/null", "<&-"]) {
      const words = ["-c", `"$1" sign --key '${RSA_KEY}' ${stdin}`, "sh", bastion.program];
      const ended = spawnSync("sh", words, { env: bastion.env, encoding: "utf8" });
      expect(ended, stdin).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining("stdin holds nothing to sign") });
    }
  });
});
