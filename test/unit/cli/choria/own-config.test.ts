/* The user's configuration as a run takes it: brokers and CA, or what is named in their place; and the options that say so. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { parseBrokers, readOwnConfig } from "../../../../src/cli/choria/own-config.js";
import { checkConnectOptions } from "../../../../src/cli/connect/command.js";
import type { RawConnectOptions } from "../../../../src/cli/program.js";
import { makeCertificate } from "../../../support/certificates.js";

const BROKEN = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const PEM = `-----BEGIN CERTIFICATE-----\n${makeCertificate().certificate.toString("base64")}\n-----END CERTIFICATE-----\n`;
const CONFIG =
  "plugin.security.provider = file\nplugin.security.file.ca = ~/ca.pem\nplugin.choria.middleware_hosts = broker.example:4222\n";

/** Reads from these files, in the home directory /home/ops and the working directory /srv/work. */
function read(files: Readonly<Record<string, string>>, more: Partial<Parameters<typeof readOwnConfig>[0]> = {}) {
  return readOwnConfig({
    home: "/home/ops",
    cwd: "/srv/work",
    env: {},
    read: async (path) => files[path] ?? null,
    caPem: null,
    brokers: [],
    domain: null,
    overlaid: (path) => new TokenfwdError("E_CHORIA_CONFIG", `overlaid by ${path}`),
    ...more,
  });
}

describe("the user's own configuration", () => {
  it("says the brokers and the CA, which is read where the configuration is", async () => {
    const own = await read({ "/home/ops/.choriarc": CONFIG, "/home/ops/ca.pem": PEM });
    expect(own.brokers).toEqual([{ host: "broker.example", port: 4222 }]);
    expect(own.caPem).toBe(PEM);
  });

  it("gives way to what is named in its place", async () => {
    const own = await read({ "/home/ops/.choriarc": CONFIG }, { caPem: "given", brokers: [{ host: "other", port: 1 }] });
    expect(own).toMatchObject({ caPem: "given", brokers: [{ host: "other", port: 1 }] });
  });

  it.each([
    ["has no CA", { "/home/ops/.choriarc": "plugin.security.provider = file\n" }, /names no CA/],
    ["names a CA that is not there", { "/home/ops/.choriarc": CONFIG }, /ca\.pem, which .* names, is not there/],
    ["names a CA that is broken", { "/home/ops/.choriarc": CONFIG, "/home/ops/ca.pem": PEM + BROKEN }, /holds a certificate that is none/],
    ["names a CA that is none", { "/home/ops/.choriarc": CONFIG, "/home/ops/ca.pem": "key" }, /holds no certificate in PEM/],
    ["is missing", {}, /no client configuration/],
    [
      "lies under a choria.conf",
      { "/home/ops/.choriarc": CONFIG, "/home/ops/ca.pem": PEM, "/srv/choria.conf": "" },
      /overlaid by \/srv\/choria\.conf/,
    ],
  ] as const)("is refused when it %s", async (_name, files, message) => {
    await expect(read(files as Readonly<Record<string, string>>)).rejects.toMatchObject({
      code: "E_CHORIA_CONFIG",
      message: expect.stringMatching(message),
    });
  });
});

it("a broker is a host with a port, or without one", () => {
  expect(parseBrokers(["a", "b:1", "[::1]:2"])).toEqual([
    { host: "a", port: 4222 },
    { host: "b", port: 1 },
    { host: "::1", port: 2 },
  ]);
  expect(() => parseBrokers(["a:0"])).toThrow(expect.objectContaining({ code: "E_USAGE" }));
});

describe("the options of --choria", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "tfwd-options-"));
    writeFileSync(join(dir, "ca.pem"), PEM);
    writeFileSync(join(dir, "none.pem"), "nothing");
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const check = (raw: Partial<RawConnectOptions>) => checkConnectOptions("b", { module: "/m.so", sshOption: [], ...raw }, null).choria;

  it("are read before anything is opened", () => {
    expect(check({})).toBeNull();
    expect(check({ choria: true, broker: [] })).toEqual({ configFile: null, caPem: null, brokers: [], maxTtlSeconds: 300 });
    expect(check({ choria: true, maxTtl: "18000" })).toMatchObject({ maxTtlSeconds: 18_000 });
    expect(check({ choria: true, ca: join(dir, "ca.pem"), broker: ["a:1"] })).toMatchObject({
      caPem: PEM,
      brokers: [{ host: "a", port: 1 }],
    });
  });

  it.each<[Partial<RawConnectOptions>, string]>([
    [{ choria: true, stock: true }, "E_USAGE"],
    [{ choria: true, policy: "read" }, "E_USAGE"],
    [{ choria: true, pinSource: "client" }, "E_USAGE"],
    [{ choria: true, ca: "/nowhere/ca.pem" }, "E_USAGE"],
    [{ choria: true, choriaConfig: "/nowhere/conf" }, "E_USAGE"],
    [{ ca: "/nowhere/ca.pem" }, "E_USAGE"],
    [{ broker: ["a:1"] }, "E_USAGE"],
    [{ maxTtl: "60" }, "E_USAGE"],
    [{ choria: true, maxTtl: "29" }, "E_USAGE"],
  ])("%j are refused", (raw, code) => {
    expect(() => check(raw)).toThrow(expect.objectContaining({ code }));
  });

  it("with a CA that is none are refused", () => {
    expect(() => check({ choria: true, ca: join(dir, "none.pem") })).toThrow(expect.objectContaining({ code: "E_CHORIA_CONFIG" }));
  });
});
