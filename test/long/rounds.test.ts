/*
 * A hundred connects and disconnects in one process, and ten of the whole command: what is left of each on either side is nothing,
 * neither a file, nor a process, nor a descriptor. Prints what it counted.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runCli } from "../interop/cli-process.js";
import { collectedIo, openTestForward, settingsOf } from "../support/forward.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";

const ROUNDS = 100;
const CLI_ROUNDS = 10;
const WARM_UP = 3;
let sshd: Sshd;
let token: SoftHsm;
let dir: string;

beforeAll(async () => {
  [sshd, token] = await Promise.all([startSshd(), createSoftHsm({ objects: "rsa", certificates: false })]);
  dir = mkdtempSync(join(tmpdir(), "tfwd-rounds-"));
  mkdirSync(join(dir, "tmp"));
  vi.stubEnv("TMPDIR", join(dir, "tmp"));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await sshd?.dispose();
  await token?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

const descriptors = (pid: number | "self"): number => readdirSync(`/proc/${pid}/fd`).length;
/** Processes that descend from one. */
function below(pid: number): number[] {
  const parentOf = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      parentOf.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // It ended while we looked.
    }
  }
  const found = [pid];
  for (let i = 0; i < found.length; i++) found.push(...[...parentOf].filter(([, parent]) => parent === found[i]).map(([child]) => child));
  return found.slice(1);
}
/** Waits until a server has no session any more; the test's own time-out is the limit. */
async function untilAlone(): Promise<void> {
  while (below(sshd.pid).length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
}
const filesOnBastion = () => readdirSync(sshd.runtimeDir, { recursive: true });
/** What lies in our own directory for temporary files: other tests have theirs. */
const temporary = () => readdirSync(join(dir, "tmp"));

describe("connects, one after the other", () => {
  it(`leave nothing after ${ROUNDS} rounds in one process: descriptors, files, sessions, listeners`, async () => {
    const settings = await settingsOf(sshd);
    const before = { ours: 0, theirs: 0, children: 0, temporary: temporary() };
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      if (round === 0) {
        await untilAlone();
        Object.assign(before, { ours: descriptors("self"), theirs: descriptors(sshd.pid), children: below(process.pid).length });
      }
      const { forward } = await openTestForward(null, { settings });
      const ran = await forward.run(["true"], collectedIo());
      expect(ran).toEqual({ code: 0, signal: null });
      await forward.close();
      expect(filesOnBastion()).toEqual([]);
    }
    await untilAlone();
    const after = { ours: descriptors("self"), theirs: descriptors(sshd.pid), children: below(process.pid).length, temporary: temporary() };
    console.log(`${ROUNDS} rounds: descriptors here ${before.ours} -> ${after.ours}, of sshd ${before.theirs} -> ${after.theirs}`);
    expect(after).toEqual(before);
  });

  it(`leave nothing after ${CLI_ROUNDS} rounds of the whole command: no process, no file`, async () => {
    const env = { ...token.env, TMPDIR: join(dir, "tmp"), XDG_STATE_HOME: join(dir, "state") };
    const words = ["connect", "bastion", "-F", sshd.sshConfig, "--module", token.modulePath, "--unlock", "later", "--", "true"];
    const before = { theirs: descriptors(sshd.pid), ours: descriptors("self"), temporary: temporary() };
    for (let round = 0; round < CLI_ROUNDS; round++) {
      const ended = await runCli(words, { env });
      expect(ended).toMatchObject({ code: 0 });
      expect(filesOnBastion()).toEqual([]);
    }
    await untilAlone();
    // Our directory is in the environment of whatever the command has started.
    const grep = spawnSync(
      "grep",
      [
        "-lsa",
        `XDG_STATE_HOME=${dir}`,
        ...readdirSync("/proc")
          .filter((name) => /^\d+$/.test(name))
          .map((pid) => `/proc/${pid}/environ`),
      ],
      { encoding: "utf8" },
    );
    expect(grep.stdout).toBe("");
    expect({ theirs: descriptors(sshd.pid), ours: descriptors("self"), temporary: temporary() }).toEqual(before);
    console.log(`${CLI_ROUNDS} rounds of the command: no process left, ${before.theirs} descriptors of sshd before and after`);
  });
});
