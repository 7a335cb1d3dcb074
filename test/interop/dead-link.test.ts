/*
 * A link that goes dead without a FIN and comes back while a second connect of the same workstation is up: what the first
 * one's sshd does when it learns at last that nobody is there must take nothing of the second's.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { createNamespaces, namespacesMissing } from "../support/namespaces.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
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

/** A bastion at the far end of two links, a token, and connects of one workstation. */
class Scene implements AsyncDisposable {
  readonly network = createNamespaces();
  readonly dir = mkdtempSync(join(tmpdir(), "tfwd-link-"));
  readonly #running: CliProcess[] = [];
  #token: SoftHsm | null = null;
  #bastion: Sshd | null = null;

  static async open(): Promise<Scene> {
    const scene = new Scene();
    try {
      scene.#token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
      const addresses = scene.network.links.map((link) => link.bastionAddress);
      // sshd asks every second and gives up only after an hour: it learns from the link, and not before it is back.
      const config = ["ClientAliveInterval 1", "ClientAliveCountMax 3600"];
      scene.#bastion = await startSshd({ within: scene.network.onBastion, addresses, config });
      writeFileSync(join(scene.dir, "pin"), `${PIN}\n`, { mode: 0o600 });
      return scene;
    } catch (error) {
      await scene[Symbol.asyncDispose]();
      throw error;
    }
  }

  get token(): SoftHsm {
    if (this.#token === null) throw new Error("not open");
    return this.#token;
  }

  get bastion(): Sshd {
    if (this.#bastion === null) throw new Error("not open");
    return this.#bastion;
  }

  /** `bastion` goes over the first link, `bastion-2` over the second. */
  connect(host: "bastion" | "bastion-2"): CliProcess {
    const words = ["--module", this.token.modulePath, "--pin-source", `file:${join(this.dir, "pin")}`, "--json"];
    const env = { ...this.token.env, XDG_STATE_HOME: join(this.dir, "state") };
    const cli = startCli(["connect", host, "-F", this.bastion.sshConfig, ...words], { env, within: this.network.onWorkstation });
    this.#running.push(cli);
    return cli;
  }

  /** The connectId that owns the directory of this socket, and the pid of its helper on the bastion. */
  owner(socket: string): { connectId: string; helper: number } {
    const [connectId = "", helper = ""] = readFileSync(join(dirname(socket), "owner"), "utf8")
      .trim()
      .split(" ");
    return { connectId, helper: Number(helper) };
  }

  get wellKnown(): string {
    return join(this.bastion.runtimeDir, "p11-kit", "pkcs11");
  }

  /** A stock program on the bastion signs, reached over the second link, and the signature is good. */
  expectSignature(): void {
    const data = join(this.dir, "data");
    const signature = join(this.dir, "signature");
    rmSync(signature, { force: true });
    writeFileSync(data, "signed after all");
    const sign = `pkcs11-tool --module ${P11KIT_CLIENT} --login --pin 0000 --sign -m SHA256-RSA-PKCS --id 01 -i ${data} -o ${signature}`;
    const [program = "", ...within] = this.network.onWorkstation;
    const signed = spawnSync(program, [...within, "ssh", "-F", this.bastion.sshConfig, "bastion-2", sign], { encoding: "utf8" });
    expect(signed, signed.stderr).toMatchObject({ status: 0 });
    const verify = ["dgst", "-sha256", "-verify", this.token.keys.rsa?.publicKeyFile ?? "", "-signature", signature, data];
    expect(execFileSync("openssl", verify, { encoding: "utf8" })).toContain("Verified OK");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of this.#running) await one.end();
    await this.#bastion?.dispose();
    await this.#token?.dispose();
    this.network.dispose();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

const skipped = missing === null ? "" : ` (skipped: ${missing})`;

test.skipIf(missing !== null)(`a connect that died on a dead link takes nothing from the one that replaced it${skipped}`, async () => {
  await using scene = await Scene.open();
  const [first, second] = scene.network.links;
  const a = scene.connect("bastion");
  const socket = String((await a.untilEvent("ready"))["remoteSocket"]);
  const ownerOfA = scene.owner(socket);
  const sshdOfA = parentOf(ownerOfA.helper);
  expect(readFileSync(`/proc/${sshdOfA}/cmdline`, "utf8")).toContain("sshd");
  expect(await versionByte(socket)).toBe("answered");

  first.down();
  a.child.kill("SIGKILL");
  await a.exited;
  expect(await versionByte(socket)).toBe("silent");
  expect(alive(ownerOfA.helper)).toBe(true);

  const b = scene.connect("bastion-2");
  const ready = await b.untilEvent("ready");
  expect(ready).toMatchObject({ host: second.bastionAddress, remoteSocket: socket, verified: "rpc", wellKnown: "ours" });
  const ownerOfB = scene.owner(socket);
  expect(ownerOfB.connectId).not.toBe(ownerOfA.connectId);
  // The old session has noticed nothing so far, or this test would show nothing.
  expect([alive(ownerOfA.helper), alive(sshdOfA)]).toEqual([true, true]);

  first.up();
  await untilGone(ownerOfA.helper, 40_000);
  await untilGone(sshdOfA, 5_000);

  expect(scene.owner(socket)).toEqual(ownerOfB);
  expect(alive(ownerOfB.helper)).toBe(true);
  expect(readlinkSync(scene.wellKnown)).toBe(socket);
  expect(await versionByte(scene.wellKnown)).toBe("answered");
  scene.expectSignature();
  expect(b.events().map((one) => one.event)).not.toContain("lost");

  b.child.kill("SIGINT");
  expect((await b.exited).code).toBe(0);
  expect(readdirSync(scene.bastion.runtimeDir, { recursive: true })).toEqual([]);
});

test.skipIf(missing !== null)(`a connect that outlived a dead link ends without taking what another has replaced${skipped}`, async () => {
  await using scene = await Scene.open();
  const [first] = scene.network.links;
  const a = scene.connect("bastion");
  const socket = String((await a.untilEvent("ready"))["remoteSocket"]);
  const ownerOfA = scene.owner(socket);

  first.down();
  const b = scene.connect("bastion-2");
  expect(await b.untilEvent("ready")).toMatchObject({ remoteSocket: socket, verified: "rpc" });
  const ownerOfB = scene.owner(socket);
  expect(ownerOfB.connectId).not.toBe(ownerOfA.connectId);

  // It is back before A's keepalives gave up, so A cleans up by itself, with a bastion that hears it.
  first.up();
  a.child.kill("SIGINT");
  expect((await a.exited).code).toBe(0);
  await untilGone(ownerOfA.helper, 40_000);

  expect(scene.owner(socket)).toEqual(ownerOfB);
  expect(readlinkSync(scene.wellKnown)).toBe(socket);
  scene.expectSignature();
  b.child.kill("SIGINT");
  expect((await b.exited).code).toBe(0);
  expect(readdirSync(scene.bastion.runtimeDir, { recursive: true })).toEqual([]);
});
