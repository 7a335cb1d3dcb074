/*
 * The real choria on the network of the tests, with the operator's key in a file: the baseline that everything of ours is held
 * against.
 */
import { execFileSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ChoriaNetwork, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { fileProvider } from "../support/choria/settings.js";
import { spyOn } from "../support/choria/spy.js";

describe.skipIf(!(await choriaAvailable()))("the real choria", () => {
  let network: ChoriaNetwork;
  beforeAll(async () => {
    network = await startChoriaNetwork();
  });
  afterAll(() => network?.dispose());

  const ping = async (config: string) => {
    const done = await network.runChoria(["req", "rpcutil", "ping", "--json"], { config });
    return { done, replies: (JSON.parse(done.stdout || "{}") as { replies?: { sender: string; statuscode: number }[] }).replies ?? [] };
  };

  it("reaches both servers with a key in a file", async () => {
    const { done, replies } = await ping(await network.fileConfig());
    expect(done, done.stderr).toMatchObject({ code: 0 });
    expect(replies.map(({ sender, statuscode }) => [sender, statuscode]).sort()).toEqual([
      ["node1.example.net", 0],
      ["node2.example.net", 0],
    ]);
  });

  it("is answered by nobody as somebody who is not on the servers' list", async () => {
    const config = await network.clientConfig("mallory", fileProvider(network.mallory, network.pki.ca));
    const done = await network.runChoria(["req", "rpcutil", "ping"], { config, env: { MCOLLECTIVE_CERTNAME: "mallory" } });
    expect(done.code).toBe(1);
    for (const { daemon } of network.servers) await daemon.waitFor(/certificate 'mallory' does not match the allowed list/);
  });

  it("keeps the count of what the token signed", () => {
    const spied = spyOn(network.token);
    const input = join(network.dir, "text");
    writeFileSync(input, "text");
    const words = ["--module", spied.modulePath, "--login", "--pin", network.token.pin, "--sign", "-m", "SHA256-RSA-PKCS", "-i", input];
    for (const count of [1, 2]) {
      execFileSync("pkcs11-tool", [...words, "-o", join(network.dir, "signature")], { env: spied.env, stdio: "pipe" });
      expect(spied.signatures()).toBe(count);
    }
  });

  it("reaches both servers after the broker was started anew", async () => {
    await network.restartBroker();
    const { replies } = await ping(await network.fileConfig());
    expect(replies).toHaveLength(2);
  });

  it("takes no broker whose certificate has expired", async () => {
    await network.restartBroker({ certificate: "expired" });
    const done = await network.runChoria(["req", "rpcutil", "ping"], { config: await network.fileConfig() });
    expect(done).toMatchObject({ code: 1 });
    expect(`${done.stdout}${done.stderr}`).toMatch(/certificate has expired/);
  });
});

it.skipIf(!(await choriaAvailable()))("a network that was stopped has left nothing", async () => {
  const network = await startChoriaNetwork({ servers: 1, token: false });
  const daemons = [network.broker(), ...network.servers.map(({ daemon }) => daemon)];
  await network.dispose();
  expect(daemons.map((daemon) => daemon.running())).toEqual([false, false]);
  expect(existsSync(network.dir)).toBe(false);
});
