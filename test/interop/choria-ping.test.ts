/*
 * `tokenfwd choria ping` as the bundle has it, through our agent on a real token, against a real broker and two real servers.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ChoriaNetwork, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { type SpiedToken, spyOn } from "../support/choria/spy.js";
import { type ServerProcess, startAgent } from "./agent-process.js";
import { type InstalledBundle, installBundle } from "./bastion-bundle.js";
import { startCli } from "./cli-process.js";

interface PingDocument {
  readonly caller: string;
  readonly replies: readonly { readonly sender: string; readonly ms: number }[];
  readonly refused: Readonly<Record<string, number>>;
}

describe.skipIf(!(await choriaAvailable()))("choria ping", () => {
  let network: ChoriaNetwork;
  let spied: SpiedToken;
  let agent: ServerProcess;
  let bastion: InstalledBundle;
  let config: string;
  beforeAll(async () => {
    [network, bastion] = await Promise.all([startChoriaNetwork(), installBundle()]);
    spied = spyOn(network.token);
    agent = await startAgent({ token: { ...spied, pin: network.token.pin }, pin: "file" });
    config = join(bastion.dir, "client.conf");
    const lines = ["plugin.security.provider = file", `plugin.security.file.ca = ${network.pki.ca}`];
    writeFileSync(config, [...lines, `plugin.choria.middleware_hosts = nats://localhost:${network.port}`, ""].join("\n"));
  });
  afterAll(async () => {
    await agent?.dispose();
    await network?.dispose();
    bastion?.dispose();
  });

  const run = (words: readonly string[], env: Readonly<Record<string, string>> = {}) =>
    bastion.run(["choria", "ping", "--socket", agent.socket, ...words], { env });
  const senders = (document: PingDocument) => document.replies.map(({ sender }) => sender).sort();

  it("is answered by every server, for two uses of the key", async () => {
    const before = spied.signatures();
    const done = await run(["--choria-config", config, "--json"]);
    expect(done, done.stderr).toMatchObject({ code: 0, stderr: "" });
    const document = JSON.parse(done.stdout.toString()) as PingDocument;
    expect(document).toMatchObject({ caller: "choria=ptittle", refused: { again: 0, broken: 0, foreign: 0 } });
    expect(senders(document)).toEqual(["node1.example.net", "node2.example.net"]);
    expect(spied.signatures() - before).toBe(2);
    for (const { daemon } of network.servers) await daemon.waitFor(/discovery#ping from choria=ptittle/);
  });

  it("needs no configuration where brokers and CA are named, and ends when enough have answered", async () => {
    const started = performance.now();
    const done = await run(["--broker", `localhost:${network.port}`, "--ca", network.pki.ca, "--expect", "2", "--timeout", "30"]);
    expect(done, done.stderr).toMatchObject({ code: 0 });
    expect(done.stdout.toString().trim().split("\n").sort()).toEqual([
      expect.stringMatching(/^node1\.example\.net +\d+ ms$/),
      expect.stringMatching(/^node2\.example\.net +\d+ ms$/),
    ]);
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  it("asks only those that a filter leaves", async () => {
    const some = await run([
      "--choria-config",
      config,
      "--json",
      "-I",
      "node2.example.net",
      "-F",
      "os.family=Debian",
      "-C",
      "tokenfwd",
      "-A",
      "rpcutil",
    ]);
    expect(senders(JSON.parse(some.stdout.toString()) as PingDocument)).toEqual(["node2.example.net"]);
  });

  it("ends with 1 when nobody answers, and when fewer do than were expected", async () => {
    const none = await run(["--choria-config", config, "-F", "os.family=Plan9", "--timeout", "1"]);
    expect(none).toMatchObject({ code: 1, stderr: expect.stringContaining("nobody answered") });
    expect(none.stdout.toString()).toBe("");
    expect((await run(["--choria-config", config, "--expect", "3", "--timeout", "1"])).code).toBe(1);
  });

  it("ends when nobody reads its answers any more", async () => {
    const words = ["choria", "ping", "--socket", agent.socket, "--choria-config", config, "--timeout", "60"];
    const cli = startCli(words, { program: bastion.program, env: bastion.env });
    cli.child.stdout?.destroy();
    const { code, signal, stderr } = await cli.exited;
    expect({ code, signal }, stderr).not.toEqual({ code: 0, signal: null });
    expect(stderr).not.toMatch(/E_BUG|EPIPE/);
  });

  it("ends with 50 and the cause when the broker is not the one, without a signature", async () => {
    const before = spied.signatures();
    const done = await run(["--broker", `localhost:${network.port}`, "--ca", network.pki.stranger]);
    expect(done).toMatchObject({ code: 50, stderr: expect.stringContaining("[E_CHORIA_BROKER 50]") });
    expect(spied.signatures() - before).toBe(0);
  });
});

describe("the command line of choria ping", () => {
  let bastion: InstalledBundle;
  beforeAll(async () => {
    bastion = await installBundle();
  });
  afterAll(() => bastion?.dispose());

  it.each([
    [["--timeout", "0"], "--timeout takes a whole number"],
    [["--expect", "x"], "--expect takes a whole number"],
    [["-F", "country"], "is no fact to look for"],
    [["--broker", "a b"], "--broker takes HOST:PORT"],
    [["--collective", "a b"], "--collective takes the name of one"],
  ])("refuses %s", async (words, text) => {
    expect(await bastion.run(["choria", "ping", ...words])).toMatchObject({ code: 2, stderr: expect.stringContaining(text) });
  });
});
