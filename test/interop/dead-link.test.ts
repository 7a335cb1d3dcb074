/*
 * A link that goes dead without a FIN and comes back while a second connect of the same workstation is up: what the first
 * one's sshd does when it learns at last that nobody is there must take nothing of the second's.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { createNamespaces, namespacesMissing } from "../support/namespaces.js";
import { createSoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";
import { P11KIT_CLIENT } from "./agent-process.js";
import { type CliProcess, startCli } from "./cli-process.js";

const PIN = "canary-173205";
const missing = namespacesMissing();

/** Whether a process lives; a zombie does not. */
function alive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
}

/** No event tells that a process which is not our child has ended, so /proc is looked at. */
async function untilGone(pid: number, timeoutMs: number): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (alive(pid)) {
    if (Date.now() > end) throw new Error(`process ${pid} is still there after ${timeoutMs} ms`);
    await delay(50);
  }
}

/** What a socket does with a p11-kit version byte within a second. */
function versionByte(path: string): Promise<"answered" | "silent" | "refused"> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const finish = (result: "answered" | "silent" | "refused") => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    const timer = setTimeout(() => finish("silent"), 1_000);
    socket.on("connect", () => socket.write(Buffer.from([0])));
    socket.on("data", () => finish("answered"));
    socket.on("error", () => finish("refused"));
    socket.on("close", () => finish("refused"));
  });
}

test.skipIf(missing !== null)(
  `a connect that died on a dead link takes nothing from the one that replaced it${missing === null ? "" : ` (skipped: ${missing})`}`,
  async () => {
    using network = createNamespaces();
    const [first, second] = network.links;
    const addresses = [first.bastionAddress, second.bastionAddress];
    await using token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
    const dir = mkdtempSync(join(tmpdir(), "tfwd-link-"));
    // The old sshd asks every second and gives up only after an hour: it learns from the link, and not before it is back.
    const config = ["ClientAliveInterval 1", "ClientAliveCountMax 3600"];
    const bastion = await startSshd({ within: network.onBastion, addresses, config });
    const running: CliProcess[] = [];
    try {
      writeFileSync(join(dir, "pin"), `${PIN}\n`, { mode: 0o600 });
      writeFileSync(join(dir, "data"), "signed after all");
      mkdirSync(join(dir, "state"));
      const env = { ...token.env, XDG_STATE_HOME: join(dir, "state") };
      const connectOver = (host: string): CliProcess => {
        const words = ["--module", token.modulePath, "--pin-source", `file:${join(dir, "pin")}`, "--json"];
        const cli = startCli(["connect", host, "-F", bastion.sshConfig, ...words], { env, within: network.onWorkstation });
        running.push(cli);
        return cli;
      };
      const wellKnown = join(bastion.runtimeDir, "p11-kit", "pkcs11");
      const owner = () => readFileSync(join(bastion.runtimeDir, "tokenfwd", place, "owner"), "utf8").trim().split(" ");

      const a = connectOver("bastion");
      const readyA = await a.untilEvent("ready");
      const socket = String(readyA["remoteSocket"]);
      const place = socket.split("/").at(-2) ?? "";
      const ownerOfA = owner();
      const helperOfA = Number(ownerOfA[1]);
      const sshdOfA = parentOf(helperOfA);
      expect(readFileSync(`/proc/${sshdOfA}/cmdline`, "utf8")).toContain("sshd");
      expect(await versionByte(socket)).toBe("answered");

      first.down();
      a.child.kill("SIGKILL");
      await a.exited;
      expect(await versionByte(socket)).toBe("silent");
      expect(alive(helperOfA)).toBe(true);

      const b = connectOver("bastion-2");
      const readyB = await b.untilEvent("ready");
      expect(readyB).toMatchObject({ host: second.bastionAddress, remoteSocket: socket, verified: "rpc", wellKnown: "ours" });
      const ownerOfB = owner();
      expect(ownerOfB[0]).not.toBe(ownerOfA[0]);
      // The old session has noticed nothing so far, or this test would show nothing.
      expect(alive(helperOfA)).toBe(true);
      expect(alive(sshdOfA)).toBe(true);

      first.up();
      await untilGone(helperOfA, 40_000);
      await untilGone(sshdOfA, 5_000);

      expect(owner()).toEqual(ownerOfB);
      expect(alive(Number(ownerOfB[1]))).toBe(true);
      expect(readlinkSync(wellKnown)).toBe(socket);
      expect(await versionByte(wellKnown)).toBe("answered");
      const sign = `pkcs11-tool --module ${P11KIT_CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01`;
      const words = ["-F", bastion.sshConfig, "bastion-2", `${sign} -i ${join(dir, "data")} -o ${join(dir, "signature")}`];
      const [program = "", ...within] = network.onWorkstation;
      const signed = spawnSync(program, [...within, "ssh", ...words], { encoding: "utf8" });
      expect(signed, signed.stderr).toMatchObject({ status: 0 });
      const verify = ["dgst", "-sha256", "-verify", token.keys.rsa?.publicKeyFile ?? "", "-signature", join(dir, "signature")];
      expect(execFileSync("openssl", [...verify, join(dir, "data")], { encoding: "utf8" })).toContain("Verified OK");
      expect(b.events().map((one) => one.event)).not.toContain("lost");

      b.child.kill("SIGINT");
      expect((await b.exited).code).toBe(0);
      expect(readdirSync(bastion.runtimeDir, { recursive: true })).toEqual([]);
    } finally {
      for (const one of running) await one.end();
      await bastion.dispose();
      rmSync(dir, { recursive: true, force: true });
    }
  },
);
