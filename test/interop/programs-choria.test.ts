/*
 * Choria's own sequence of calls on a token that holds two keys and two certificates, and many programs at once.
 */
import { createHash, verify, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT, type ServerProcess, startAgent } from "./agent-process.js";
import { runProgram } from "./programs.js";

const SEQUENCE = fileURLToPath(new URL("choria-sequence.py", import.meta.url));

interface Result {
  readonly keys: number;
  readonly certificates: number;
  readonly certificate?: string;
  readonly signatures?: readonly string[];
}

describe("a token with two keys and two certificates", () => {
  let token: SoftHsm;
  beforeAll(async () => {
    token = await createSoftHsm({ commonName: "ops.mcollective" });
  });
  afterAll(() => token?.dispose());

  const sequence = async (agent: ServerProcess): Promise<Result> => {
    const document = join(token.dir, "document");
    writeFileSync(document, "a request");
    const done = await runProgram(
      { argv: ["python3", SEQUENCE, P11KIT_CLIENT, "anything", document] },
      { ...process.env, P11_KIT_SERVER_ADDRESS: agent.address },
    );
    expect(done.stderr).toBe("");
    return JSON.parse(done.stdout.toString()) as Result;
  };
  const withAgent = async (args: readonly string[], use: (agent: ServerProcess) => Promise<void>): Promise<void> => {
    const agent = await startAgent({ token, pin: "file", args });
    try {
      await use(agent);
    } finally {
      await agent.dispose();
    }
  };

  it("is no use to Choria as it is: it sees two of each", async () => {
    await withAgent(["--key", "all"], async (agent) => {
      expect(await sequence(agent)).toMatchObject({ keys: 2, certificates: 2 });
    });
  });

  it("serves Choria's sequence of ten signatures when --key names one, with any text for a PIN", async () => {
    await withAgent(["--key", "pkcs11:id=%01"], async (agent) => {
      const result = await sequence(agent);
      expect(result).toMatchObject({ keys: 1, certificates: 1 });
      const expected = new X509Certificate(readFileSync(token.keys.rsa?.certificateFile ?? ""));
      const certificate = new X509Certificate(Buffer.from(result.certificate ?? "", "base64"));
      expect(certificate.fingerprint256).toBe(expected.fingerprint256);
      expect(certificate.subject).toContain("ops.mcollective");
      expect(result.signatures).toHaveLength(10);
      result.signatures?.forEach((signature, number) => {
        const good = verify("sha256", Buffer.from(`a request${number}`), certificate.publicKey, Buffer.from(signature, "base64"));
        expect(good, `signature ${number}`).toBe(true);
      });
      // One line for each use of the key, or the rest summed: at least something for every such program.
      expect(agent.stderr()).toMatch(/RSA_PKCS/);
    });
  });

  it("serves 16 programs that start at once", async () => {
    await withAgent(["--key", "all"], async (agent) => {
      const data = Buffer.from("signed by sixteen");
      const sign = (id: string, how: readonly string[], input: Buffer) =>
        runProgram(
          { argv: ["pkcs11-tool", "--module", P11KIT_CLIENT, "--sign", "--id", id, ...how, "--login"], input },
          { ...process.env, P11_KIT_SERVER_ADDRESS: agent.address },
          50_000,
        );
      const digest = createHash("sha256").update(data).digest();
      const done = await Promise.all(
        Array.from({ length: 16 }, (_, index) =>
          index % 2 === 0
            ? sign("01", ["-m", "SHA256-RSA-PKCS"], data)
            : sign("02", ["-m", "ECDSA", "--signature-format", "openssl"], digest),
        ),
      );
      const rsa = readFileSync(token.keys.rsa?.publicKeyFile ?? "");
      const ec = readFileSync(token.keys.ec?.publicKeyFile ?? "");
      const good = done.map(({ code, stdout }, index) => code === 0 && verify("sha256", data, index % 2 === 0 ? rsa : ec, stdout));
      expect(good, done.map(({ stderr }) => stderr).join("")).toEqual(Array.from({ length: 16 }, () => true));
    });
  });
});
