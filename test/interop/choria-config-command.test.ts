/*
 * `tokenfwd choria config` as the bundle has it: filled in from what is here, and quick to say what is missing.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent } from "./agent-process.js";
import { type InstalledBundle, installBundle } from "./bastion-bundle.js";

let bastion: InstalledBundle;
let token: SoftHsm;
let agent: ServerProcess;
beforeAll(async () => {
  bastion = await installBundle();
  token = await createSoftHsm({ commonName: "ptittle" });
  agent = await startAgent({ token, pin: "file" });
});
afterAll(async () => {
  await agent?.dispose();
  await token?.dispose();
  bastion?.dispose();
});

const print = (words: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  bastion.run(["choria", "config", ...words], { env });

describe("choria config", () => {
  it("takes the name from the token, and brokers, CA and collectives from the configuration that is here", async () => {
    const own =
      "collectives = lon\nplugin.security.provider = file\nplugin.security.file.ca = ~/ca.pem\nplugin.choria.middleware_hosts = nats://a:4223,b:1\n";
    writeFileSync(join(bastion.dir, ".choriarc"), own);
    const before = readdirSync(bastion.dir);
    const done = await print(["--socket", agent.socket]);
    expect(done).toMatchObject({ code: 0, stderr: "" });
    const text = done.stdout.toString();
    expect(text).toContain("collectives = lon\nmain_collective = lon\n");
    expect(text).toContain(`tokenfwd choria relay --listen 127.0.0.1:14222 --broker a:4223,b:1 --ca ${bastion.dir}/ca.pem --login-file`);
    expect(text).toContain("export MCOLLECTIVE_CERTNAME=ptittle\n");
    expect(text).not.toContain("Not known here");
    expect(readdirSync(bastion.dir)).toEqual(before);
    expect(agent.stderr()).not.toMatch(/used|PIN/);
  });

  it("puts nothing of the configuration into a command line that a shell would take for something else", async () => {
    const hostile =
      "plugin.security.provider = file\nplugin.security.file.ca = /ca$(id).pem\nplugin.choria.middleware_hosts = a;id:1,b\u001bc:1,good:1\n";
    writeFileSync(join(bastion.dir, ".choriarc"), hostile);
    const done = await print(["--name", "ptittle"]);
    const text = done.stdout.toString();
    expect(text).toContain("--broker good:1 --ca /etc/choria/ca.pem --login-file");
    expect(text).not.toMatch(/[(;]id|\u001b/);
  });

  it("does without a token and a configuration, and says what is to be replaced", async () => {
    const done = await print(["--mode", "bastion-tls"], { HOME: "/nonexistent" });
    expect(done).toMatchObject({ code: 0, stderr: expect.stringContaining("--name") });
    expect(done.stdout.toString()).toMatch(/^# Not known here, and to be replaced: YOUR-NAME/m);
  });

  it.each([
    [["--mode", "both"], "--mode takes relay, bastion-tls, pkcs11, and not both"],
    [["--broker", "a b"], "--broker takes HOST:PORT"],
    [["--name", "a b"], "--name takes the CN"],
    [["--ca", "a b"], "--ca takes a path without blanks"],
  ])("refuses %s", async (words, text) => {
    const done = await print(words);
    expect(done).toMatchObject({ code: 2, stderr: expect.stringContaining(text) });
    expect(done.stdout.toString()).toBe("");
  });
});
