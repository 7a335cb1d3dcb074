/*
 * What `tokenfwd choria config` prints, done to the letter: the text kept as ~/.choriarc, the commands in its comments started, the
 * variables exported. A stock choria is then answered by both servers, and `choria check` has nothing against it.
 */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type ServerProcess, startAgent } from "../interop/agent-process.js";
import { type InstalledBundle, installBundle } from "../interop/bastion-bundle.js";
import { type Daemon, startDaemon } from "../support/choria/daemon.js";
import { type ChoriaNetwork, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { type SpiedToken, spyOn } from "../support/choria/spy.js";
import { freePort } from "../support/free-port.js";

const execute = promisify(execFile);

describe.skipIf(!(await choriaAvailable()))("a configuration as it is printed", () => {
  let network: ChoriaNetwork;
  let spied: SpiedToken;
  let agent: ServerProcess;
  let bastion: InstalledBundle;
  const home = mkdtempSync(join(tmpdir(), "tfwd-printed-"));
  const started: Daemon[] = [];
  beforeAll(async () => {
    [network, bastion] = await Promise.all([startChoriaNetwork(), installBundle()]);
    spied = spyOn(network.token);
    agent = await startAgent({ token: { ...spied, pin: network.token.pin }, pin: "file" });
    symlinkSync(network.program, join(bastion.bin, "choria"));
    mkdirSync(join(home, "work"));
  });
  afterEach(async () => {
    for (const daemon of started.splice(0)) await daemon.stop();
    rmSync(join(home, ".choriarc"), { force: true });
  });
  afterAll(async () => {
    await agent?.dispose();
    await network?.dispose();
    bastion?.dispose();
    rmSync(home, { recursive: true, force: true });
  });

  const environment = () => ({ ...bastion.env, HOME: home, USER: "joe", TOKENFWD_SOCKET: agent.socket });
  // choria reads what is on its stdin, and waits for more of a pipe that stays open.
  const shell = (script: string) =>
    execute("/bin/sh", ["-c", `exec </dev/null\n${script}`], { env: environment(), cwd: join(home, "work") });

  /** Prints it for this network, with ports that are free here; what it names and we do not have is put in its place. */
  async function follow(mode: string, instead: Readonly<Record<string, string>> = {}): Promise<{ exports: string }> {
    const words = ["--mode", mode, "--broker", `localhost:${network.port}`, "--ca", network.pki.ca];
    const { stdout } = await execute(bastion.program, ["choria", "config", ...words], { env: environment() });
    const swaps = { "127.0.0.1:14222": `127.0.0.1:${await freePort()}`, "127.0.0.1:18080": `127.0.0.1:${await freePort()}`, ...instead };
    const text = Object.entries(swaps).reduce((all, [from, to]) => all.replaceAll(from, to), stdout);
    writeFileSync(join(home, ".choriarc"), text);
    const lines = text.split("\n").flatMap((line) => /^# {4}(.*)$/.exec(line)?.[1] ?? []);
    for (const command of lines.filter((line) => line.startsWith("tokenfwd "))) {
      const daemon = await startDaemon("/bin/sh", ["-c", `exec ${command}`], environment(), join(home, "work"));
      started.push(daemon);
      await daemon.waitFor(/^\{"v":1|^\{ "v": 1/m);
    }
    return { exports: lines.filter((line) => line.startsWith("export ")).join("\n") };
  }

  async function works(exports: string): Promise<number> {
    await shell(`${exports}\nexec tokenfwd choria check`);
    const before = spied.signatures();
    const { stdout } = await shell(`${exports}\nexec choria req rpcutil ping --json`);
    const { replies } = JSON.parse(stdout) as { replies: { sender: string; statuscode: number }[] };
    expect(replies.map(({ sender, statuscode }) => [sender, statuscode]).sort()).toEqual([
      ["node1.example.net", 0],
      ["node2.example.net", 0],
    ]);
    return spied.signatures() - before;
  }

  it("in the mode relay works without a key here, for two signatures of requests", async () => {
    const { exports } = await follow("relay");
    expect(await works(exports)).toBe(2);
    for (const { daemon } of network.servers) await daemon.waitFor(/rpcutil#ping from choria=ptittle/);
  });

  it("in the mode bastion-tls works with the bastion's own certificate, for two signatures of requests", async () => {
    const own = { "/etc/choria/bastion.pem": network.bastion.certificate, "/etc/choria/bastion.key": network.bastion.key };
    const { exports } = await follow("bastion-tls", own);
    expect(await works(exports)).toBe(2);
  });

  it("in the mode pkcs11 has nothing wrong in it, and choria gets as far as the PIN", async () => {
    const { exports } = await follow("pkcs11");
    await shell(`${exports}\nexec tokenfwd choria check`);
    await expect(shell(`${exports}\nexec choria req rpcutil ping`)).rejects.toMatchObject({
      stderr: expect.stringContaining("failed to login to token"),
    });
  });
});
