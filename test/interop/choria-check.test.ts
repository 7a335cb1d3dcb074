/*
 * `tokenfwd choria check` as the bundle has it, against a token of ours and beside the real choria: what it names is what choria
 * fails of, and with its mends made choria works.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ConfigFinding } from "../../src/choria/config/finding.js";
import { type ChoriaNetwork, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent } from "./agent-process.js";
import { type InstalledBundle, installBundle } from "./bastion-bundle.js";

let bastion: InstalledBundle;
beforeAll(async () => {
  bastion = await installBundle();
});
afterAll(() => bastion?.dispose());

interface Report {
  readonly config: string;
  readonly findings: readonly ConfigFinding[];
  readonly notLooked: readonly string[];
}

async function check(words: readonly string[], env: Readonly<Record<string, string>>): Promise<{ code: number | null; report: Report }> {
  const done = await bastion.run(["choria", "check", "--json", ...words], { env });
  expect(done.stderr).toBe("");
  return { code: done.code, report: JSON.parse(done.stdout.toString()) as Report };
}
const wrong = ({ findings }: Report) => findings.filter(({ severity }) => severity !== "note").map(({ id }) => id);

describe.skipIf(!(await choriaAvailable()))("choria check beside the real choria", () => {
  let network: ChoriaNetwork;
  beforeAll(async () => {
    network = await startChoriaNetwork({ token: false });
  });
  afterAll(() => network?.dispose());

  /** Puts `write: KEY = VALUE` of each finding into its line. */
  function mend(path: string, { findings }: Report): void {
    const lines = readFileSync(path, "utf8").split("\n");
    for (const { line, mend: text } of findings) {
      const [, setting] = /^(?:write|did you mean): ?(.+ = .+?)(?:, and the comment .*)?$/.exec(text) ?? [];
      if (line !== null && setting !== undefined) lines[line - 1] = setting;
    }
    writeFileSync(path, lines.join("\n"));
  }

  it("a configuration in the form that was copied around fails, and works with the mends made", async () => {
    const config = join(network.dir, "copied.conf");
    const good = readFileSync(await network.fileConfig(), "utf8");
    const copied = good
      .replace(/^plugin\.security\.provider = (.*)$/m, 'plugin.security.provider: "$1"')
      .replace(/^plugin\.security\.file\.ca = (.*)$/m, 'plugin.security.file.ca = "$1"')
      .replace(/^(plugin\.choria\.middleware_hosts = .*)$/m, "$1 # the broker")
      .replace(/^plugin\.security\.file\.key = /m, "plugin.security.file.key: ");
    writeFileSync(config, copied);
    const env = { MCOLLECTIVE_CERTNAME: "ptittle", HOME: network.dir };
    const failed = await network.runChoria(["req", "rpcutil", "ping"], { config });
    expect(failed.code).toBe(1);

    const before = await check(["--config", config], env);
    expect(before.code).toBe(1);
    expect(wrong(before.report).sort()).toEqual(["colon", "colon", "comment", "quotes"]);
    mend(config, before.report);
    const after = await check(["--config", config], env);
    expect({ code: after.code, wrong: wrong(after.report) }).toEqual({ code: 0, wrong: [] });
    expect(after.report.notLooked[0]).toMatch(/^the token: no agent was found/);
    const done = await network.runChoria(["req", "rpcutil", "ping", "--json"], { config });
    expect((JSON.parse(done.stdout) as { replies: unknown[] }).replies).toHaveLength(2);
  });

  it("a name that the servers do not expect is named, and choria gets no answer with it", async () => {
    const config = await network.fileConfig();
    const found = await check(["--config", config], { MCOLLECTIVE_CERTNAME: "joe", HOME: network.dir });
    expect(wrong(found.report)).toEqual(["certname"]);
    const done = await network.runChoria(["req", "rpcutil", "ping"], { config, env: { MCOLLECTIVE_CERTNAME: "joe" } });
    expect(done).toMatchObject({ code: 1, stderr: expect.stringContaining("did not discover any nodes") });
  });
});

describe("choria check with a token", () => {
  let token: SoftHsm;
  let agent: ServerProcess;
  beforeAll(async () => {
    token = await createSoftHsm({ commonName: "ptittle" });
    agent = await startAgent({ token, pin: "file" });
  });
  afterAll(async () => {
    await agent?.dispose();
    await token?.dispose();
  });

  const config = (text: string): string => {
    const path = join(token.dir, "client.conf");
    writeFileSync(path, text);
    return path;
  };

  it("sees its keys and certificates without a signature or a log-in", async () => {
    const path = config(
      `plugin.security.provider = file\nplugin.security.file.ca = ${token.caFile}\nplugin.choria.middleware_hosts = a:1\n`,
    );
    const { code, report } = await check(["--config", path, "--socket", agent.socket], { HOME: token.dir });
    expect({ code, wrong: wrong(report), notLooked: report.notLooked }).toEqual({ code: 0, wrong: [], notLooked: [] });
    expect(report.findings.map(({ id, mend }) => [id, mend])).toContainEqual([
      "whitelist",
      "on every server: plugin.choria.security.certname_whitelist = ^ptittle$",
    ]);
    expect(agent.stderr()).not.toMatch(/used|PIN/);
  });

  it("says that stock choria wants one key alone", async () => {
    const path = config("plugin.security.provider = pkcs11\nplugin.choria.middleware_hosts = 127.0.0.1:1\n");
    const { code, report } = await check(["--config", path, "--socket", agent.socket], { HOME: token.dir });
    expect(code).toBe(1);
    expect(wrong(report)).toEqual(expect.arrayContaining(["driver", "several-keys"]));
  });

  it("reads for a person, in lines that name the file", async () => {
    const path = config('ttl: "5"\n');
    const done = await bastion.run(["choria", "check", "--config", path, "--socket", agent.socket], { env: { HOME: token.dir } });
    expect(done.code).toBe(1);
    expect(done.stdout.toString()).toContain(
      `error: ${path}:1: choria passes over this line in silence: it wants key = value, and this is "ttl: ..."\n  mend: write: ttl = 5\n`,
    );
  });

  it("fails with a code of its own where there is no configuration", async () => {
    const done = await bastion.run(["choria", "check", "--config", join(token.dir, "none")], { env: { HOME: token.dir } });
    expect(done).toMatchObject({ code: 50, stderr: expect.stringContaining("[E_CHORIA_CONFIG 50]") });
    expect(done.stdout.toString()).toBe("");
  });
});
