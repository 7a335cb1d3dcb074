/*
 * `tokenfwd choria run` with the real choria, on a bastion over a real sshd and through a stock p11-kit server: what the fleet answers,
 * what the bastion holds meanwhile, what stops it before it starts.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { answered, BOTH, keyless } from "../support/choria/keyless.js";
import { choriaAvailable } from "../support/choria/program.js";
import { type ChoriaBastion, choriaScene } from "./choria-scene.js";
import { type CliExit, startCli } from "./cli-process.js";

describe.skipIf(!(await choriaAvailable()))("choria run on a bastion", () => {
  const scene = choriaScene();
  const ping = ["req", "rpcutil", "ping", "--json"];
  /** By way of connect --tools; words before `--` are options of choria run. */
  const onBastion = (bastion: ChoriaBastion, words: readonly string[], options: readonly string[] = []): Promise<CliExit> =>
    scene.run(bastion, "--tools", "--", "tokenfwd", "choria", "run", ...options, "--", ...words);
  const script = (bastion: ChoriaBastion, text: string): Promise<CliExit> => scene.run(bastion, "--tools", "--", "sh", "-c", text);

  it("has both servers answer the operator with three signatures, and no key or certificate of theirs on the bastion", async () => {
    const { network, token } = scene;
    const bastion = await scene.bastion({ witness: true });
    const from = network.servers.map(({ daemon }) => daemon.log().length);
    const before = token.signatures();
    const done = await onBastion(bastion, ping);
    expect(done.code, done.stderr).toBe(0);
    expect(answered(done.stdout)).toEqual(BOTH);
    expect(token.signatures() - before).toBeLessThanOrEqual(3);
    for (const [index, { daemon }] of network.servers.entries()) expect(daemon.log().slice(from[index])).toContain("choria=ptittle");
    const seen = join(bastion.home, "seen", "tokenfwd");
    const run = readdirSync(seen).find((name) => name.startsWith("run.")) ?? "";
    expect(readdirSync(join(seen, run)).sort()).toEqual(["client.conf", "signer.seed", "signer.token"]);
    expect(bastion.holds([network.operator.key, network.operator.certificate, network.pki.ca])).toEqual([]);
    expect(done.stderr).not.toMatch(/TLS via environment/);
    expect(done.stderr).toMatch(/choria runs as choria=ptittle: TLS to localhost:\d+ is made here with the token's key/);
    expect(done.stderr).toMatch(/for choria-request: rpcutil#ping in mcollective, filter: none, by choria=ptittle/);
    expect(bastion.left()).toEqual([]);
  });

  it("passes on every usual command, its output and its status", async () => {
    const bastion = await scene.bastion();
    writeFileSync(join(bastion.home, "nodes"), `${BOTH.join("\n")}\n`);
    const commands = [
      "ping",
      "facts os.family",
      "discover --json",
      "req rpcutil ping --batch 1 --json",
      "req rpcutil ping --nodes $HOME/nodes --json",
    ];
    const done = await script(
      bastion,
      [...commands.map((words) => `tokenfwd choria run -- ${words} && echo ==`), "tokenfwd choria run -- req nope x; echo status $?"].join(
        " && ",
      ),
    );
    const [pinged = "", facts = "", discovered = "", batch = "", nodes = "", nope = ""] = done.stdout.toString().split("==\n");
    expect(pinged.match(/node\d\.example\.net +time=/g), done.stderr).toHaveLength(2);
    expect(facts).toContain("Debian found 2 times");
    expect([...(JSON.parse(discovered) as string[])].sort()).toEqual(BOTH);
    expect(answered(batch)).toEqual(BOTH);
    expect(answered(nodes)).toEqual(BOTH);
    expect(nope).toMatch(/status 1\n$/);
    expect(bastion.left()).toEqual([]);
  }, 60_000);

  it("runs on a stock p11-kit server over ssh -R, whose PIN is asked for on the bastion, once", async () => {
    const { network, token, env, cleanUps } = scene;
    const bastion = await scene.bastion();
    const { sshd } = bastion;
    const socket = join(network.dir, "stock.sock");
    const server = spawn("p11-kit", ["server", "--foreground", "-n", socket, "--provider", token.modulePath, "pkcs11:"], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const gone = new Promise((resolve) => server.once("close", resolve));
    cleanUps.push(async () => {
      server.kill();
      await gone;
    });
    await new Promise((resolve) => server.stdout.once("data", resolve));
    const pin = join(bastion.home, "pin");
    writeFileSync(pin, `${network.token.pin}\n`, { mode: 0o600 });
    const remote = join(sshd.runtimeDir, "stock.sock");
    const tokenfwd = `${bastion.home}/bin/node ${new URL("../../dist/tokenfwd-bastion.cjs", import.meta.url).pathname}`;
    const words = `${tokenfwd} choria run --socket ${remote} --pin-source file:${pin} -- ${ping.join(" ")}`;
    const before = token.signatures();
    const ssh = startCli(["-F", sshd.sshConfig, "-R", `${remote}:${socket}`, "bastion", words], { program: "ssh" });
    cleanUps.push(() => ssh.end());
    const done = await ssh.exited;
    expect(answered(done.stdout, done.stderr)).toEqual(BOTH);
    expect(token.signatures() - before).toBeLessThanOrEqual(3);
    expect(bastion.holds([network.operator.key, network.operator.certificate])).toEqual([]);
    expect(bastion.left()).toEqual(["stock.sock"]);
  }, 30_000);

  it("is stopped by a choria.conf that would override it, and runs elsewhere with --own-dir", async () => {
    const bastion = await scene.bastion();
    const work = join(bastion.home, "work");
    mkdirSync(join(work, "below"), { recursive: true });
    writeFileSync(join(work, "choria.conf"), "plugin.security.provider = nonsense\n");
    const run = (options: string) => `cd ${work}/below && tokenfwd choria run ${options} -- ${ping.join(" ")} -I ${BOTH[0]}`;
    const stopped = await script(bastion, run(""));
    expect(stopped.stderr).toContain(`${work}/choria.conf would override the configuration of this run`);
    expect(stopped.stderr).toMatch(/E_CHORIA_CONFIG 50.*\nhint: .*--own-dir/);
    expect({ code: stopped.code, stdout: stopped.stdout.toString() }).toEqual({ code: 50, stdout: "" });
    const elsewhere = await script(bastion, run("--own-dir"));
    expect(answered(elsewhere.stdout, elsewhere.stderr)).toEqual([BOTH[0]]);
  }, 30_000);

  it("is stopped by a choria.conf that somebody puts above while the token is waited for", async () => {
    const bastion = await scene.bastion();
    const work = join(bastion.home, "work");
    mkdirSync(join(work, "below"), { recursive: true });
    await scene.shim.control("C_Sign sleep 3500");
    const words = ["sh", "-c", `cd ${work}/below && tokenfwd choria run -- ${ping.join(" ")}`];
    const cli = scene.start(bastion, "--tools", "--", ...words);
    // The configuration has been read by the time that the token is asked.
    await cli.untilStderr(/touch/);
    await scene.shim.control();
    writeFileSync(join(work, "choria.conf"), "plugin.choria.middleware_hosts = nats://127.0.0.1:1\n");
    const done = await cli.exited;
    expect(done.stderr).toContain(`${work}/choria.conf would override the configuration of this run`);
    expect({ code: done.code, stdout: done.stdout.toString() }).toEqual({ code: 50, stdout: "" });
  }, 30_000);

  it("says what is wrong before choria starts, with 50, or 2 for the command line, and signs nothing then", async () => {
    const { network, token } = scene;
    const bastion = await scene.bastion();
    const before = token.signatures();
    const cases: readonly (readonly [words: string, status: number, message: RegExp])[] = [
      [`--broker localhost:1 -- ${ping.join(" ")}`, 50, /localhost:1 cannot be reached.*E_CHORIA_BROKER 50/],
      [`--ca ${network.pki.stranger} -- ${ping.join(" ")}`, 50, /E_CHORIA_BROKER 50/],
      [`--key 'pkcs11:id=%09' -- ${ping.join(" ")}`, 50, /no key matches --key.*E_KEY_NOT_FOUND 20/],
      [`--choria-config /nowhere -- ${ping.join(" ")}`, 50, /E_CHORIA_CONFIG 50/],
      ["-- req --config mine x", 2, /--choria-config FILE/],
      ["-- broker run", 2, /broker run of choria has no use for the token/],
      [`-- req "$(printf '\\377')"`, 2, /not UTF-8/],
      ["", 2, /nothing to run/],
    ];
    const done = await script(bastion, cases.map(([words]) => `tokenfwd choria run ${words}; echo "status $?"; echo == >&2`).join("\n"));
    expect(done.stdout.toString()).toBe(cases.map(([, status]) => `status ${status}\n`).join(""));
    for (const [index, said] of done.stderr.split("==\n").slice(0, cases.length).entries())
      expect(said).toMatch(cases[index]?.[2] ?? /nothing/);
    expect(token.signatures()).toBe(before);
    expect(bastion.left()).toEqual([]);
  }, 30_000);

  it("takes away what a run left that was killed", async () => {
    const bastion = await scene.bastion({ settings: keyless(scene.network) });
    const left = join(bastion.sshd.runtimeDir, "tokenfwd", "run.4194305.0123456789abcdef");
    mkdirSync(left, { recursive: true, mode: 0o700 });
    writeFileSync(join(left, "client.conf"), "");
    expect((await onBastion(bastion, [...ping, "-I", BOTH[0] ?? ""])).code).toBe(0);
    expect(bastion.left()).toEqual([]);
  });
});
