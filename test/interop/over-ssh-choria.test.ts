/*
 * Choria's own sequence of calls on a bastion, through `tokenfwd connect --key` on a token that holds two keys and two
 * certificates: what a stock `choria` with the pkcs11 provider does, which needs exactly one of each and always passes a PIN.
 */
import { verify, X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { type CliEvent, startCli } from "./cli-process.js";
import { certifiedKey, expectCleanEnd, forwardToken, onBastion, said } from "./over-ssh-bastion.js";

const PIN = "canary-161803";
const TEXT = "a request that is signed from a bastion\n";
const SEQUENCE = fileURLToPath(new URL("choria-sequence.py", import.meta.url));

let token: SoftHsm;
let bastion: Sshd;
let dir: string;
let document: string;

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, label: "work token" });
  bastion = await startSshd();
}, 60_000);
afterAll(async () => {
  await bastion?.dispose();
  await token?.dispose();
});
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-over-ssh-out-"));
  document = join(dir, "document");
  writeFileSync(document, TEXT);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe("a token with two keys and two certificates, of which --key names one", () => {
  const key = "pkcs11:id=%01;type=private";
  const sequence = () => ["python3", SEQUENCE, P11KIT_CLIENT, "not the PIN", document];

  /** What Choria needs of its token: one key, one certificate, and ten good signatures; and nothing but this one key was used. */
  function servedChoria(printed: string, events: readonly CliEvent[]): void {
    const result = JSON.parse(printed) as { certificate: string; signatures: readonly string[] };
    expect(result).toMatchObject({ slots: 1, keys: 1, certificates: 1 });
    const certificate = new X509Certificate(Buffer.from(result.certificate, "base64"));
    expect(certificate.fingerprint256).toBe(new X509Certificate(readFileSync(certifiedKey(token, "rsa").certificateFile)).fingerprint256);
    // The sequence signs 51 bytes with CKM_RSA_PKCS: the DigestInfo of SHA-256, so this is what any verifier takes.
    const good = result.signatures.map((signature, number) =>
      verify("sha256", Buffer.from(`${TEXT}${number}`), certificate.publicKey, Buffer.from(signature, "base64")),
    );
    expect(good).toEqual(Array.from({ length: 10 }, () => true));
    expect(events.find((one) => one.event === "ready")).toMatchObject({ key, policy: "sign" });
    expect(events.filter((one) => one.event === "prompt" && one["kind"] === "pin").length).toBeLessThanOrEqual(1);
    const use = { key: "rsa key", mechanism: "CKM_RSA_PKCS", call: "C_Sign", ok: true, rv: 0 };
    expect(events.filter((one) => one.event === "use")).toMatchObject(Array.from({ length: 10 }, () => use));
  }

  it("Choria's own sequence in an ssh session signs ten times, whatever PIN it passes", async () => {
    const forwarded = await forwardToken({ token, bastion, key });
    try {
      const [done] = await Promise.all([onBastion(bastion, sequence()), forwarded.typePin()]);
      expect(done, said(done)).toMatchObject({ code: 0, stderr: "" });
      const end = await forwarded.close();
      expectCleanEnd(end, PIN);
      servedChoria(done.stdout.toString(), end.events);
    } finally {
      await forwarded.close();
    }
  });

  it("Choria's own sequence as connect's CMD signs ten times, whatever PIN it passes", async () => {
    const pin = join(dir, "pin");
    writeFileSync(pin, `${PIN}\n`, { mode: 0o600 });
    const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--key", key, "--json"];
    const cli = startCli([...words, "--pin-source", `file:${pin}`, "--", ...sequence()], {
      env: { ...token.env, XDG_STATE_HOME: join(dir, "state") },
    });
    const done = await cli.exited;
    expect(done, done.stderr).toMatchObject({ code: 0 });
    servedChoria(done.stdout.toString(), cli.events());
    expect(readdirSync(bastion.runtimeDir)).toEqual([]);
  });
});
