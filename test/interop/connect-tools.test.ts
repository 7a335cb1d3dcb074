/* `connect --tools` as a person runs it: tokenfwd keys and sign on the bastion, with nothing installed there and nothing left. */
import { execFileSync } from "node:child_process";
import { verify } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { runCli } from "./cli-process.js";
import { connectScene } from "./connect-scene.js";

const BUNDLE = fileURLToPath(new URL("../../dist/tokenfwd-bastion.cjs", import.meta.url));
const scene = connectScene();

/** Options that answer for the PIN. */
function pinFile(): string[] {
  const path = join(scene.dir, "pin");
  writeFileSync(path, `${scene.token.pin}\n`, { mode: 0o600 });
  return ["--pin-source", `file:${path}`];
}

const DOCUMENT = Buffer.from(Array.from({ length: 50_000 }, (_, index) => (index * 11) % 256));

describe("with --tools the bastion has tokenfwd", () => {
  test.each<[string, readonly string[]]>([
    ["by default", []],
    ["with one session and no terminal", ["MaxSessions 1", "PermitTTY no"]],
    ["where sshd opens no socket", ["AllowStreamLocalForwarding remote"]],
  ])("which lists keys and signs, bytes exact both ways, %s", async (_name, config) => {
    const bastion = await scene.bastion({ config });
    const listed = await runCli(scene.words(bastion, [...pinFile(), "--tools", "--", "tokenfwd", "keys", "--json"]), { env: scene.env });
    expect(listed).toMatchObject({ code: 0 });
    const { keys } = JSON.parse(listed.stdout.toString()) as { keys: { uri: string; label: string; spki: string }[] };
    const key = keys.find((one) => one.label === scene.token.keys.rsa?.label);
    expect(key?.spki).toMatch(/^[0-9a-f]{64}$/);

    for (const name of [
      ["--key", key?.uri ?? ""],
      ["--spki", key?.spki ?? ""],
    ]) {
      const words = scene.words(bastion, [...pinFile(), "--tools", "--", "tokenfwd", "sign", ...name]);
      const signed = await runCli(words, { env: scene.env, input: DOCUMENT });
      expect(signed).toMatchObject({ code: 0 });
      const publicKey = readFileSync(scene.token.keys.rsa?.publicKeyFile ?? "");
      expect(verify("sha256", DOCUMENT, publicKey, signed.stdout)).toBe(true);
    }
    expect(scene.left(bastion)).toEqual([]);
  });

  test("which is said in the events and, to a person, as a line to type", async () => {
    const bastion = await scene.bastion();
    const json = scene.start(bastion, "--json", "--tools");
    const ready = await json.untilEvent("ready");
    const directory = join(dirname(String(ready["remoteSocket"])), "bin");
    expect(ready["tools"]).toBe(directory);
    expect(json.events().find((one) => one.event === "tools")).toMatchObject({
      path: join(directory, "tokenfwd"),
      nodeVersion: expect.stringMatching(/^v\d/),
      bytes: statSync(BUNDLE).size,
    });
    await json.end();

    const text = scene.start(bastion, "--tools");
    await text.untilStderr(/until this command ends/);
    const [, line = ""] = /type first: (export PATH=.*)/.exec(text.stderr()) ?? [];
    const found = scene.onBastion(bastion, `${line}; command -v tokenfwd && tokenfwd keys --json`);
    expect(found.stdout.split("\n")[0]).toBe(join(directory, "tokenfwd"));
    expect(JSON.parse(found.stdout.slice(found.stdout.indexOf("\n")))).toMatchObject({ v: 1 });
    await text.end();
    expect(scene.left(bastion)).toEqual([]);
  });

  test("and otherwise it has not", async () => {
    const bastion = await scene.bastion({ setEnv: { PATH: "/usr/bin:/bin" } });
    const ended = await runCli(scene.words(bastion, ["--", "sh", "-c", "command -v tokenfwd || echo none"]), { env: scene.env });
    expect(ended.stdout.toString()).toBe("none\n");
    const json = scene.start(bastion, "--json");
    expect((await json.untilEvent("ready"))["tools"]).toBe(null);
  });
});

describe("every ending takes the tools away", () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s while they are sent, and after ready", async (signal) => {
    const bastion = await scene.bastion();
    const early = scene.start(bastion, "--json", "--tools");
    await early.untilEvent("verify");
    early.child.kill(signal);
    const ready = () => early.events().some((one) => one.event === "ready");
    expect((await early.exited).code).toBe(ready() ? 0 : 130);
    expect(scene.left(bastion)).toEqual([]);

    const late = scene.start(bastion, "--json", "--tools");
    await late.untilEvent("ready");
    late.child.kill(signal);
    expect((await late.exited).code).toBe(0);
    expect(scene.left(bastion)).toEqual([]);
  });

  test("SIGTERM while CMD runs them, and kill -9 of connect", async () => {
    const bastion = await scene.bastion();
    const running = scene.start(bastion, "--tools", "--", "sh", "-c", "command -v tokenfwd; exec sleep 60");
    await running.until(() => (running.stdout().length > 0 ? true : undefined));
    running.child.kill("SIGTERM");
    expect((await running.exited).code).toBe(143);
    expect(scene.left(bastion)).toEqual([]);

    const killed = scene.start(bastion, "--json", "--tools");
    await killed.untilEvent("ready");
    killed.child.kill("SIGKILL");
    await killed.exited;
    await expect.poll(() => scene.left(bastion), { timeout: 10_000 }).toEqual([]);
  });

  test("a bastion without a Node that is new enough is told so before CMD starts: 255, and nothing is left", async () => {
    const bin = join(scene.dir, "bin");
    execFileSync("mkdir", [bin]);
    for (const name of ["node", "nodejs"]) writeFileSync(join(bin, name), "#!/bin/sh\necho v16.20.2\n", { mode: 0o755 });
    for (const name of ["sh", "sed", "touch", "id"])
      execFileSync("ln", ["-s", execFileSync("which", [name], { encoding: "utf8" }).trim(), bin]);
    const bastion = await scene.bastion({ setEnv: { PATH: bin } });
    const witness = join(scene.dir, "witness");
    const ended = await runCli(scene.words(bastion, ["--tools", "--", "touch", witness]), { env: scene.env });
    expect(ended.code).toBe(255);
    expect(ended.stderr).toMatch(/E_TOOLS 12/);
    expect(ended.stderr).toContain(`${bin}/node is v16.20.2`);
    expect(ended.stderr).toMatch(/hint: install Node 20 or newer/);
    expect(() => statSync(witness)).toThrow();
    const next = await scene.bastion();
    expect(scene.left({ ...next, runtimeDir: bastion.runtimeDir })).toEqual([]);
  });
});
