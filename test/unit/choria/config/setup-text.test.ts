/*
 * The texts of the three set-ups: each is a configuration that choria reads as it stands, and that checkConfig finds nothing wrong in.
 */
import { describe, expect, it } from "vitest";
import { checkConfig } from "../../../../src/choria/config/check.js";
import { readClientConfig } from "../../../../src/choria/config/client-config.js";
import type { Looked } from "../../../../src/choria/config/finding.js";
import { parseConfig } from "../../../../src/choria/config/parse.js";
import { SETUPS, type SetupFacts, setupText } from "../../../../src/choria/config/setup-text.js";
import { makeCertificate } from "../../../support/certificates.js";

const facts: SetupFacts = {
  name: "p.tittle",
  brokers: ["one.example.net:4222", "two.example.net:4223"],
  ca: "/etc/choria/own-ca.pem",
  collectives: ["lon", "syd"],
  mainCollective: "syd",
  module: "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
};

describe.each(SETUPS)("the set-up %s", (setup) => {
  it("is nothing but settings and comments", () => {
    const { ignored, cutAt } = parseConfig(setupText(setup, facts));
    expect({ ignored, cutAt }).toEqual({ ignored: [], cutAt: null });
  });

  it("has nothing wrong in it, once its files are there", async () => {
    const ca = makeCertificate({ days: 30 }).certificate.toString("base64");
    const pem = Buffer.from(`-----BEGIN CERTIFICATE-----\n${ca}\n-----END CERTIFICATE-----\n`);
    const files: Readonly<Record<string, Buffer>> = {
      "/home/joe/.choria-signer/signer.token": Buffer.from("token"),
      "/home/joe/.choria-signer/signer.seed": Buffer.from("ab".repeat(32)),
      "/etc/choria/own-ca.pem": pem,
      "/etc/choria/bastion.pem": pem,
      "/etc/choria/bastion.key": Buffer.alloc(0),
      [facts.module ?? ""]: Buffer.alloc(0),
    };
    const look = async (path: string): Promise<Looked> =>
      files[path] === undefined ? { state: "missing" } : { state: "file", bytes: files[path], mode: 0o600 };
    const read = async (path: string) => (path === "/home/joe/.choriarc" ? setupText(setup, facts) : null);
    const config = await readClientConfig({ home: "/home/joe", cwd: "/home/joe", env: {}, read });
    const env = { INSECURE_DISABLE_TLS: setup === "bastion-tls" ? undefined : "true" };
    const report = await checkConfig({ config, env, root: false, look, token: { notLooked: "none" }, now: Date.now() });
    expect(report.findings.filter(({ severity }) => severity !== "note")).toEqual([]);
    expect(config).toMatchObject({ collectives: ["lon", "syd"], mainCollective: "syd", discoveryTimeout: 10 });
  });

  it("has the line that lets the name, and no other, in at the servers", () => {
    expect(setupText(setup, facts)).toContain("#    plugin.choria.security.certname_whitelist = ^p\\.tittle$\n");
  });

  it("says what is not known, and what it is", () => {
    const none = setupText(setup, { ...facts, name: null, brokers: [], ca: null, module: null });
    expect(none).toContain("# Not known here, and to be replaced: YOUR-NAME (the CN of the token's certificate), BROKER.example.net:4222");
    expect(setupText(setup, facts)).not.toContain("Not known here");
  });
});
