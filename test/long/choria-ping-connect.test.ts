/*
 * `tokenfwd choria ping` on a bastion over a real sshd (connect --tools), through a stock p11-kit server, with a slow token, and with a
 * broker that goes away.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { startStockServer } from "../interop/agent-process.js";
import { choriaScene } from "../interop/choria-scene.js";
import { runCli, startCli } from "../interop/cli-process.js";
import { BOTH, keyless } from "../support/choria/keyless.js";
import { choriaAvailable } from "../support/choria/program.js";

interface PingDocument {
  readonly caller: string;
  readonly replies: readonly { readonly sender: string; readonly ms: number }[];
}

describe.skipIf(!(await choriaAvailable()))("choria ping through connect", () => {
  const scene = choriaScene();
  const read = (stdout: Buffer): PingDocument => JSON.parse(stdout.toString()) as PingDocument;
  const senders = (stdout: Buffer) =>
    read(stdout)
      .replies.map(({ sender }) => sender)
      .sort();
  const ping = ["--tools", "--", "tokenfwd", "choria", "ping"];

  it("is answered by both servers, with nothing of the operator's on the bastion and nothing left there", async () => {
    const bastion = await scene.bastion();
    const before = scene.token.signatures();
    const done = await scene.run(bastion, ...ping, "--expect", "2", "--json");
    expect(done, done.stderr).toMatchObject({ code: 0 });
    expect(senders(done.stdout)).toEqual(BOTH);
    expect(read(done.stdout).caller).toBe("choria=ptittle");
    expect(scene.token.signatures() - before).toBe(2);
    expect(done.stderr).toMatch(/for choria-request: discovery in mcollective, filter: none, by choria=ptittle/);
    const { operator, pki } = scene.network;
    expect(bastion.holds([operator.key, operator.certificate, pki.ca])).toEqual([]);
    expect(bastion.left()).toEqual([]);
  });

  it("counts the time of answers from when the request was sent, after two touches of 1.5 s", async () => {
    const bastion = await scene.bastion();
    await scene.shim.control("C_Sign sleep 1500");
    const done = await scene.run(bastion, ...ping, "--timeout", "2", "--json");
    expect(senders(done.stdout), done.stderr).toEqual(BOTH);
    for (const { ms } of read(done.stdout).replies) expect(ms).toBeLessThan(1_500);
  }, 90_000);

  it("works on a stock p11-kit server, with the PIN from a file", async () => {
    const { network, token, env, cleanUps } = scene;
    const stock = await startStockServer({ env: token.env, modulePath: token.modulePath, pin: network.token.pin });
    cleanUps.push(() => stock.dispose());
    const file = (name: string) => join(network.dir, name);
    writeFileSync(file("ping-pin"), `${network.token.pin}\n`, { mode: 0o600 });
    const words = ["--broker", `localhost:${network.port}`, "--ca", network.pki.ca, "--expect", "2", "--json"];
    const done = await runCli(["choria", "ping", "--socket", stock.socket, "--pin-source", `file:${file("ping-pin")}`, ...words], { env });
    expect(senders(done.stdout), done.stderr).toEqual(BOTH);
  });

  it("ends with the cause when the broker goes away while it waits", async () => {
    const { network } = scene;
    const bastion = await scene.bastion({ settings: [...keyless(network), ["discovery_timeout", 60]] });
    const cli = startCli(scene.words(bastion, ...ping), { env: scene.env });
    scene.cleanUps.push(() => cli.end());
    await cli.until(() => (BOTH.every((name) => cli.stdout().includes(name)) ? true : undefined));
    await network.restartBroker();
    const done = await cli.exited;
    expect(done).toMatchObject({ code: 50, stderr: expect.stringContaining("the connection to the broker ended") });
  });
});
