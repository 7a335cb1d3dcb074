/*
 * A connect that is ended while somebody is asked, or while a module does not answer: by each signal and by kill -9. Nothing stays on the
 * bastion, no process stays here, and the terminal is put back by whoever outlives the signal.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { childrenOf } from "../support/processes.js";
import { spawnUnderPty } from "../support/pty.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import type { Sshd } from "../support/sshd.js";
import { TOKENFWD } from "./cli-process.js";
import { connectScene } from "./connect-scene.js";

const scene = connectScene();
let two: SoftHsm;
let shim: ShimModule;
let keys: string;
beforeAll(async () => {
  two = await createSoftHsm({ objects: "rsa+ec", label: "two keys" });
  shim = await createShimModule(two.modulePath);
  keys = mkdtempSync(join(tmpdir(), "tfwd-stages-"));
}, 60_000);
afterAll(async () => {
  rmSync(keys, { recursive: true, force: true });
  await shim?.dispose();
  await two?.dispose();
});

interface Stage {
  readonly words?: () => readonly string[];
  /** What the terminal shows when it has come so far; null: the module is there. */
  readonly seen: RegExp | null;
  readonly rules?: readonly string[];
  readonly lockedKey?: true;
}

const KEY = ["--key", "pkcs11:id=%01;type=private"];
const STAGES: Readonly<Record<string, Stage>> = {
  "the host key is asked about": {
    words: () => ["--ssh-option", `UserKnownHostsFile=${join(keys, "none")}`, "--ssh-option", "StrictHostKeyChecking=ask"],
    seen: /Trust it and remember it/,
  },
  "a passphrase is asked for": { lockedKey: true, seen: /passphrase for/ },
  "the key is chosen": { seen: /number of the key to use/ },
  "the PIN is asked for": { words: () => [...KEY, "--unlock", "now"], seen: /asks for the PIN/ },
  "the module hangs while it starts": { words: () => KEY, seen: null, rules: ["load hang"] },
};

/** The bastion's client configuration, with its key behind a passphrase. */
function withLockedKey(bastion: Sshd): string {
  const key = join(scene.dir, "locked");
  copyFileSync(bastion.identityFile, key);
  execFileSync("ssh-keygen", ["-q", "-p", "-P", "", "-N", "open sesame", "-f", key]);
  const config = join(scene.dir, "ssh_config");
  writeFileSync(config, readFileSync(bastion.sshConfig, "utf8").replaceAll(bastion.identityFile, key));
  return config;
}

/** The children of a process that have loaded the shim. */
const holders = (pid: number): number[] =>
  childrenOf(pid).filter((one) => {
    try {
      return readFileSync(`/proc/${one}/maps`, "utf8").includes(shim.modulePath);
    } catch {
      return false; // ended meanwhile
    }
  });

describe.each(Object.entries(STAGES))("while %s", (_name, { words = () => [], seen, rules = [], lockedKey }) => {
  // A process in which a module hangs cannot notice that its parent was killed (docs/operations.md).
  const signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", ...(seen === null ? [] : (["SIGKILL"] as const))];
  test.each(signals)(
    "%s",
    async (signal) => {
      await shim.control(...rules);
      const bastion = await scene.bastion();
      const pidFile = join(scene.dir, "pid");
      const common = ["connect", "bastion", "-F", lockedKey ? withLockedKey(bastion) : bastion.sshConfig, "--module", shim.modulePath];
      const start = ["/bin/sh", "-c", 'echo "$$" >"$0"; exec "$@"', pidFile, process.execPath, TOKENFWD, ...common, ...words()];
      const env = { ...scene.env, ...two.env, ...shim.env, TERM: "xterm" };
      await using terminal = spawnUnderPty({ argv: start, env, columns: 200 });
      if (seen === null) await expect.poll(() => /Starting session/.test(bastion.log()), { timeout: 10_000 }).toBe(true);
      else await terminal.expect(seen);
      const pid = Number(readFileSync(pidFile, "utf8"));
      if (seen === null) await expect.poll(() => holders(pid).length, { timeout: 15_000 }).toBe(1);
      const ours = [pid, ...childrenOf(pid)];
      process.kill(pid, signal);
      const result = await terminal.exited;
      if (signal !== "SIGKILL") expect(result).toMatchObject({ exitCode: 130, echo: true, lineEditing: true });
      await expect.poll(() => scene.left(bastion), { timeout: 10_000 }).toEqual([]);
      await expect.poll(() => ours.filter((one) => existsSync(`/proc/${one}`)), { timeout: 10_000 }).toEqual([]);
    },
    40_000,
  );
});
