/*
 * The main job: stock programs in ssh sessions on a bastion use the workstation's token through the stock p11-kit-client.so and
 * `tokenfwd connect`, under the default profile `sign`, with a person at the workstation's terminal who is asked for the PIN.
 */
import { execFileSync } from "node:child_process";
import { createHash, constants as crypto, publicEncrypt, X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { certifiedKey, expectCleanEnd, type Forwarded, forwardToken, onBastion, quoted, said } from "./over-ssh-bastion.js";
import { startTlsServer } from "./over-ssh-tls.js";
import { type Outcome, tokenHash } from "./programs.js";

const PIN = "canary-161803";
const SPY = join(dirname(dirname(P11KIT_CLIENT)), "pkcs11-spy.so");
const TEXT = "a document that is signed from a bastion\n";
const RSA = { id: "01", mechanism: "SHA256-RSA-PKCS", event: "CKM_SHA256_RSA_PKCS" } as const;
/** The token knows ECDSA only over a digest that the program made. */
const EC = { id: "02", mechanism: "ECDSA", event: "CKM_ECDSA" } as const;

let token: SoftHsm;
let bastion: Sshd;
let dir: string;
let document: string;
let digest: string;
let uri: string;

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, label: "work token" });
  bastion = await startSshd();
  uri = `pkcs11:token=${encodeURIComponent(token.label)}`;
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
});
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-over-ssh-out-"));
  document = join(dir, "document");
  digest = join(dir, "digest");
  writeFileSync(document, TEXT);
  writeFileSync(digest, createHash("sha256").update(TEXT).digest());
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const tool = (...args: readonly string[]): string[] => ["pkcs11-tool", "--module", P11KIT_CLIENT, ...args];
const on = (argv: readonly string[], options?: Parameters<typeof onBastion>[2]): Promise<Outcome> => onBastion(bastion, argv, options);

/** pkcs11-tool's command line that signs the document. */
function signing(how: typeof RSA | typeof EC, out: string, ...login: readonly string[]): string[] {
  const input = how === EC ? ["--signature-format", "openssl", "-i", digest] : ["-i", document];
  return tool("--sign", "--id", how.id, "-m", how.mechanism, ...input, "-o", out, ...login);
}

/** What `openssl dgst -verify` says of a signature over the document. */
function verdict(name: "rsa" | "ec", signature: string): string {
  if (!existsSync(signature)) return "no signature";
  const words = ["dgst", "-sha256", "-verify", certifiedKey(token, name).publicKeyFile, "-signature", signature, document];
  return execFileSync("openssl", words, { encoding: "utf8" }).trim();
}

describe("a token that nobody has unlocked yet", () => {
  let forwarded: Forwarded;
  beforeEach(async () => {
    forwarded = await forwardToken({ token, bastion, key: "all" });
  });
  afterEach(() => forwarded?.close());

  it.each([
    ["rsa", "with a PIN that is not the token's", RSA, ["--pin", "0000"]],
    ["ec", "with no PIN at all", EC, ["--login"]],
  ] as const)("pkcs11-tool signs with the %s key %s, and the right one is typed at the workstation", async (name, _, how, login) => {
    const out = join(dir, "signature");
    const [done] = await Promise.all([on(signing(how, out, ...login)), forwarded.typePin()]);
    expect(done, said(done)).toMatchObject({ code: 0 });
    expect(verdict(name, out)).toBe("Verified OK");
    // The other way of giving the PIN does not ask again.
    const again = await on(signing(how, `${out}2`, ...(login.length === 1 ? ["--pin", "0000"] : ["--login"])));
    expect(again, said(again)).toMatchObject({ code: 0 });
    expect(verdict(name, `${out}2`)).toBe("Verified OK");
    const end = await forwarded.close();
    expectCleanEnd(end, PIN);
    expect(end.events.filter((one) => one.event === "prompt")).toMatchObject([{ kind: "pin", token: token.label }]);
    const use = { key: `${name} key`, mechanism: how.event, ok: true, rv: 0 };
    expect(end.events.filter((one) => one.event === "use")).toMatchObject([use, use]);
  });

  it("p11tool --list-all --login asks once, though it logs in six times or more", async () => {
    const list = (provider: string) => ["p11tool", "--provider", provider, "--list-all", "--login", uri];
    const calls = join(dir, "calls");
    const spied = on(list(SPY), { env: { PKCS11SPY: P11KIT_CLIENT, PKCS11SPY_OUTPUT: calls } });
    const [first] = await Promise.all([spied, forwarded.typePin()]);
    expect(first, said(first)).toMatchObject({ code: 0 });
    expect(readFileSync(calls, "latin1").match(/^\d+: C_Login$/gm)?.length).toBeGreaterThanOrEqual(6);
    const plain = await on(list(P11KIT_CLIENT));
    expect(plain, said(plain)).toMatchObject({ code: 0 });
    for (const { stdout } of [first, plain]) {
      const urls = stdout.toString().match(/URL: .*/g) ?? [];
      for (const key of ["rsa", "ec"]) expect(urls.filter((one) => one.includes(`object=${key}%20key;type=private`))).toHaveLength(1);
    }
    const end = await forwarded.close();
    expectCleanEnd(end, PIN);
    expect(end.events.filter((one) => one.event === "prompt")).toMatchObject([{ kind: "pin", token: token.label }]);
  });

  it("16 programs that start at once on it wait for one PIN, and all succeed", async () => {
    const engine = ["openssl", "dgst", "-engine", "pkcs11", "-keyform", "engine", "-sha256"];
    const kinds: readonly ((out: string) => { name: "rsa" | "ec" | null; argv: readonly string[] })[] = [
      (out) => ({ name: "rsa", argv: signing(RSA, out, "--pin", "0000") }),
      (out) => ({ name: "ec", argv: signing(EC, out, "--login") }),
      (out) => ({ name: "rsa", argv: [...engine, "-out", out, "-sign", `${uri};object=rsa%20key;type=private`, document] }),
      () => ({
        name: null,
        argv: ["p11tool", "--provider", P11KIT_CLIENT, "--login", "--test-sign", `${uri};object=ec%20key;type=private`],
      }),
    ];
    const programs = Array.from({ length: 16 }, (_, index) => {
      const out = join(dir, `${index}`);
      const kind = kinds[index % kinds.length];
      if (kind === undefined) throw new Error("no such kind");
      return { out, ...kind(`${out}.signature`) };
    });
    const lines = programs.map(({ out, argv }) => `(${argv.map(quoted).join(" ")}; echo "exit $?") >${quoted(out)} 2>&1 &`);
    const script = [`export PKCS11_MODULE_PATH=${quoted(P11KIT_CLIENT)}`, ...lines, "wait", ""].join("\n");
    const [done] = await Promise.all([on(["sh"], { input: script, timeoutMs: 50_000 }), forwarded.typePin()]);
    expect(done, said(done)).toMatchObject({ code: 0 });
    const results = programs.map(({ name, out }) => [
      readFileSync(out, "latin1").trim().split("\n").at(-1),
      name === null ? "no file" : verdict(name, `${out}.signature`),
    ]);
    const all = programs.map(({ out }) => readFileSync(out, "latin1")).join("");
    expect(results, all).toEqual(programs.map(({ name }) => ["exit 0", name === null ? "no file" : "Verified OK"]));
    const end = await forwarded.close();
    expectCleanEnd(end, PIN);
    expect(end.events.filter((one) => one.event === "prompt")).toHaveLength(1);
    expect(new Set(end.events.filter((one) => one.event === "use").map((one) => one["client"])).size).toBe(16);
  });
});

describe("a token that was unlocked before it was ready", () => {
  let forwarded: Forwarded;
  beforeAll(async () => {
    forwarded = await forwardToken({ token, bastion, key: "all", options: ["--unlock", "now"] });
  }, 60_000);
  afterAll(() => forwarded?.close());

  it.each(["rsa", "ec"] as const)("p11tool --test-sign verifies what it signs with the %s key", async (name) => {
    const key = `${uri};object=${name}%20key;type=private`;
    const done = await on(["p11tool", "--provider", P11KIT_CLIENT, "--login", "--test-sign", key]);
    expect(said(done)).toMatch(/Verifying against public key in the token\.\.\. ok/);
    expect(done.code).toBe(0);
  });

  it("ssh-keygen -D prints both public keys as ssh writes them", async () => {
    const done = await on(["ssh-keygen", "-D", P11KIT_CLIENT]);
    expect(done, said(done)).toMatchObject({ code: 0 });
    const shown = done.stdout.toString().trim().split("\n");
    const expected = (["rsa", "ec"] as const).map((name) => `${sshKey(name)} ${name} key`);
    expect(shown.sort()).toEqual(expected.sort());
  });

  it("ssh -I logs in to a further server that knows the RSA key", async () => {
    const target = await startSshd();
    try {
      writeFileSync(target.authorizedKeys, `${sshKey("rsa")}\n`, { mode: 0o600 });
      const place = ["-p", String(target.port), "-l", target.user, "-o", `UserKnownHostsFile=${target.knownHosts}`];
      const only = ["-F", "none", "-o", "IdentityAgent=none", "-o", "IdentityFile=none", "-o", "StrictHostKeyChecking=yes"];
      const done = await on(["ssh", ...only, ...place, "-I", P11KIT_CLIENT, "127.0.0.1", "echo here"]);
      expect(done, `${said(done)}${target.log()}`).toMatchObject({ code: 0 });
      expect(done.stdout.toString()).toBe("here\n");
      const file = join(dir, "rsa.pub");
      writeFileSync(file, sshKey("rsa"));
      const [, fingerprint = "none"] = execFileSync("ssh-keygen", ["-l", "-f", file], { encoding: "utf8" }).split(" ");
      expect(target.log()).toContain(`ssh2: RSA ${fingerprint}`);
      expect(target.log()).toMatch(/Accepted publickey for .* ssh2: RSA /);
    } finally {
      await target.dispose();
    }
  });

  it.each(["rsa", "ec"] as const)("openssl dgst signs with the %s key through the pkcs11 engine", async (name) => {
    const out = join(dir, "signature");
    const engine = ["openssl", "dgst", "-engine", "pkcs11", "-keyform", "engine", "-sha256", "-out", out];
    const done = await on([...engine, "-sign", `${uri};object=${name}%20key;type=private`, document], {
      env: { PKCS11_MODULE_PATH: P11KIT_CLIENT },
    });
    expect(done, said(done)).toMatchObject({ code: 0 });
    expect(verdict(name, out)).toBe("Verified OK");
  });

  it.each([
    ["rsa", "RSA-PSS"],
    ["ec", "ECDSA"],
  ] as const)("a TLS 1.3 server takes the %s key's certificate from openssl s_client with the pkcs11 engine", async (name, type) => {
    const caFile = token.caFile ?? "";
    await using server = await startTlsServer({ dir, caFile, caKeyFile: caFile.replace(/crt$/, "key") });
    const client = ["openssl", "s_client", "-connect", `127.0.0.1:${server.port}`, "-tls1_3", "-CAfile", caFile, "-verify_return_error"];
    const key = ["-engine", "pkcs11", "-keyform", "engine", "-key", `${uri};object=${name}%20key;type=private`];
    const done = await on([...client, ...key, "-cert", certifiedKey(token, name).certificateFile], {
      env: { PKCS11_MODULE_PATH: P11KIT_CLIENT },
      input: "hello over TLS\n",
    });
    expect(done, said(done)).toMatchObject({ code: 0 });
    expect(said(done)).toMatch(/New, TLSv1\.3/);
    const report = await server.report;
    expect(report).toMatch(/depth=0 CN = ops\.mcollective\nverify return:1/);
    const presented = /Client certificate\n(-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----)/.exec(report)?.[1] ?? "";
    expect(new X509Certificate(presented).fingerprint256).toBe(
      new X509Certificate(readFileSync(certifiedKey(token, name).certificateFile)).fingerprint256,
    );
    expect(report).toContain(`Peer signature type: ${type}`);
    // What a client says reaches a server only after its certificate was verified.
    expect(report).toContain("hello over TLS");
  });

  const login = ["--login", "--pin", "0000"];
  const made = ["--id", "33", "--label", "made there"];
  it.each([
    ["--keypairgen", "CKR_TOKEN_WRITE_PROTECTED", "C_GenerateKeyPair", () => [...login, "--keypairgen", "--key-type", "rsa:2048", ...made]],
    [
      "--delete-object",
      "CKR_TOKEN_WRITE_PROTECTED",
      "C_DestroyObject",
      () => [...login, "--delete-object", "--type", "privkey", "--id", "01"],
    ],
    [
      "--init-token",
      "CKR_TOKEN_WRITE_PROTECTED",
      "C_InitToken",
      () => ["--init-token", "--slot-index", "0", "--label", "other", "--so-pin", token.soPin],
    ],
    ["--change-pin", "CKR_TOKEN_WRITE_PROTECTED", "C_SetPIN", () => ["--login", "--change-pin", "--pin", PIN, "--new-pin", "4321"]],
    [
      "--decrypt with raw RSA",
      "CKR_FUNCTION_NOT_SUPPORTED",
      "C_DecryptInit",
      () => [...login, "--decrypt", "-m", "RSA-X-509", "--id", "01"],
    ],
    ["--sign with raw RSA", "CKR_MECHANISM_INVALID", "C_SignInit", () => [...login, "--sign", "-m", "RSA-X-509", "--id", "01"]],
  ] as const)("pkcs11-tool %s is refused with %s, and the token's files stay as they were", async (_, code, call, args) => {
    const key = readFileSync(certifiedKey(token, "rsa").publicKeyFile, "utf8");
    const secret = createHash("sha256").update("a session key").digest();
    const before = tokenHash(token);
    const out = join(dir, "opened");
    const input = publicEncrypt({ key, padding: crypto.RSA_PKCS1_PADDING }, secret);
    const file = join(dir, "ciphertext");
    writeFileSync(file, input);
    const done = await on(tool(...args(), ...(code === "CKR_TOKEN_WRITE_PROTECTED" ? [] : ["-i", file, "-o", out])));
    expect(said(done)).toContain(code);
    expect(done.code).not.toBe(0);
    expect(existsSync(out) && readFileSync(out).includes(secret)).toBe(false);
    expect(tokenHash(token)).toBe(before);
    await forwarded.refused(call, code);
  });

  it("all of this asked for the PIN once, and Ctrl-C takes it away from the bastion", async () => {
    const end = await forwarded.close();
    expectCleanEnd(end, PIN);
    expect(end.events.filter((one) => one.event === "prompt")).toMatchObject([{ kind: "pin", token: token.label }]);
    const gone = await on(signing(RSA, join(dir, "signature"), "--login"));
    expect(gone.code).not.toBe(0);
    expect(verdict("rsa", join(dir, "signature"))).toBe("no signature");
  });
});

/** A key's public half as ssh writes it, without a comment. */
function sshKey(name: "rsa" | "ec"): string {
  return execFileSync("ssh-keygen", ["-i", "-m", "PKCS8", "-f", certifiedKey(token, name).publicKeyFile], { encoding: "utf8" }).trim();
}
