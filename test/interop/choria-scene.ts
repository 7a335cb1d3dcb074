/*
 * A real Choria network, a workstation with the operator's token, and a bastion that has choria and the operator's configuration but no
 * key and no certificate. What a test starts is ended after it; nothing may be left on the bastion, which is looked at.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { keyless } from "../support/choria/keyless.js";
import { type ChoriaNetwork, type ChoriaNetworkOptions, startChoriaNetwork } from "../support/choria/network.js";
import { type Setting, settingsText } from "../support/choria/settings.js";
import { type SpiedToken, spyOn } from "../support/choria/spy.js";
import { childrenOf } from "../support/processes.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { type Sshd, type SshdOptions, startSshd } from "../support/sshd.js";
import { type CliExit, type CliProcess, runCli, startCli } from "./cli-process.js";

export interface ChoriaScene {
  readonly network: ChoriaNetwork;
  readonly token: SpiedToken;
  /** In front of the token's module: makes it slow, or gone. */
  readonly shim: ShimModule;
  /** Done after the test, the last one first. */
  readonly cleanUps: (() => Promise<unknown> | unknown)[];
  /** A bastion whose user has choria on the PATH and this configuration (the usual one by default). */
  bastion(options?: ChoriaBastionOptions): Promise<ChoriaBastion>;
  /** The command line of a connect that needs nobody to type a PIN. */
  words(bastion: ChoriaBastion, ...more: string[]): string[];
  /** Runs a connect to its end. */
  run(bastion: ChoriaBastion, ...more: string[]): Promise<CliExit>;
  start(bastion: ChoriaBastion, ...more: string[]): CliProcess;
  /** For what runs at the workstation. */
  readonly env: NodeJS.ProcessEnv;
}

export interface ChoriaBastionOptions extends SshdOptions {
  /** In the place of the usual settings; null: no configuration at all. */
  readonly settings?: readonly Setting[] | null;
  /** Whether Node is on the PATH; default true. */
  readonly node?: boolean;
  /** Copies everything of the runtime directory to the home when choria starts, to be looked at. Default false. */
  readonly witness?: boolean;
}

export interface ChoriaBastion {
  readonly sshd: Sshd;
  readonly home: string;
  /** Every file there whose content is that of one of these, in any spelling of a key or certificate. */
  holds(files: readonly string[]): string[];
  /** Everything that lies in the runtime directory. */
  left(): string[];
  /** A file of the home directory. */
  write(name: string, text: string): void;
  read(name: string): string;
  /** Ends every connection as a crash would; the server goes on. */
  cut(): void;
}

/** Registers the hooks of a test file; the answer holds from its first test on. */
export function choriaScene(options: ChoriaNetworkOptions = {}): ChoriaScene {
  let network: ChoriaNetwork;
  let token: SpiedToken;
  let shim: ShimModule;
  let env: NodeJS.ProcessEnv = {};
  let dir = "";
  const cleanUps: ChoriaScene["cleanUps"] = [];

  beforeAll(async () => {
    network = await startChoriaNetwork(options);
    token = spyOn(network.token);
    shim = await createShimModule(token.modulePath);
    dir = mkdtempSync(join(tmpdir(), "tfwd-choria-ws-"));
    mkdirSync(join(dir, "run"), { mode: 0o700 });
    writeFileSync(join(dir, "pin"), `${network.token.pin}\n`, { mode: 0o600 });
    env = { ...token.env, ...shim.env, XDG_STATE_HOME: join(dir, "state"), XDG_RUNTIME_DIR: join(dir, "run") };
  }, 900_000);
  afterAll(async () => {
    await network?.dispose();
    await shim?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
    await shim.control();
    expect(readdirSync(join(dir, "run"), { recursive: true })).toEqual([]);
  });

  const scene: ChoriaScene = {
    get network() {
      return network;
    },
    get token() {
      return token;
    },
    get shim() {
      return shim;
    },
    get env() {
      return env;
    },
    cleanUps,
    async bastion({ settings = keyless(network), node = true, witness = false, ...sshd } = {}) {
      const home = mkdtempSync(join(tmpdir(), "tfwd-home-"));
      cleanUps.push(() => rmSync(home, { recursive: true, force: true }));
      mkdirSync(join(home, "bin"));
      if (witness) {
        const script = `#!/bin/sh\ncp -r "$XDG_RUNTIME_DIR" '${home}/seen' 2>/dev/null\nexec '${network.program}' "$@"\n`;
        writeFileSync(join(home, "bin", "choria"), script, { mode: 0o755 });
      } else symlinkSync(network.program, join(home, "bin", "choria"));
      if (node) symlinkSync(process.execPath, join(home, "bin", "node"));
      if (settings !== null) writeFileSync(join(home, ".choriarc"), settingsText(settings));
      const setEnv = { HOME: home, PATH: `${home}/bin:/usr/bin:/bin`, USER: "ops", ...sshd.setEnv };
      const started = await startSshd({ ...sshd, setEnv });
      cleanUps.push(() => started.dispose());
      return bastionOf(started, home);
    },
    words: (bastion, ...more) => [
      "connect",
      "bastion",
      "-F",
      bastion.sshd.sshConfig,
      "--module",
      shim.modulePath,
      "--pin-source",
      `file:${join(dir, "pin")}`,
      ...more,
    ],
    run: (bastion, ...more) => runCli(scene.words(bastion, ...more), { env }),
    start(bastion, ...more) {
      const cli = startCli(scene.words(bastion, ...more), { env });
      cleanUps.push(() => cli.end());
      return cli;
    },
  };
  return scene;
}

const isSshd = (pid: number): boolean => /^sshd/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8"));

function bastionOf(sshd: Sshd, home: string): ChoriaBastion {
  const below = (path: string): string[] =>
    readdirSync(path, { recursive: true, encoding: "utf8" })
      .map((name) => join(path, name))
      .filter((name) => statSync(name, { throwIfNoEntry: false })?.isFile() === true);
  return {
    sshd,
    home,
    holds(files) {
      const wanted = files.flatMap((file) => {
        const text = readFileSync(file, "latin1");
        const der = Buffer.from(text.replace(/-----[^-]+-----/g, ""), "base64");
        return [text.trim(), der.toString("latin1"), der.toString("base64"), der.toString("hex")];
      });
      return [...below(home), ...below(sshd.runtimeDir)].filter((path) => {
        const content = readFileSync(path, "latin1");
        return wanted.some((one) => content.includes(one));
      });
    },
    left: () => readdirSync(sshd.runtimeDir, { recursive: true, encoding: "utf8" }),
    write: (name, text) => writeFileSync(join(home, name), text),
    read: (name) => readFileSync(join(home, name), "utf8"),
    cut() {
      for (const session of childrenOf(sshd.pid))
        for (const pid of [...childrenOf(session).filter(isSshd), session]) process.kill(pid, "SIGKILL");
    },
  };
}
