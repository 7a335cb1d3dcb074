/*
 * A link that goes dead without a FIN, and nobody ends the connect: it notices by its own keepalive (15 s, three times),
 * says so, and ends; and what it left on the bastion goes once the bastion's sshd learns that it has gone.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { type CliProcess, startCli } from "../interop/cli-process.js";
import { createNamespaces, namespacesMissing } from "../support/namespaces.js";
import { createSoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";

const missing = namespacesMissing();

test.skipIf(missing !== null)(
  `a connect whose link goes dead says lost and ends with 10, with CMD 255, within 70 seconds${missing === null ? "" : ` (skipped: ${missing})`}`,
  async () => {
    using network = createNamespaces();
    const [link] = network.links;
    await using token = await createSoftHsm({ objects: "rsa", certificates: false });
    const dir = mkdtempSync(join(tmpdir(), "tfwd-link-"));
    const config = ["ClientAliveInterval 1", "ClientAliveCountMax 3600"];
    const bastion = await startSshd({ within: network.onBastion, addresses: [link.bastionAddress], config });
    const running: CliProcess[] = [];
    try {
      const start = (...more: string[]): CliProcess => {
        const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--json", "--unlock", "later", ...more];
        const env = { ...token.env, XDG_STATE_HOME: join(dir, "state") };
        const cli = startCli(words, { env, within: network.onWorkstation, stdin: "pipe" });
        running.push(cli);
        return cli;
      };
      const plain = start();
      await plain.untilEvent("ready");
      // It ends by itself with its stdin, for sshd kills no command that has no terminal.
      const withCommand = start("--", "sh", "-c", "echo up; exec cat");
      await withCommand.until(() => (withCommand.stdout().includes("up") ? true : undefined));

      const cut = performance.now();
      link.down();
      const ended = await plain.exited;
      const seconds = (performance.now() - cut) / 1000;
      // Up to 15 s until the next keepalive is due, three that are not answered, and 3 s in which we try to clean up.
      expect(seconds).toBeGreaterThan(30);
      expect(seconds).toBeLessThan(70);
      expect(ended).toMatchObject({ code: 10, signal: null });
      const names = plain.events().map((one) => one.event);
      expect(names.filter((name) => ["lost", "error", "closing", "closed"].includes(name))).toEqual(["lost", "error", "closing", "closed"]);
      expect(plain.events().find((one) => one.event === "error")).toMatchObject({ code: "E_SSH_LOST", exitCode: 10 });
      expect(plain.events().at(-1)).toMatchObject({ event: "closed", exitCode: 10 });
      const other = await withCommand.exited;
      expect(other.code).toBe(255);
      expect(withCommand.events().map((one) => one.event)).toContain("lost");

      link.up();
      const end = Date.now() + 60_000;
      while (readdirSync(bastion.runtimeDir).length > 0) {
        if (Date.now() > end) throw new Error(`left on the bastion: ${readdirSync(bastion.runtimeDir, { recursive: true }).join(" ")}`);
        await delay(100);
      }
    } finally {
      for (const one of running) await one.end();
      await bastion.dispose();
      rmSync(dir, { recursive: true, force: true });
    }
  },
);
