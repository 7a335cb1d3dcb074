/*
 * One workstation and bastions for tests of how a connect ends: a token, a state directory whose id marks what we make on a bastion, and
 * a look at what is left there. Everything it starts is ended after each test.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, type SshdOptions, startSshd } from "../support/sshd.js";
import { type CliProcess, startCli } from "./cli-process.js";

export interface ConnectScene {
  readonly token: SoftHsm;
  /** The workstation's, gone after the test. */
  readonly dir: string;
  /** The workstation's id: the mark of everything we make on a bastion. */
  readonly mark: string;
  readonly env: NodeJS.ProcessEnv;
  /** Done after the test, the last one first. */
  readonly cleanUps: (() => Promise<unknown> | unknown)[];
  bastion(options?: SshdOptions): Promise<Sshd>;
  /** The command line of a connect, without any question for a PIN. */
  words(bastion: Sshd, more: readonly string[], destination?: string): string[];
  start(bastion: Sshd, ...more: string[]): CliProcess;
  /** A command in a session of the bastion's user. */
  onBastion(bastion: Sshd, command: string): { status: number | null; stdout: string };
  /** Whatever carries our mark by name or as target of a link, or is the user's below the runtime directory. */
  left(bastion: Sshd): string[];
}

/** Registers the hooks of a test file; the answer holds from its first test on. */
export function connectScene(): ConnectScene {
  let token: SoftHsm;
  let dir = "";
  let mark = "";
  let env: NodeJS.ProcessEnv = {};
  const cleanUps: ConnectScene["cleanUps"] = [];

  beforeAll(async () => {
    token = await createSoftHsm({ objects: "rsa", certificates: false });
  }, 60_000);
  afterAll(() => token?.dispose());
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "tfwd-scene-"));
    const made = dir;
    cleanUps.push(() => rmSync(made, { recursive: true, force: true }));
    mark = randomBytes(4).toString("hex");
    mkdirSync(join(dir, "state", "tokenfwd"), { recursive: true, mode: 0o700 });
    writeFileSync(join(dir, "state", "tokenfwd", "workstation-id"), `${mark}\n`, { mode: 0o600 });
    env = { ...token.env, XDG_STATE_HOME: join(dir, "state") };
  });
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
  });

  const scene: ConnectScene = {
    get token() {
      return token;
    },
    get dir() {
      return dir;
    },
    get mark() {
      return mark;
    },
    get env() {
      return env;
    },
    cleanUps,
    async bastion(options) {
      const started = await startSshd(options);
      cleanUps.push(() => started.dispose());
      return started;
    },
    words: (bastion, more, destination = "bastion") => [
      "connect",
      destination,
      "-F",
      bastion.sshConfig,
      "--module",
      token.modulePath,
      "--unlock",
      "later",
      ...more,
    ],
    start(bastion, ...more) {
      const cli = startCli(scene.words(bastion, more), { env });
      cleanUps.push(() => cli.end());
      return cli;
    },
    onBastion: (bastion, command) => spawnSync("ssh", ["-F", bastion.sshConfig, "bastion", command], { encoding: "utf8" }),
    left(bastion) {
      const below = `find ${bastion.runtimeDir} -mindepth 1 -user "$(id -u)" -print`;
      const marked = `find /tmp /run/user -xdev -user "$(id -u)" '(' -name '*${mark}*' -o -lname '*${mark}*' ')' -print 2>/dev/null`;
      const found = scene.onBastion(bastion, `${below}; ${marked}; true`);
      if (found.status !== 0) throw new Error("nobody could look");
      return [...new Set(found.stdout.split("\n"))].filter((line) => line !== "" && !line.startsWith(dir));
    },
  };
  return scene;
}
