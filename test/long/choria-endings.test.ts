/*
 * How a run of the real choria ends when something beneath it does not hold: in bounded time, with the cause on the terminal, or as if
 * nothing had been; and nothing is left on the bastion.
 */
import { describe, expect, it } from "vitest";
import { type ChoriaBastion, choriaScene } from "../interop/choria-scene.js";
import { TOKENFWD } from "../interop/cli-process.js";
import { answered, BOTH, keyless } from "../support/choria/keyless.js";
import { choriaAvailable } from "../support/choria/program.js";
import { untilContents } from "../support/forward.js";
import { processesNaming } from "../support/processes.js";
import { spawnUnderPty } from "../support/pty.js";

/** Discovery takes so long, in seconds, where something is to happen meanwhile. */
const LONG = 40;

describe.skipIf(!(await choriaAvailable()))("a run of choria", () => {
  const scene = choriaScene();
  const ping = ["req", "rpcutil", "ping", "--json"];
  const one = [...ping, "-I", BOTH[0] ?? ""];
  const slow = () =>
    keyless(scene.network).map(([key, value]) => (key === "discovery_timeout" ? ([key, LONG] as const) : ([key, value] as const)));
  /** Nothing lies there and nothing runs there any more. */
  async function leftNothing(bastion: ChoriaBastion): Promise<void> {
    await untilContents(bastion.sshd.runtimeDir, []);
    await expect.poll(() => processesNaming(bastion.sshd.runtimeDir), { timeout: 10_000 }).toEqual([]);
  }
  const discovering = /for choria-request: discovery in mcollective/;

  it("goes well with a token that wants a touch for longer than the broker waits, and then remembers it", async () => {
    const bastion = await scene.bastion();
    await scene.shim.control("C_Sign sleep 3500");
    const cli = scene.start(bastion, "--tools", "--", "tokenfwd", "choria", "run", "--", ...one);
    await cli.untilStderr(/touch/);
    await scene.shim.control();
    const done = await cli.exited;
    expect(answered(done.stdout, done.stderr)).toEqual([BOTH[0]]);
    expect(done.stderr).toMatch(/the token was waited for: answers are waited for \d+ s/);
    expect(done.code).toBe(0);
    await leftNothing(bastion);
  }, 30_000);

  const ways = [
    { way: "choria run", words: ["--tools", "--", "tokenfwd", "choria", "run", "--", ...ping], ours: 50 },
    { way: "connect --choria", words: ["--choria", "--", "choria", ...ping], ours: 255 },
  ];

  it.each(ways)("ends with $way when the token is pulled between its two signatures, and says so", async ({ words, ours }) => {
    const bastion = await scene.bastion();
    const cli = scene.start(bastion, ...words);
    await cli.untilStderr(discovering);
    await scene.shim.control("token out");
    const done = await cli.exited;
    // Who notices first: choria, whose request is not signed, or we, who would need the token for a new connection.
    const byChoria = done.code === 1;
    expect(done.stderr).toMatch(byChoria ? /error from remote signer: .*token/ : /the token was taken out at the workstation.*\b20\]/);
    expect(done.code).toBe(byChoria ? 1 : ours);
    await leftNothing(bastion);
  });

  it("is ended on the bastion when tokenfwd choria run is killed there, which is said", async () => {
    const bastion = await scene.bastion({ settings: slow() });
    const cli = scene.start(bastion, "--tools", "--", "sh", "-c", `tokenfwd choria run -- ${ping.join(" ")}; echo "status $?"`);
    await cli.untilStderr(discovering);
    const [killed = 0] = processesNaming(`${bastion.sshd.runtimeDir}/tokenfwd`)
      .filter(({ words }) => words.includes("run"))
      .map(({ pid }) => pid);
    process.kill(killed, "SIGKILL");
    const done = await cli.exited;
    expect(done.stderr).toContain("tokenfwd choria run was killed, so choria is ended");
    expect(done.stdout.toString()).toBe("status 137\n");
    await leftNothing(bastion);
  }, 30_000);

  it("is ended on the bastion when the workstation's process is killed", async () => {
    const bastion = await scene.bastion({ settings: slow() });
    const cli = scene.start(bastion, "--choria", "--", "choria", ...ping);
    await cli.untilStderr(discovering);
    cli.child.kill("SIGKILL");
    await cli.exited;
    await leftNothing(bastion);
    // What it left at the workstation goes with the next.
    expect((await scene.run(bastion, "--choria", "--", "true")).code).toBe(0);
  }, 30_000);

  it.each(ways)("ends with $way when the connection is cut", async ({ words }) => {
    const bastion = await scene.bastion({ settings: slow() });
    const cli = scene.start(bastion, ...words);
    await cli.untilStderr(discovering);
    bastion.cut();
    const done = await cli.exited;
    expect(done.stderr).toMatch(/E_SSH_LOST 10/);
    expect(done.code).toBe(255);
    await leftNothing(bastion);
  });

  it("goes well on a connection that was there before the broker was started anew", async () => {
    const bastion = await scene.bastion();
    const again = "while ! test -e $HOME/again; do sleep 0.1; done";
    const run = `choria ${one.join(" ")}`;
    const cli = scene.start(bastion, "--choria", "--", "sh", "-c", `${run}; echo first >&2; ${again}; ${run} > $HOME/second`);
    await cli.untilStderr(/^first$/m);
    await scene.network.restartBroker();
    bastion.write("again", "");
    const done = await cli.exited;
    expect(done.code, done.stderr).toBe(0);
    expect(answered(bastion.read("second"))).toEqual([BOTH[0]]);
    await leftNothing(bastion);
  }, 40_000);

  it.each([
    { way: "choria run", words: ["-t", "--tools", "--", "tokenfwd", "choria", "run", "--", ...ping] },
    { way: "connect --choria", words: ["-t", "--choria", "--", "choria", ...ping] },
  ])("has the terminal with $way, and ends with Ctrl-C", async ({ words }) => {
    const bastion = await scene.bastion({ settings: slow() });
    const argv = [process.execPath, TOKENFWD, ...scene.words(bastion, ...words.filter((word) => word !== "--json"))];
    await using terminal = spawnUnderPty({ argv, env: scene.env });
    await terminal.expect(/Discovering nodes/, 20_000);
    terminal.send("\x03");
    const { exitCode, output } = await terminal.exited;
    expect(exitCode).toBeGreaterThan(0);
    expect(output).not.toMatch(/Disabling TLS|E_/);
    await leftNothing(bastion);
  });

  it("gets the signals of who runs it, and ends as it does by itself", async () => {
    const bastion = await scene.bastion({ settings: slow() });
    const text = `tokenfwd choria run -- ${ping.join(" ")} & run=$!; while ! test -e $HOME/go; do sleep 0.1; done; kill -TERM $run; wait $run; echo "status $?"`;
    const cli = scene.start(bastion, "--tools", "--", "sh", "-c", text);
    await cli.untilStderr(discovering);
    bastion.write("go", "");
    const done = await cli.exited;
    expect(done.stdout.toString()).toMatch(/^status [01]\n$/m);
    await leftNothing(bastion);
  }, 30_000);
});
