/*
 * The real choria for longer than `npm test` has time: twenty at once, tokens that want a touch of 3 and of 10 seconds, a broker that
 * stays away. Prints how long each took.
 */
import { describe, expect, it } from "vitest";
import { choriaScene } from "../interop/choria-scene.js";
import { answered, BOTH, keyless } from "../support/choria/keyless.js";
import { choriaAvailable } from "../support/choria/program.js";
import { untilContents } from "../support/forward.js";

const available = await choriaAvailable();
const ping = ["req", "rpcutil", "ping", "--json"];
const one = [...ping, "-I", BOTH[0] ?? ""];
const RUN = ["--tools", "--", "tokenfwd", "choria", "run", "--"];
const CONNECT = ["--choria", "--", "choria"];

async function timed<T>(what: string, work: Promise<T>): Promise<T> {
  const begin = performance.now();
  const done = await work;
  process.stdout.write(`${what}: ${((performance.now() - begin) / 1000).toFixed(1)} s\n`);
  return done;
}

describe.skipIf(!available)("choria with the token's key", () => {
  const scene = choriaScene();

  it.each([
    { way: "connect --choria", words: ["--choria", "--", "sh", "-c"], command: "choria", handshakes: 1 },
    { way: "choria run", words: ["--tools", "--", "sh", "-c"], command: "tokenfwd choria run --", handshakes: 20 },
  ])(
    "answers twenty at once by $way",
    async ({ way, words, command, handshakes }) => {
      const bastion = await scene.bastion();
      bastion.write("nodes", `${BOTH.join("\n")}\n`);
      const before = scene.token.signatures();
      const each = `${command} ${ping.join(" ")} --nodes $HOME/nodes > $HOME/out.$i 2>$HOME/err.$i`;
      const script = `for i in $(seq 20); do (${each}; echo $? > $HOME/status.$i) & done; wait`;
      const done = await timed(`twenty at once by ${way}`, scene.run(bastion, ...words, script));
      expect(done.code, done.stderr).toBe(0);
      for (let i = 1; i <= 20; i++) expect(answered(bastion.read(`out.${i}`), bastion.read(`err.${i}`))).toEqual(BOTH);
      expect(scene.token.signatures() - before).toBeLessThanOrEqual(20 + handshakes);
      await untilContents(bastion.sshd.runtimeDir, []);
    },
    180_000,
  );

  it.each([
    { seconds: 3, way: "choria run", words: RUN },
    { seconds: 10, way: "choria run", words: RUN },
    { seconds: 3, way: "connect --choria", words: CONNECT },
    { seconds: 10, way: "connect --choria", words: CONNECT },
  ])(
    "goes well by $way with a touch of $seconds s that the token remembers",
    async ({ seconds, way, words }) => {
      const bastion = await scene.bastion();
      await scene.shim.control(`C_Sign sleep ${seconds * 1000 + 500}`);
      const cli = scene.start(bastion, ...words, ...one);
      await cli.untilStderr(/touch/);
      await scene.shim.control();
      const done = await timed(`a touch of ${seconds} s by ${way}`, cli.exited);
      expect(answered(done.stdout, done.stderr)).toEqual([BOTH[0]]);
      await untilContents(bastion.sshd.runtimeDir, []);
    },
    60_000,
  );

  it.each([
    { seconds: 3, words: RUN, status: 50 },
    { seconds: 10, words: CONNECT, status: 255 },
  ])(
    "says that the broker hangs up where each signature wants a touch of $seconds s",
    async ({ seconds, words, status }) => {
      const bastion = await scene.bastion();
      await scene.shim.control(`C_Sign sleep ${seconds * 1000}`);
      const done = await timed(`a touch of ${seconds} s each time, refused`, scene.run(bastion, ...words, ...one));
      expect(done.stderr).toMatch(/tls_timeout/);
      expect(done.code).toBe(status);
      await untilContents(bastion.sshd.runtimeDir, []);
    },
    90_000,
  );

  it.each([
    { way: "choria run", words: RUN, status: 50 },
    { way: "connect --choria", words: CONNECT, status: 255 },
  ])(
    "is ended by $way when the broker stays away",
    async ({ way, words, status }) => {
      const { network } = scene;
      const settings = keyless(network).map(([key, value]) => [key, key === "discovery_timeout" ? 60 : value] as const);
      const bastion = await scene.bastion({ settings });
      const cli = scene.start(bastion, ...words, ...ping);
      await cli.untilStderr(/for choria-request: discovery/);
      try {
        await network.broker().stop("SIGKILL");
        const done = await timed(`a broker that stays away, by ${way}`, cli.exited);
        expect(done.stderr).toMatch(/for 15 s by now.*E_CHORIA_BROKER 50/);
        expect(done.code).toBe(status);
        await untilContents(bastion.sshd.runtimeDir, []);
      } finally {
        await network.restartBroker();
      }
    },
    90_000,
  );
});

describe.skipIf(!available)("choria with a token that wants a touch for each signature, and a broker that waits for it", () => {
  const scene = choriaScene({ brokerSettings: [["plugin.choria.network.tls_timeout", "30s"]] });

  it.each([
    { seconds: 3, way: "choria run", words: RUN },
    { seconds: 10, way: "choria run", words: RUN },
    { seconds: 3, way: "connect --choria", words: CONNECT },
    { seconds: 10, way: "connect --choria", words: CONNECT },
  ])(
    "goes well by $way with $seconds s each",
    async ({ seconds, way, words }) => {
      const bastion = await scene.bastion();
      await scene.shim.control(`C_Sign sleep ${seconds * 1000}`);
      const done = await timed(`a touch of ${seconds} s each time by ${way}`, scene.run(bastion, ...words, ...ping));
      expect(answered(done.stdout, done.stderr)).toEqual(BOTH);
      await untilContents(bastion.sshd.runtimeDir, []);
    },
    180_000,
  );
});
