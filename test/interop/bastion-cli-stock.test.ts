/*
 * `tokenfwd sign` and `tokenfwd keys` of the bundle against a stock p11-kit server, where the PIN is the bastion's to give: what
 * crosses the wire is looked at by a socket in between.
 */
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runUnderPty } from "../support/pty.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startStockServer } from "./agent-process.js";
import {
  expectFailure,
  type InstalledBundle,
  installBundle,
  keyOfToken,
  listenBetween,
  type SocketBetween,
  verifiedByOpenssl,
} from "./bastion-bundle.js";

const PIN = "31415926";
const WRONG = "27182818";
const DOCUMENT = Buffer.from("a document that is to be signed\n");
const RSA_KEY = "pkcs11:object=rsa%20key;type=private";
const EC_KEY = "pkcs11:id=%02;type=private";
let token: SoftHsm;
let bastion: InstalledBundle;
let server: ServerProcess;
let tap: SocketBetween;
let pinFile: string;
let wrongFile: string;

const spkiHex = (name: "rsa" | "ec") => keyOfToken(token, name).spkiHex;
const opensslVerifies = (name: "rsa" | "ec", document: Buffer, signature: Buffer) =>
  verifiedByOpenssl(keyOfToken(token, name).publicKeyFile, document, signature);

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN });
  bastion = await installBundle();
  server = await startStockServer(token);
  tap = await listenBetween(server.socket);
  pinFile = join(bastion.dir, "pin");
  wrongFile = join(bastion.dir, "wrong");
  writeFileSync(pinFile, `${PIN}\n`, { mode: 0o600 });
  writeFileSync(wrongFile, `${WRONG}\n`, { mode: 0o600 });
});
afterAll(async () => {
  await tap?.close();
  await server?.dispose();
  bastion?.dispose();
  await token?.dispose();
});

const run = (words: readonly string[], more: { input?: Buffer; fd3?: number } = {}) =>
  bastion.run(words, { env: { P11_KIT_SERVER_ADDRESS: `unix:path=${tap.path}` }, ...more });
const times = (text: string) => tap.sent().toString("latin1").split(text).length - 1;

test("keys lists what is public without a log-in", async () => {
  const { code, stdout } = await run(["keys", "--json"]);
  expect(code).toBe(0);
  const found = (JSON.parse(stdout.toString()) as { keys: { spki: string }[] }).keys.map(({ spki }) => spki);
  expect(found.sort()).toEqual([spkiHex("rsa"), spkiHex("ec")].sort());
  expect(times(PIN)).toBe(0);
});

test("sign logs in with the PIN of a file, of a descriptor, and of a person at the terminal", async () => {
  const file = await run(["sign", "--spki", spkiHex("rsa"), "--pin-source", `file:${pinFile}`], { input: DOCUMENT });
  expect(file).toMatchObject({ code: 0, stderr: "" });
  expect(opensslVerifies("rsa", DOCUMENT, file.stdout)).toBe(true);
  expect(times(PIN)).toBe(1);

  const fd = openSync(pinFile, "r");
  try {
    const descriptor = await run(["sign", "--key", EC_KEY, "--der", "--pin-source", "fd:3"], { input: DOCUMENT, fd3: fd });
    expect(descriptor).toMatchObject({ code: 0, stderr: "" });
    expect(opensslVerifies("ec", DOCUMENT, descriptor.stdout)).toBe(true);
  } finally {
    closeSync(fd);
  }

  const [document, signature] = [join(bastion.dir, "document"), join(bastion.dir, "signature")];
  writeFileSync(document, DOCUMENT);
  const line = `"$1" sign --key '${RSA_KEY}' < "$2" > "$3"`;
  const asked = await runUnderPty({
    argv: ["sh", "-c", line, "sh", bastion.program, document, signature],
    env: { ...bastion.env, P11_KIT_SERVER_ADDRESS: `unix:path=${tap.path}` },
    answers: [{ expect: /tokenfwd sign asks for the PIN of the token "tokenfwd test": $/, send: `${PIN}\r` }],
  });
  expect(asked).toMatchObject({ exitCode: 0, echo: true, lineEditing: true });
  expect(asked.output).not.toContain(PIN);
  expect(opensslVerifies("rsa", DOCUMENT, readFileSync(signature))).toBe(true);
});

test("a wrong PIN is tried once, and nothing is signed", async () => {
  const before = times(WRONG);
  expectFailure(await run(["sign", "--key", RSA_KEY, "--pin-source", `file:${wrongFile}`], { input: DOCUMENT }), "E_PIN_WRONG", 30);
  expect(times(WRONG) - before).toBe(1);
});

test("with no terminal to ask on it ends with 30, and says what else there is", async () => {
  const ended = await run(["sign", "--key", RSA_KEY], { input: DOCUMENT });
  expectFailure(ended, "E_PIN_SOURCE", 30);
  expect(ended.stderr).toContain("--pin-source file:PATH");
});

test("Ctrl-D at the question ends with 32 and leaves the terminal as it was", async () => {
  const line = `"$1" sign --base64 --key '${RSA_KEY}' < /etc/hostname`;
  const ended = await runUnderPty({
    argv: ["sh", "-c", line, "sh", bastion.program],
    env: { ...bastion.env, P11_KIT_SERVER_ADDRESS: `unix:path=${tap.path}` },
    answers: [{ expect: /asks for the PIN/, send: "\u0004" }],
  });
  expect(ended).toMatchObject({ exitCode: 32, echo: true, lineEditing: true, output: expect.stringContaining("[E_PIN_CANCELLED 32]") });
});
