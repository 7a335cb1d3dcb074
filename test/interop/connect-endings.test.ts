/* How a connect may end, by whatever signal at whatever step, and what else runs beside it: nothing is left on the bastion. */
import { execFileSync, spawnSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { P11KIT_CLIENT as CLIENT } from "./agent-process.js";
import { runCli, TOKENFWD } from "./cli-process.js";
import { connectScene } from "./connect-scene.js";

const scene = connectScene();

describe("every ending leaves nothing on the bastion", () => {
  test.each(["TERM", "KILL", "HUP"])("a CMD that ends by SIG%s, whose status is 128 and its number", async (signal) => {
    const bastion = await scene.bastion();
    const ended = await runCli(scene.words(bastion, ["--", "sh", "-c", `kill -${signal} $$`]), { env: scene.env });
    expect(ended.code).toBe({ TERM: 143, KILL: 137, HUP: 129 }[signal]);
    expect(scene.left(bastion)).toEqual([]);
  });

  test.each(["connecting", "hostkey", "auth", "probe", "forward", "verify"])("each signal that comes at %s: 130", async (event) => {
    const bastion = await scene.bastion();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      const cli = scene.start(bastion, "--json");
      await cli.untilEvent(event);
      cli.child.kill(signal);
      // At the last steps ready may come first, and then it is 0.
      const ready = () => cli.events().some((one) => one.event === "ready");
      expect((await cli.exited).code).toBe(ready() ? 0 : 130);
      expect(scene.left(bastion)).toEqual([]);
    }
  });

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s after ready: 0", async (signal) => {
    const bastion = await scene.bastion();
    const cli = scene.start(bastion, "--json");
    await cli.untilEvent("ready");
    cli.child.kill(signal);
    expect((await cli.exited).code).toBe(0);
    expect(scene.left(bastion)).toEqual([]);
  });

  test("kill -9 of connect: the trap on the bastion does it", async () => {
    const bastion = await scene.bastion();
    const cli = scene.start(bastion, "--json");
    await cli.untilEvent("ready");
    cli.child.kill("SIGKILL");
    await cli.exited;
    await expect.poll(() => scene.left(bastion), { timeout: 10_000 }).toEqual([]);
  });

  test("two connects of one workstation, at once and one after the other, keep apart", async () => {
    const bastion = await scene.bastion();
    const both = [scene.start(bastion, "--json"), scene.start(bastion, "--json")];
    const sockets = await Promise.all(both.map(async (cli) => String((await cli.untilEvent("ready"))["remoteSocket"])));
    expect([...sockets].sort()).toEqual(
      [`${scene.mark}-2`, scene.mark].map((one) => join(bastion.runtimeDir, "tokenfwd", one, "p11.sock")),
    );
    both[0]?.child.kill("SIGINT");
    await both[0]?.exited;
    const list = scene.onBastion(bastion, `P11_KIT_SERVER_ADDRESS=unix:path=${sockets[1]} pkcs11-tool --module ${CLIENT} -L`);
    expect(list.stdout).toContain(scene.token.label);
    both[1]?.child.kill("SIGINT");
    await both[1]?.exited;
    expect(scene.left(bastion)).toEqual([]);
    const after = scene.start(bastion, "--json");
    expect((await after.untilEvent("ready"))["remoteSocket"]).toBe(join(bastion.runtimeDir, "tokenfwd", scene.mark, "p11.sock"));
    after.child.kill("SIGINT");
    expect((await after.exited).code).toBe(0);
    expect(scene.left(bastion)).toEqual([]);
  });

  test("a CMD whose reader has gone ends by SIGPIPE as it would here, and closed streams are none of its business", async () => {
    const bastion = await scene.bastion();
    const shell = (text: string, ...command: string[]) =>
      spawnSync("bash", ["-c", text, process.execPath, TOKENFWD, ...scene.words(bastion, ["--", ...command])], {
        env: scene.env,
        encoding: "utf8",
      });
    const piped = shell('"$0" "$@" </dev/null | head -n 1; echo "$PIPESTATUS"', "yes");
    expect(piped.stdout).toBe("y\n141\n");
    expect(shell('"$0" "$@" <&-', "sh", "-c", "cat; exit 4").status).toBe(4);
    expect(shell('"$0" "$@" </dev/null >&-', "sh", "-c", "exit 4").status).toBe(4);
    expect(shell('"$0" "$@" </dev/null 2>&-', "sh", "-c", "echo here; exit 4")).toMatchObject({ status: 4, stdout: "here\n" });
    expect(scene.left(bastion)).toEqual([]);
  });
});

test("a live ControlMaster of stock ssh does not stop a connect, and goes on (ADR 3)", async () => {
  const bastion = await scene.bastion();
  const path = join(scene.dir, "master");
  appendFileSync(bastion.sshConfig, `  ControlPath ${path}\n`);
  execFileSync("ssh", ["-F", bastion.sshConfig, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-fN", "bastion"], {
    stdio: "ignore",
  });
  const master = (word: string) => spawnSync("ssh", ["-F", bastion.sshConfig, "-O", word, "bastion"], { encoding: "utf8" });
  scene.cleanUps.push(() => master("exit"));
  const { stderr: before } = master("check");
  expect(before).toMatch(/Master running \(pid=\d+\)/);
  const ended = await runCli(scene.words(bastion, ["--", "sh", "-c", `pkcs11-tool --module ${CLIENT} -L`]), { env: scene.env });
  expect(ended.code).toBe(0);
  expect(ended.stdout.toString()).toContain(scene.token.label);
  expect(master("check").stderr).toBe(before);
  expect(scene.left(bastion)).toEqual([]);
});
