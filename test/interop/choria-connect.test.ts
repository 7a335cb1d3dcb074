/*
 * `connect --choria` with the real choria, over a real sshd: what the fleet answers, what the bastion holds meanwhile, what sshd must allow.
 */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { answered, BOTH, keyless } from "../support/choria/keyless.js";
import { choriaAvailable } from "../support/choria/program.js";
import { COMMON } from "../support/choria/settings.js";
import { spawnUnderPty } from "../support/pty.js";
import { choriaScene } from "./choria-scene.js";
import { TOKENFWD } from "./cli-process.js";

/** All that the relay answers to this. */
function natsAnswer(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let all = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      all += chunk;
    });
    socket.on("error", reject).on("end", () => resolve(all));
  });
}

describe.skipIf(!(await choriaAvailable()))("connect --choria", () => {
  const scene = choriaScene();
  const ping = ["choria", "req", "rpcutil", "ping", "--json"];

  it("has both servers answer the operator with three signatures, and no key, certificate or CA on the bastion, which needs no Node", async () => {
    const { network, token } = scene;
    const settings = keyless(network).filter(([key]) => key !== "plugin.security.file.ca");
    const bastion = await scene.bastion({ settings, node: false, witness: true });
    const from = network.servers.map(({ daemon }) => daemon.log().length);
    const before = token.signatures();
    const done = await scene.run(bastion, "--choria", "--ca", network.pki.ca, "--", ...ping);
    expect(done.code, done.stderr).toBe(0);
    expect(answered(done.stdout)).toEqual(BOTH);
    expect(token.signatures() - before).toBeLessThanOrEqual(3);
    for (const [index, { daemon }] of network.servers.entries()) expect(daemon.log().slice(from[index])).toContain("choria=ptittle");
    // It was looked at while choria ran: its configuration and secrets were there.
    const seen = join(bastion.home, "seen", "tokenfwd");
    const [ours = ""] = readdirSync(seen);
    expect(readdirSync(join(seen, ours, "cmd")).sort()).toEqual(["choria", "client.conf", "login", "signer.seed", "signer.token"]);
    expect(bastion.holds([network.operator.key, network.operator.certificate, network.pki.ca])).toEqual([]);
    expect(readFileSync(join(seen, ours, "cmd", "client.conf"), "utf8")).not.toContain(
      readFileSync(join(seen, ours, "cmd", "login"), "utf8").split(" ")[1],
    );
    expect(done.stderr).not.toMatch(/TLS via environment/);
    expect(done.stderr).toMatch(/choria there is choria=ptittle: .* TLS to localhost:\d+ with the token's key/);
    expect(bastion.left()).toEqual([]);
  });

  it("runs every usual command on one handshake, and passes on what they print and their status", async () => {
    const { token } = scene;
    const bastion = await scene.bastion();
    writeFileSync(join(bastion.home, "nodes"), `${BOTH.join("\n")}\n`);
    const script = [
      "choria ping",
      "choria facts os.family",
      "choria discover --json",
      "choria req rpcutil ping --batch 1 --json",
      "choria req rpcutil ping --nodes $HOME/nodes --json",
      "choria req rpcutil nope; echo status $?",
      "choria buildinfo | grep -c Build",
    ].join(" && echo == && ");
    const before = token.signatures();
    const done = await scene.run(bastion, "--choria", "--", "sh", "-c", script);
    const [pinged = "", facts = "", discovered = "", batch = "", nodes = "", nope = "", info = ""] = done.stdout.toString().split("==\n");
    expect(pinged.match(/node\d\.example\.net +time=/g)).toHaveLength(2);
    expect(facts).toContain("Debian found 2 times");
    expect([...(JSON.parse(discovered) as string[])].sort()).toEqual(BOTH);
    expect(answered(batch)).toEqual(BOTH);
    expect(answered(nodes)).toEqual(BOTH);
    expect(nope).toMatch(/status 1\n$/);
    expect(Number(info)).toBeGreaterThan(0);
    expect(done.code, done.stderr).toBe(0);
    // 1 handshake; ping 1, facts 2, discover 1, batch 1 + 2, nodes 1. What does not exist is not signed.
    expect(token.signatures() - before).toBe(9);
    expect(bastion.left()).toEqual([]);
  }, 60_000);

  it("gives choria the terminal, and a shell the same choria", async () => {
    const bastion = await scene.bastion();
    await using shell = spawnUnderPty({
      argv: [process.execPath, TOKENFWD, ...scene.words(bastion, "--choria", "--shell")],
      env: scene.env,
    });
    await shell.expect(/until the shell ends/, 20_000);
    shell.send("stty -echo; cd /; echo re'ad'y\n");
    await shell.expect(/ready/);
    shell.send("choria req rpcutil ping -I node1.example.net\n");
    await shell.expect(/1 \/ 1[\s\S]*Finished processing 1 \/ 1 hosts/, 20_000);
    shell.send("exit\n");
    const { exitCode, output } = await shell.exited;
    expect(output).not.toMatch(/Disabling TLS/);
    expect(exitCode).toBe(0);
    expect(bastion.left()).toEqual([]);
  }, 60_000);

  it("works where the bastion gives one session and no terminal", async () => {
    const bastion = await scene.bastion({ config: ["MaxSessions 1", "PermitTTY no"] });
    const done = await scene.run(bastion, "--choria", "--", ...ping, "-I", BOTH[0] ?? "");
    expect(answered(done.stdout, done.stderr)).toEqual([BOTH[0]]);
    expect(bastion.left()).toEqual([]);
  });

  it("has two ports on the bastion that are of no use to who has not read the secrets, and are gone afterwards", async () => {
    const bastion = await scene.bastion();
    const cli = scene.start(bastion, "--choria", "--json");
    const { directory, caller } = (await cli.untilEvent("ready"))["choria"] as { readonly directory: string; readonly caller: string };
    expect(caller).toBe("choria=ptittle");
    const config = readFileSync(join(directory, "client.conf"), "utf8");
    const [, relay = ""] = /middleware_hosts = nats:\/\/127\.0\.0\.1:(\d+)/.exec(config) ?? [];
    const [, url = ""] = /request_signer\.url = (http:\S+)/.exec(config) ?? [];
    expect([directory, join(directory, "client.conf"), join(directory, "login")].map((path) => statSync(path).mode & 0o077)).toEqual([
      0, 0, 0,
    ]);
    const before = scene.token.signatures();
    const connections = scene.network.broker().log().length;
    expect(await natsAnswer(Number(relay), 'CONNECT {"user":"ops","pass":"guess"}\r\nPING\r\n')).toMatch(
      /^INFO [^\r]*\r\n-ERR 'Authorization Violation'\r\n$/,
    );
    const body = JSON.stringify({ token: "guess", request: "", signature: "" });
    for (const headers of [{}, { Origin: "http://elsewhere.example" }]) {
      const answer = await fetch(url, { method: "POST", body, headers });
      expect([400, 401]).toContain(answer.status);
      expect(await answer.text()).toBe("");
    }
    expect(scene.token.signatures()).toBe(before);
    expect(scene.network.broker().log()).toHaveLength(connections);
    await cli.end();
    await expect(fetch(url, { method: "POST", body })).rejects.toThrow();
    expect(bastion.left()).toEqual([]);
  });

  it("takes its configuration from the workstation where the bastion has none", async () => {
    const { network } = scene;
    const bastion = await scene.bastion({ settings: null });
    const refused = await scene.run(bastion, "--choria", "--", ...ping);
    expect(refused.stderr).toMatch(/no client configuration.*E_CHORIA_CONFIG 50/);
    expect(refused.code).toBe(255);
    const config = await network.clientConfig("workstation", keyless(network));
    const done = await scene.run(bastion, "--choria", "--choria-config", config, "--", ...ping, "-I", BOTH[0] ?? "");
    expect(answered(done.stdout, done.stderr)).toEqual([BOTH[0]]);
  }, 30_000);

  it.each<[string, { config?: string[]; authorizedKeyOptions?: string }, RegExp]>([
    ["AllowTcpForwarding remote", { config: ["AllowTcpForwarding remote"] }, /connects nobody to localhost port .*E_FORWARD_REFUSED 12/],
    ["PermitListen none", { config: ["PermitListen none"] }, /no port on its loopback: PermitListen.*E_FORWARD_REFUSED 12/],
    ["permitopen of the key", { authorizedKeyOptions: 'permitopen="other:1"' }, /connects nobody.*E_FORWARD_REFUSED 12/],
  ])("says what %s forbids before the token signs anything, and the way without", async (_name, options, message) => {
    const bastion = await scene.bastion(options);
    const before = scene.token.signatures();
    const done = await scene.run(bastion, "--choria", "--", ...ping);
    expect(done.stderr).toMatch(message);
    expect(done.stderr).toContain("--tools -- tokenfwd choria run");
    expect(done.code).toBe(255);
    expect(scene.token.signatures()).toBe(before);
    expect(bastion.left()).toEqual([]);
  });

  it("says what is missing before the token is opened: choria, a CA, a broker that answers", async () => {
    const { network } = scene;
    const without = await scene.bastion({ setEnv: { PATH: "/usr/bin:/bin" } });
    expect((await scene.run(without, "--choria", "--", "true")).stderr).toMatch(/there is no choria on the PATH.*E_CHORIA 50/);
    const bare = await scene.bastion({
      settings: [...COMMON, ["plugin.choria.middleware_hosts", `localhost:${network.port}`], ["plugin.security.provider", "file"]],
    });
    expect((await scene.run(bare, "--choria", "--", "true")).stderr).toMatch(/names no CA.*E_CHORIA_CONFIG 50/);
    const alone = await scene.bastion({ settings: keyless(network, "nats://localhost:1") });
    const before = scene.token.signatures();
    expect((await scene.run(alone, "--choria", "--", "true")).stderr).toMatch(/Connection refused.*E_CHORIA_BROKER 50/);
    expect(scene.token.signatures()).toBe(before);
  }, 30_000);

  it("does not go with what it cannot keep", async () => {
    const bastion = await scene.bastion();
    for (const [options, message] of [
      [["--stock"], /--choria cannot hold with --stock/],
      [["--policy", "read"], /--choria cannot hold with --policy read/],
    ] as const)
      expect((await scene.run(bastion, "--choria", ...options, "--", "true")).stderr).toMatch(message);
    expect((await scene.run(bastion, "--ca", scene.network.pki.ca, "--", "true")).stderr).toMatch(/--ca is for --choria/);
  });
});
