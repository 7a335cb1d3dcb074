/*
 * In `ask` mode the process that parses bytes from clients never holds the PIN, and forgets what a client sent for one. The
 * process that talks to the module holds it, which also shows that the search finds what is there.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { type CliProcess, startCli } from "./cli-process.js";
import { childrenOf, countInMemory } from "./process-memory.js";
import { runProgram } from "./programs.js";

// Never whole in this source, so that a process that had read it would not be taken for one that knows the PIN.
const pin = ["canary", "7f3a91c2"].join("-");
const sent = ["typed", "on", "bastion", "5d0e88"].join("-");

describe.each([
  ["an agent that asks for the PIN", false],
  ["one that writes a trace as well", true],
])("%s", (_name, traced) => {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-mem-"));
  let token: SoftHsm;
  let agent: CliProcess;

  beforeAll(async () => {
    token = await createSoftHsm({ pin, objects: "rsa" });
    writeFileSync(join(dir, "pin"), pin, { mode: 0o600 });
    const script = `#!/bin/sh\necho OK\nwhile read -r word rest; do case "$word" in\nGETPIN) printf 'D %s\\nOK\\n' "$(cat '${dir}/pin')" ;;\nBYE) echo OK; exit 0 ;;\n*) echo OK ;;\nesac; done\n`;
    writeFileSync(join(dir, "pinentry"), script, { mode: 0o700 });
    const words = ["agent", "run", "--module", token.modulePath, "--socket", join(dir, "s"), "--key", "all", "--pin-source", "ask"];
    if (traced) words.push("--trace", join(dir, "trace"));
    agent = startCli(words, { env: { ...token.env, TOKENFWD_PINENTRY: join(dir, "pinentry"), TOKENFWD_LOG: join(dir, "log") } });
    await agent.untilStderr(/listening on/);
  });
  afterAll(async () => {
    await agent?.end();
    await token?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  it("has neither the PIN nor what a client sent for one in its memory, output, log, arguments or environment", async () => {
    const argv = ["pkcs11-tool", "--module", P11KIT_CLIENT, "--sign", "-m", "SHA256-RSA-PKCS", "--id", "01", "--pin", sent];
    for (let round = 0; round < 3; round++) {
      const done = await runProgram(
        { argv, input: Buffer.from("x") },
        { ...process.env, P11_KIT_SERVER_ADDRESS: `unix:path=${join(dir, "s")}` },
      );
      expect(`${done.stderr} exit ${done.code}`).toMatch(/ exit 0$/);
    }
    if (traced) {
      // The thread that decodes has been given all of it, and has written it down.
      const closes = () => readFileSync(join(dir, "trace"), "utf8").match(/"kind":"close"/g)?.length;
      await vi.waitFor(() => expect(closes()).toBe(3), { timeout: 10_000 });
    }
    const [host] = childrenOf(agent.pid);
    // The search works: the module's process keeps the PIN until it is locked.
    expect(countInMemory(host ?? -1, Buffer.from(pin))).toBeGreaterThan(0);
    expect({
      pinInAgent: countInMemory(agent.pid, Buffer.from(pin)),
      sentInAgent: countInMemory(agent.pid, Buffer.from(sent)),
      sentInHost: countInMemory(host ?? -1, Buffer.from(sent)),
    }).toEqual({ pinInAgent: 0, sentInAgent: 0, sentInHost: 0 });
    const texts = [`${agent.stdout()}${agent.stderr()}`, readFileSync(join(dir, "log"), "utf8")];
    if (traced) texts.push(readFileSync(join(dir, "trace"), "utf8"));
    for (const pid of [agent.pid, host ?? -1])
      for (const name of ["cmdline", "environ"]) texts.push(readFileSync(`/proc/${pid}/${name}`, "utf8"));
    for (const text of texts) expect([text.includes(pin), text.includes(sent)]).toEqual([false, false]);
  });
});
