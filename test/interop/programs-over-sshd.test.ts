/*
 * The main job with real programs: a token here, a real sshd as the bastion, the profile `sign`, and the PIN asked at the
 * workstation by pinentry, once. Every program runs in an ordinary ssh session on the bastion and finds the token by itself.
 */
import { createHash, constants as crypto, verify, X509Certificate } from "node:crypto";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, type TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { type CliProcess, startCli } from "./cli-process.js";
import { type Outcome, runProgram } from "./programs.js";

const SEQUENCE = fileURLToPath(new URL("choria-sequence.py", import.meta.url));
const DOCUMENT = Buffer.from("signed on the bastion\n");
const DIGEST = createHash("sha256").update(DOCUMENT).digest();

/** A pinentry that answers every question with the first line of a file, and counts how often it was asked. */
const pinentry = (pinFile: string, countFile: string): string => `#!/bin/sh
echo OK
while read -r word rest; do
  case "$word" in
    GETPIN) echo asked >> '${countFile}'; printf 'D %s\\nOK\\n' "$(cat '${pinFile}')" ;;
    BYE) echo OK; exit 0 ;;
    *) echo OK ;;
  esac
done
`;

describe("programs on a bastion", () => {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-over-"));
  const countFile = join(dir, "asked");
  let token: SoftHsm;
  let sshd: Sshd;
  let connect: CliProcess;

  const connectArgs = (...more: readonly string[]): string[] => [
    "connect",
    "bastion",
    "-F",
    sshd.sshConfig,
    "--module",
    token.modulePath,
    ...more,
  ];
  const env = (): NodeJS.ProcessEnv => ({
    ...token.env,
    TOKENFWD_PINENTRY: join(dir, "pinentry"),
    XDG_STATE_HOME: dir,
    XDG_RUNTIME_DIR: dir,
  });
  const quoted = (words: readonly string[]): string => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const onBastion = (argv: readonly string[], input = Buffer.alloc(0)): Promise<Outcome> =>
    runProgram({ argv: ["ssh", "-F", sshd.sshConfig, "bastion", quoted(argv)], input }, process.env);
  const tool = (...args: readonly string[]): string[] => ["pkcs11-tool", "--module", P11KIT_CLIENT, ...args];
  const tokenUri = (): string => `pkcs11:token=${encodeURIComponent(token.label)}`;
  const publicKey = (name: "rsa" | "ec"): string => readFileSync(token.keys[name]?.publicKeyFile ?? "", "utf8");

  beforeAll(async () => {
    token = await createSoftHsm();
    sshd = await startSshd();
    writeFileSync(join(dir, "pin"), `${token.pin}\n`, { mode: 0o600 });
    writeFileSync(join(dir, "pinentry"), pinentry(join(dir, "pin"), countFile), { mode: 0o700 });
    writeFileSync(countFile, "");
    connect = startCli(connectArgs("--key", "all", "--unlock", "later", "--json"), { env: env() });
    await connect.untilEvent("ready");
  });
  afterAll(async () => {
    await connect?.end();
    await sshd?.dispose();
    await token?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  const good = (outcome: Outcome): Outcome => {
    expect(`${outcome.stderr} exit ${outcome.code}`).toMatch(/ exit 0$/);
    return outcome;
  };

  it.each([
    ["--pin 0000", ["--pin", "0000"]],
    ["no PIN", ["--login"]],
  ] as const)("pkcs11-tool signs with RSA and EC and %s", async (_, login) => {
    const rsa = good(await onBastion(tool("--sign", "-m", "SHA256-RSA-PKCS", "--id", "01", ...login), DOCUMENT));
    expect(verify("sha256", DOCUMENT, publicKey("rsa"), rsa.stdout)).toBe(true);
    const pss = ["-m", "RSA-PKCS-PSS", "--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256"];
    const rsaPss = good(await onBastion(tool("--sign", ...pss, "--id", "01", ...login), DIGEST));
    const padding = { padding: crypto.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    expect(verify("sha256", DOCUMENT, { key: publicKey("rsa"), ...padding }, rsaPss.stdout)).toBe(true);
    const ec = good(await onBastion(tool("--sign", "-m", "ECDSA", "--signature-format", "openssl", "--id", "02", ...login), DIGEST));
    expect(verify("sha256", DOCUMENT, publicKey("ec"), ec.stdout)).toBe(true);
  });

  it("p11tool lists everything after a log-in, and test-signs with both keys", async () => {
    const p11tool = ["p11tool", "--batch", "--provider", P11KIT_CLIENT, "--login"];
    const listed = good(await onBastion([...p11tool, "--list-all", tokenUri()]));
    expect(listed.stdout.toString()).toMatch(/type=private/);
    for (const key of ["rsa%20key", "ec%20key"]) {
      const signed = good(await onBastion([...p11tool, "--test-sign", `${tokenUri()};object=${key};type=private`]));
      expect(`${signed.stdout}${signed.stderr}`).toMatch(/Verifying against public key in the token\.\.\. ok/);
    }
  });

  it("ssh-keygen -D shows the keys, and ssh -I logs in with one of them", async () => {
    const keys = good(await onBastion(["ssh-keygen", "-D", P11KIT_CLIENT])).stdout.toString();
    expect(keys).toMatch(/^ssh-rsa /m);
    expect(keys).toMatch(/^ecdsa-sha2-nistp256 /m);
    appendFileSync(sshd.authorizedKeys, keys);
    const options = [
      "IdentityFile=none",
      "IdentityAgent=none",
      "PreferredAuthentications=publickey",
      `UserKnownHostsFile=${sshd.knownHosts}`,
    ];
    const login = ["ssh", "-F", "none", "-I", P11KIT_CLIENT, "-p", String(sshd.port), ...options.flatMap((one) => ["-o", one])];
    const done = good(await onBastion([...login, `${sshd.user}@127.0.0.1`, "echo logged in"]));
    expect(done.stdout.toString()).toBe("logged in\n");
  });

  it("ssh in batch mode does not log in, as with any token that has its own PIN entry", async () => {
    const options = ["BatchMode=yes", "IdentityFile=none", "IdentityAgent=none", `UserKnownHostsFile=${sshd.knownHosts}`];
    const login = ["ssh", "-F", "none", "-I", P11KIT_CLIENT, "-p", String(sshd.port), ...options.flatMap((one) => ["-o", one])];
    expect((await onBastion([...login, `${sshd.user}@127.0.0.1`, "true"])).code).toBe(255);
  });

  it("openssl signs through the engine", async () => {
    const key = `${tokenUri()};object=rsa%20key;type=private`;
    const openssl = ["env", `PKCS11_MODULE_PATH=${P11KIT_CLIENT}`, "openssl", "dgst", "-engine", "pkcs11", "-keyform", "engine"];
    const done = good(await onBastion([...openssl, "-sha256", "-sign", key], DOCUMENT));
    expect(verify("sha256", DOCUMENT, publicKey("rsa"), done.stdout)).toBe(true);
  });

  it.each(["rsa", "ec"] as const)("openssl shows the %s certificate as a TLS 1.3 client through the engine", async (name) => {
    const file = (path: string | null | undefined): Buffer => readFileSync(path ?? "");
    const peers: string[] = [];
    const server = createServer(
      {
        key: file(token.keys.ec?.keyFile),
        cert: file(token.keys.ec?.certificateFile),
        ca: file(token.caFile),
        requestCert: true,
        rejectUnauthorized: true,
        minVersion: "TLSv1.3",
      },
      (socket: TLSSocket) => {
        peers.push(socket.getPeerX509Certificate()?.fingerprint256 ?? "none");
        socket.on("error", () => undefined);
        socket.end("hello\n");
      },
    );
    server.on("tlsClientError", () => undefined);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const port = (server.address() as AddressInfo).port;
      const certificate = token.keys[name]?.certificateFile ?? "";
      const done = await onBastion([
        ...["env", `PKCS11_MODULE_PATH=${P11KIT_CLIENT}`, "openssl", "s_client", "-connect", `127.0.0.1:${port}`, "-tls1_3", "-quiet"],
        ...["-engine", "pkcs11", "-keyform", "engine", "-key", `${tokenUri()};object=${name}%20key;type=private`, "-cert", certificate],
      ]);
      expect(done.stdout.toString(), done.stderr).toContain("hello");
      expect(peers).toEqual([new X509Certificate(readFileSync(certificate)).fingerprint256]);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("asked for the PIN exactly once for all of these", () => {
    expect(readFileSync(countFile, "utf8")).toBe("asked\n");
    expect(connect.events().filter((one) => one.event === "prompt")).toHaveLength(1);
    expect(connect.events().filter((one) => one.event === "use").length).toBeGreaterThanOrEqual(10);
    expect(`${connect.stdout()}${connect.stderr()}`).not.toContain(`"${token.pin}"`);
  });

  it("runs Choria's sequence as a command, with --key on a token that holds two keys", async () => {
    const document = join(dir, "request");
    writeFileSync(document, "a request");
    const argv = ["-T", "--key", "pkcs11:object=rsa%20key", "--pin-source", `file:${join(dir, "pin")}`, "--", "python3", SEQUENCE];
    const cli = startCli(connectArgs(...argv, P11KIT_CLIENT, "anything", document), { env: env() });
    const done = await cli.exited;
    expect(`${done.stderr} exit ${done.code}`).toMatch(/ exit 0$/);
    const result = JSON.parse(done.stdout.toString()) as { keys: number; certificates: number; signatures: string[] };
    expect(result).toMatchObject({ keys: 1, certificates: 1 });
    const signatures = result.signatures.map((one, number) =>
      verify("sha256", Buffer.from(`a request${number}`), publicKey("rsa"), Buffer.from(one, "base64")),
    );
    expect(signatures).toEqual(Array.from({ length: 10 }, () => true));
  });
});
