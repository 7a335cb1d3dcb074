/*
 * A TPM as the token: swtpm with libtpm2-pkcs11, served by our agent to stock pkcs11-tool, and listed beside a SoftHSM. OpenSSL
 * checks the signatures.
 */
import { execFile } from "node:child_process";
import { createHash, createPublicKey, verify } from "node:crypto";
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createSoftHsm } from "../support/softhsm.js";
import { createSwTpm, type SwTpm } from "../support/swtpm.js";
import { P11KIT_CLIENT, startAgent } from "./agent-process.js";
import { runCli } from "./cli-process.js";

const execute = promisify(execFile);

let tpm: SwTpm;
let dir: string;

beforeAll(async () => {
  tpm = await createSwTpm();
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-tpm-"));
});
afterAll(async () => {
  await tpm?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

/** The stock client knows no ECDSA-SHA256 and hides it. */
const KEYS = [
  ["RSA", "01", "SHA256-RSA-PKCS"],
  ["P-256", "02", "ECDSA"],
] as const;

/** Stock pkcs11-tool signs with this key at that address; OpenSSL checks the signature with the public key that is read there. */
async function signAndCheck(address: string, id: string, mechanism: string, pin: readonly string[]): Promise<boolean> {
  const data = Buffer.from("what is signed with a TPM");
  const [input, signature, spki] = ["in", "sig", "der"].map((ending) => join(dir, `${id}.${ending}`)) as [string, string, string];
  const raw = mechanism === "ECDSA";
  writeFileSync(input, raw ? createHash("sha256").update(data).digest() : data);
  const client = (...args: string[]) =>
    execute("pkcs11-tool", ["--module", P11KIT_CLIENT, ...args], { env: { ...process.env, P11_KIT_SERVER_ADDRESS: address } });
  await client("--sign", "--login", ...pin, "--id", id, "--mechanism", mechanism, "--input-file", input, "--output-file", signature);
  await client("--read-object", "--type", "pubkey", "--id", id, "--output-file", spki);
  const key = createPublicKey({ key: readFileSync(spki), format: "der", type: "spki" });
  return verify("sha256", data, raw ? { key, dsaEncoding: "ieee-p1363" } : key, readFileSync(signature));
}

it.each(KEYS)("signs with %s for stock pkcs11-tool through the agent, which has the PIN", async (_name, id, mechanism) => {
  const agent = await startAgent({ token: tpm, pin: "file", args: ["--key", `pkcs11:id=%${id}`] });
  try {
    expect(await signAndCheck(agent.address, id, mechanism, [])).toBe(true);
    expect(await signAndCheck(agent.address, id, mechanism, [])).toBe(true);
  } finally {
    await agent.dispose();
  }
});

// Each client's end logs the token out, and the TPM, which has no resource manager here, lets go of the key.
it("signs with one key after the other through one agent, with the PIN that the client sends", async () => {
  const agent = await startAgent({ token: tpm, pin: "client" });
  try {
    for (const [, id, mechanism] of [...KEYS, ...KEYS])
      expect([id, await signAndCheck(agent.address, id, mechanism, ["--pin", tpm.pin])]).toEqual([id, true]);
  } finally {
    await agent.dispose();
  }
});

it("is listed with its public keys beside a SoftHSM, each under its own module", async () => {
  await using hsm = await createSoftHsm({ label: "soft one", objects: "ec" });
  const env = { ...tpm.env, SOFTHSM2_CONF: hsm.configFile };
  const done = await runCli(["token", "list", "--json"], { env });
  expect(done.code, done.stderr).toBe(0);
  const list = JSON.parse(done.stdout.toString()) as {
    usable: number;
    modules: {
      module: string;
      state: string;
      slots: { token: { label: string; usable: boolean; objects: { type: string; uri: string }[] } | null }[];
    }[];
  };
  expect(list.usable).toBe(2);
  const tokens = list.modules.flatMap(({ module, slots }) =>
    slots.flatMap(({ token }) => (token?.usable === true ? [{ module, ...token }] : [])),
  );
  expect(tokens.map(({ module, label }) => [realpathSync(module), label])).toEqual([
    [realpathSync(hsm.modulePath), "soft one"],
    [realpathSync(tpm.modulePath), "tpm test"],
  ]);
  expect(tokens[1]?.objects.map(({ type }) => type)).toEqual(["public", "public"]);
  expect(tokens[1]?.objects[0]?.uri).toMatch(/^pkcs11:model=SW.*;token=tpm%20test;id=%01;object=rsa%20key;type=public$/);
});

it("and a SoftHSM: without --module one must be named, and --token chooses between them", async () => {
  await using hsm = await createSoftHsm({ label: "soft one", objects: "none" });
  const env = { ...tpm.env, SOFTHSM2_CONF: hsm.configFile };
  const socket = join(dir, "agent", "s");
  const unclear = await runCli(["agent", "run", "--socket", socket], { env });
  expect(unclear.code).toBe(20);
  expect(unclear.stderr).toContain("[E_KEY_CHOICE 20]");
  expect(unclear.stderr).toContain(`--module '${tpm.modulePath}' (tpm test)`);
  const neither = await runCli(["agent", "run", "--socket", socket, "--token", "nobody"], { env });
  expect(neither.code).toBe(20);
  expect(neither.stderr).toMatch(/E_TOKEN_NOT_FOUND 20\]\nhint: the tokens there are: soft one, tpm test/);
});
