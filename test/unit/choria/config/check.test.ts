/*
 * What checkConfig finds, on files that exist only here. That choria fails for these reasons, and works when the mends were made, is
 * shown in test/interop/choria-check.test.ts.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { checkConfig } from "../../../../src/choria/config/check.js";
import { readClientConfig } from "../../../../src/choria/config/client-config.js";
import type { ConfigFinding, Looked } from "../../../../src/choria/config/finding.js";
import { spkiOfCertificate } from "../../../../src/cryptoki/keys/spki.js";
import type { KeyEntry } from "../../../../src/cryptoki/keys/types.js";
import { CKM } from "../../../../src/cryptoki/mechanisms.js";
import { EC, makeCertificate, type TestCertificate } from "../../../support/certificates.js";

const HOME = "/home/joe";
const CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";

interface Scene {
  readonly files?: Readonly<Record<string, string | Buffer>>;
  /** Octal permission bits of some of them; 0600 otherwise. */
  readonly modes?: Readonly<Record<string, number>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly keys?: readonly KeyEntry[];
  readonly root?: boolean;
}

let operator: TestCertificate;
let other: TestCertificate;
let ec: TestCertificate;
beforeAll(() => {
  operator = makeCertificate({ days: 30 });
  other = makeCertificate({ subject: "/CN=ops.mcollective", days: 30 });
  ec = makeCertificate({ algorithm: EC, days: 30 });
});

const pem = ({ certificate }: TestCertificate) =>
  `-----BEGIN CERTIFICATE-----\n${certificate.toString("base64")}\n-----END CERTIFICATE-----\n`;

/** A client that has all it needs, with `text` after it. */
const GOOD = "plugin.security.provider = file\nplugin.security.file.ca = ~/ca.pem\nplugin.choria.middleware_hosts = nats://a:4222\n";

async function check(text: string, scene: Scene = {}): Promise<readonly ConfigFinding[]> {
  const files: Record<string, string | Buffer> = { [`${HOME}/.choriarc`]: text, [`${HOME}/ca.pem`]: pem(operator), ...scene.files };
  const env = scene.env ?? {};
  const look = async (path: string): Promise<Looked> => {
    const found = files[path];
    if (found === undefined) return { state: "missing" };
    return { state: "file", bytes: Buffer.from(found), mode: scene.modes?.[path] ?? 0o600 };
  };
  const config = await readClientConfig({ home: HOME, cwd: `${HOME}/work`, env, read: async (path) => files[path]?.toString() ?? null });
  const token = scene.keys === undefined ? { notLooked: "no agent" } : { keys: scene.keys };
  return (await checkConfig({ config, env, root: scene.root ?? false, look, token, now: Date.now() })).findings;
}

/** Ids of what is more than a note. */
const wrong = (findings: readonly ConfigFinding[]) => findings.filter(({ severity }) => severity !== "note").map(({ id }) => id);
const only = async (id: string, text: string, scene: Scene = {}): Promise<ConfigFinding> => {
  const findings = await check(text, scene);
  expect(wrong(findings)).toEqual([id]);
  return findings[0] as ConfigFinding;
};

function key(made: TestCertificate, more: Partial<KeyEntry> = {}): KeyEntry {
  return {
    slot: 1n,
    uri: "pkcs11:token=ops;id=%01;type=private",
    label: Buffer.from("ops"),
    id: Buffer.from([1]),
    type: "RSA",
    bits: 2048,
    curve: null,
    spki: spkiOfCertificate(made.certificate),
    certificate: made.certificate,
    mechanisms: [CKM.CKM_RSA_PKCS, CKM.CKM_RSA_PKCS_PSS],
    ...more,
  };
}

describe("a line", () => {
  it.each([
    ["colon", 'discovery_timeout: "5"', "write: discovery_timeout = 5"],
    ["colon", "plugin.yaml: /etc/a=b.yaml", "write: plugin.yaml = VALUE, without quotes"],
    ["quotes", 'discovery_timeout = "12"', "write: discovery_timeout = 12"],
    ["quotes", "main_collective = 'mcollective'", "write: main_collective = mcollective"],
    ["comment", "ttl = 60 # seconds", "write: ttl = 60, and the comment on a line of its own"],
    ["no-value", "identity =", "give it one, or take the line out"],
    ["no-setting", "- a list", "take it out, or begin it with #"],
    ["unknown-key", "discovery_timout = 5", "did you mean discovery_timeout?"],
    ["unknown-key", "plugin.choria.frobnicate = 5", "look the name up with choria tool config --list ."],
    ["no-number", "ttl = soon", "write: ttl = NUMBER"],
    ["no-boolean", "color = on", "write: color = true, or color = false"],
    ["variable", "logfile = $HOME/log", "write: logfile = ~/log"],
    ["key-twice", "ttl = 60\nttl = 61", "take out line 4"],
    ["line-too-long", `x = ${"y".repeat(70_000)}`, "split the line, or take it out"],
  ])("is %s: %s", async (id, line, mend) => {
    expect(await only(id, `${GOOD}${line}\n`)).toMatchObject({ mend, file: `${HOME}/.choriarc`, line: id === "key-twice" ? 5 : 4 });
  });

  it("shows no password", async () => {
    const findings = await check(`${GOOD}plugin.nats.pass: "hunter2"\nplugin.nats.pass = "hunter3"\nplugin.nats.pass = hunter4 # x\n`);
    expect(JSON.stringify(findings)).not.toContain("hunter");
    expect(findings.map(({ mend }) => mend)).toContain("write: plugin.nats.pass = ...");
  });

  it("of an agent's own is nobody's business", async () => {
    expect(wrong(await check(`${GOOD}plugin.package.provider = apt\nplugin.security.issuer.acme.public = abc\n`))).toEqual([]);
  });

  it("that begins a file with a byte order mark is named by what is in it", async () => {
    expect(await only("byte-order-mark", `\ufeffttl = 60\n${GOOD}`)).toMatchObject({ mend: "save it as UTF-8 without one" });
  });

  it("that is misread is not reported once more for what it would have meant", async () => {
    const seed = 'plugin.security.provider: "pkcs11"\nplugin.security.pkcs11.driver_file: "MODULE"\nplugin.security.file.ca: "~/ca.pem"\n';
    const findings = await check(`${seed.replace("MODULE", CLIENT)}plugin.choria.middleware_hosts: "a:1"\n`, { files: { [CLIENT]: "" } });
    expect(wrong(findings)).toEqual(["colon", "colon", "colon", "colon", "pkcs11-tls", "discovery-timeout"]);
  });
});

describe("the files", () => {
  const overlay = `${HOME}/work/choria.conf`;

  it("have a choria.conf that would take the run's own settings from it", async () => {
    const finding = await only("overlay", GOOD, {
      files: { [overlay]: "main_collective = mcollective\nplugin.security.provider = file\n" },
    });
    expect(finding.text).toContain("main_collective, plugin.security.provider");
    expect(finding.mend).toContain("tokenfwd choria run --own-dir");
    expect(wrong(await check(GOOD, { files: { [overlay]: "loglevel = debug" } }))).toEqual([]);
  });

  it("have one that choria never reads", async () => {
    const path = `${HOME}/.config/choria/client.conf`;
    expect(await only("not-read", GOOD, { files: { [path]: "" } })).toMatchObject({ mend: `mv '${path}' '${HOME}/.choriarc'` });
    expect((await check(GOOD, { files: { "/etc/choria/client.conf": "" } })).map(({ id }) => id)).toContain("shadowed");
  });

  it("are not for others to read where a password is in them", async () => {
    const scene = { modes: { [`${HOME}/.choriarc`]: 0o644 } };
    expect(await only("mode", `${GOOD}plugin.nats.pass = x\n`, scene)).toMatchObject({ mend: `chmod 600 '${HOME}/.choriarc'` });
  });
});

describe("the variables", () => {
  it("say what choria does not understand, or would take all security away", async () => {
    await only("variable-ignored", GOOD, { env: { INSECURE_DISABLE_TLS: "1" } });
    await only("no-tls", GOOD, { env: { INSECURE_DISABLE_TLS: "true" } });
    await only("no-security", GOOD, { env: { INSECURE_YES_REALLY: "true" } });
    expect(wrong(await check(GOOD.replace("a:4222", "127.0.0.1:1"), { env: { INSECURE_DISABLE_TLS: "true" } }))).toEqual([]);
  });
});

describe("the provider", () => {
  const files = (certificate: TestCertificate) => ({ [`${HOME}/c.pem`]: pem(certificate), [`${HOME}/k.pem`]: "" });
  const PAIR = "plugin.security.file.certificate = ~/c.pem\nplugin.security.file.key = ~/k.pem\n";

  it("may be none that choria has", async () => {
    expect(await only("provider", "plugin.security.provider = pkcs12\nplugin.choria.middleware_hosts = a:1")).toMatchObject({ line: 1 });
  });

  it("choria is protocol v2, in which no token takes part", async () => {
    expect((await only("protocol-v2", "plugin.security.provider = choria\nplugin.choria.middleware_hosts = a:1")).text).toContain(
      "protocol v2",
    );
  });

  it("pkcs11 cannot open TLS to today's brokers, and is served by a relay", async () => {
    const text = `plugin.security.provider = pkcs11\nplugin.security.file.ca = ~/ca.pem\nplugin.security.pkcs11.driver_file = ${CLIENT}\ndiscovery_timeout = 10\n`;
    const scene = { files: { [CLIENT]: "" } };
    const finding = await only("pkcs11-tls", `${text}plugin.choria.middleware_hosts = nats://a:1`, scene);
    expect(finding).toMatchObject({ severity: "error", stockOnly: true, mend: expect.stringContaining("tokenfwd choria run") });
    expect(wrong(await check(`${text}plugin.choria.middleware_hosts = nats://127.0.0.1:1`, scene))).toEqual([]);
  });

  it("pkcs11 wants a module that exists, and is told which", async () => {
    const text = "plugin.security.provider = pkcs11\ndiscovery_timeout = 10\nplugin.choria.middleware_hosts = 127.0.0.1:1\n";
    const mend = `write: plugin.security.pkcs11.driver_file = ${CLIENT}`;
    expect(await only("driver", text, { files: { [CLIENT]: "" } })).toMatchObject({ mend });
    expect(await only("driver", `${text}plugin.security.pkcs11.driver_file = /nope.so`, { files: { [CLIENT]: "" } })).toMatchObject({
      mend,
    });
    expect((await only("driver", text)).mend).toContain("Debian: p11-kit-modules");
  });

  it("file with a CA alone is enough for us, and half a pair for nobody", async () => {
    expect(wrong(await check(GOOD))).toEqual([]);
    await only("half-a-pair", `${GOOD}plugin.security.file.key = ~/k.pem\n`);
  });

  it.each([
    ["no-ca", GOOD.replace("plugin.security.file.ca", "plugin.choria.ssldir"), {}],
    ["ca", GOOD.replace("ca.pem", "none.pem"), {}],
    ["ca", GOOD, { files: { [`${HOME}/ca.pem`]: "no PEM" } }],
    ["ca", "plugin.choria.middleware_hosts = a:1", {}],
  ])("has no CA that can be used: %s", async (id, text, scene) => {
    await only(id, text, scene);
  });

  it("file signs with a certificate that servers must like", async () => {
    const env = { MCOLLECTIVE_CERTNAME: "ptittle" };
    expect(wrong(await check(GOOD + PAIR, { files: files(operator), env }))).toEqual([]);
    expect((await only("certificate", GOOD + PAIR, { files: files(ec), env })).text).toMatch(
      /^the certificate .*c\.pem has a key of type EC/,
    );
    await only("issuer", GOOD + PAIR, { files: files(other), env: { MCOLLECTIVE_CERTNAME: "ops.mcollective" } });
    expect(await only("certname", GOOD + PAIR, { files: files(operator), env: { USER: "joe" } })).toMatchObject({
      mend: "export MCOLLECTIVE_CERTNAME=ptittle",
      text: expect.stringContaining("joe.mcollective"),
    });
    await only("mode", GOOD + PAIR, { files: files(operator), env, modes: { [`${HOME}/k.pem`]: 0o640 } });
    await only("private-key", GOOD + PAIR, { files: { [`${HOME}/c.pem`]: pem(operator) }, env });
  });
});

describe("the request signer", () => {
  const SIGNER = `${GOOD.replace("a:4222", "127.0.0.1:4223")}discovery_timeout = 10\nplugin.choria.security.request_signer.url = http://127.0.0.1:8080/\n`;
  const SECRETS = "plugin.choria.security.request_signer.token_file = ~/t\nplugin.choria.security.request_signer.seed_file = ~/s\n";
  const files = { [`${HOME}/t`]: "token", [`${HOME}/s`]: "ab".repeat(32) };

  it("is fine with a token and a seed of 64 digits", async () => {
    expect(wrong(await check(SIGNER + SECRETS, { files }))).toEqual([]);
  });

  it.each([
    ["signer-seed", { [`${HOME}/s`]: `${"ab".repeat(32)}\n` }, `printf %s "$(cat '${HOME}/s')" > '${HOME}/s'`],
    ["signer-seed", { [`${HOME}/s`]: "abc" }, "have new secrets made: tokenfwd choria signer --secrets DIR"],
    ["signer-token", { [`${HOME}/t`]: "token\n" }, `printf %s "$(cat '${HOME}/t')" > '${HOME}/t'`],
  ])("has a secret of the wrong form: %s", async (id, more, mend) => {
    expect(await only(id, SIGNER + SECRETS, { files: { ...files, ...more } })).toMatchObject({ mend });
  });

  it("has secrets that are missing, or for all to read", async () => {
    expect(wrong(await check(SIGNER + SECRETS))).toEqual(["signer-token", "signer-seed"]);
    await only("signer-token", SIGNER);
    expect(await only("mode", SIGNER + SECRETS, { files, modes: { [`${HOME}/s`]: 0o644 } })).toMatchObject({
      mend: `chmod 600 '${HOME}/s'`,
    });
  });

  it("is named by a URL that choria can ask, on loopback", async () => {
    await only("signer-url", SIGNER.replace("http://127.0.0.1:8080/", "unix:///run/s") + SECRETS, { files });
    await only("signer-url", SIGNER.replace("127.0.0.1:8080", "signer.example.net") + SECRETS, { files });
    await only("signer-no-url", GOOD + SECRETS.split("\n")[0], { files });
  });

  it("has a seed that the puppet provider does not look for", async () => {
    const text = SIGNER.replace("provider = file", "provider = puppet").replace(
      "plugin.security.file.ca = ~/ca.pem",
      "plugin.choria.ssldir = ~/ssl",
    );
    const scene = { files: { ...files, [`${HOME}/ssl/certs/ca.pem`]: pem(operator) } };
    expect((await only("signer-seed", text + SECRETS, scene)).text).toContain(`looks for ${HOME}/t.key`);
  });
});

describe("brokers and times", () => {
  const hosts = (word: string) => GOOD.replace("nats://a:4222", word);

  it.each([
    ["tls-scheme", "tls://a:1", "write: plugin.choria.middleware_hosts = nats://a:1"],
    ["no-port", "a.example.net", "write: plugin.choria.middleware_hosts = nats://a.example.net:4222"],
    ["websocket", "wss://a:1", "write: plugin.choria.middleware_hosts = nats://HOST:4222"],
    ["bad-broker", "a:b", "write: plugin.choria.middleware_hosts = nats://HOST:4222"],
    ["userinfo", "nats://joe:x@a:1", "write plugin.nats.user and plugin.nats.pass instead"],
  ])("%s: %s", async (id, word, mend) => {
    expect(await only(id, hosts(word))).toMatchObject({ mend, line: 3 });
  });

  it("are named somewhere", async () => {
    const none = GOOD.replace(/plugin.choria.middleware.*\n/, "");
    expect((await check(none)).map(({ id }) => id)).toContain("srv");
    await only("no-broker", `${none}plugin.choria.use_srv = false\n`);
  });

  it("fit what servers and our signer take", async () => {
    expect(await only("ttl", `${GOOD}ttl = 10`)).toMatchObject({ severity: "error" });
    expect(await only("ttl", `${GOOD}ttl = 3600`)).toMatchObject({ severity: "warning" });
    expect(await only("collective", `${GOOD}collectives = a, b\nmain_collective = c`)).toMatchObject({
      mend: "write: collectives = a, b, c",
    });
  });
});

describe("the token", () => {
  it("is fine with one RSA key and its certificate, and servers are told its name", async () => {
    const findings = await check(GOOD, { keys: [key(operator)] });
    expect(wrong(findings)).toEqual([]);
    expect(findings.find(({ id }) => id === "whitelist")).toMatchObject({
      mend: "on every server: plugin.choria.security.certname_whitelist = ^ptittle$",
    });
  });

  it("is not, with a certificate that ends servers, one of another CA, another key's, or none", async () => {
    expect((await only("certificate", GOOD, { keys: [key(ec, { type: "EC" })] })).text).toMatch(/a server that meets another ends itself/);
    await only("issuer", GOOD, { keys: [key(other)] });
    await only("certificate", GOOD, { keys: [key(operator, { spki: spkiOfCertificate(other.certificate) })] });
    expect((await only("no-certificate", GOOD, { keys: [key(operator, { certificate: null })] })).mend).toContain("--type cert --id 01");
    await only("certificate-type", GOOD, { keys: [key(ec, { type: "EC", certificate: null })] });
    await only("no-key", GOOD, { keys: [] });
  });

  it("may have several keys, of which one has to be named", async () => {
    const second = key(operator, { uri: "pkcs11:token=ops;id=%02;type=private", id: Buffer.from([2]) });
    expect((await only("several-keys", GOOD, { keys: [key(operator), second] })).mend).toBe(
      "tokenfwd connect DEST --key 'pkcs11:token=ops;id=%01;type=private', or one of 'pkcs11:token=ops;id=%02;type=private'",
    );
    expect(wrong(await check(GOOD, { keys: [key(operator), key(ec, { type: "EC" })] }))).toEqual([]);
    const stock = `plugin.security.provider = pkcs11\nplugin.security.pkcs11.driver_file = ${CLIENT}\ndiscovery_timeout = 10\nplugin.choria.middleware_hosts = 127.0.0.1:1\n`;
    const scene = { keys: [key(operator), key(ec, { type: "EC" })], files: { [CLIENT]: "" } };
    expect(await only("several-keys", stock, scene)).toMatchObject({ severity: "error", stockOnly: true });
  });

  it("has a certificate that will end in a few days", async () => {
    const soon = makeCertificate({ days: 5, subject: "/CN=joe.mcollective" });
    await only("expires-soon", GOOD, { keys: [key(soon)], files: { [`${HOME}/ca.pem`]: pem(soon) } });
  });

  it("says another name than the variable does", async () => {
    expect(await only("certname", GOOD, { keys: [key(operator)], env: { MCOLLECTIVE_CERTNAME: "joe" } })).toMatchObject({
      mend: "export MCOLLECTIVE_CERTNAME=ptittle",
    });
  });

  it("cannot do without PKCS#1 for requests and PSS for TLS", async () => {
    expect(await only("mechanism", GOOD, { keys: [key(operator, { mechanisms: [CKM.CKM_RSA_PKCS] })] })).toMatchObject({
      severity: "warning",
    });
    expect(await only("mechanism", GOOD, { keys: [key(operator, { mechanisms: [CKM.CKM_RSA_PKCS_PSS] })] })).toMatchObject({
      severity: "error",
    });
  });
});
