/*
 * A token at one end of a link with an exact round-trip time and a bastion at the other: `tokenfwd connect` between them, and
 * beside it, on demand, what a person does without us: `p11-kit server` and `ssh -R`. Programs are started at the bastion's
 * end. Every process is undone through the clean-ups of whoever opened the scene.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { P11KIT_CLIENT, startStockServer } from "../interop/agent-process.js";
import { startCli } from "../interop/cli-process.js";
import { createDelayedLink, type DelayedLink } from "../support/link-delay.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type Sshd, startSshd } from "../support/sshd.js";
import type { CleanUps } from "./clean-ups.js";
import { startSshForward } from "./ssh-forward.js";

const BUNDLE = fileURLToPath(new URL("../../dist/tokenfwd-bastion.cjs", import.meta.url));

export interface ProgramRun {
  readonly ms: number;
  readonly stdout: Buffer;
  /** How often the direction of data on the link turned while it ran. */
  readonly flights: number;
}

export interface LinkScene {
  readonly link: DelayedLink;
  readonly token: SoftHsm;
  readonly bastion: Sshd;
  /** A directory of the scene's own. */
  readonly dir: string;
  /** The forwarded socket on the bastion, and the same as P11_KIT_SERVER_ADDRESS. */
  readonly socket: string;
  readonly address: string;
  /** Runs a program at the bastion's end, from its start to its end. Rejects when it fails. */
  run(words: readonly string[], options?: { env?: NodeJS.ProcessEnv; input?: Buffer }): Promise<ProgramRun>;
  /** Our bundle there, with TOKENFWD_SOCKET set. */
  tokenfwd(words: readonly string[], input?: Buffer): Promise<ProgramRun>;
  /** `pkcs11-tool --sign` there with the P-256 key, through the server at this address. */
  pkcs11Tool(address: string): Promise<ProgramRun>;
  /** Starts `p11-kit server` and `ssh -R` on the workstation and answers the address on the bastion. */
  stockForward(): Promise<string>;
}

/** What is in a person's environment on the bastion. The token's own settings are not. */
function bastionEnv(bastion: Sshd, more: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"], HOME: process.env["HOME"], XDG_RUNTIME_DIR: bastion.runtimeDir, ...more };
}

/** Opens it without a delay: the delay is the caller's to set, so that starting does not take long. */
export async function openLinkScene(cleanUps: CleanUps): Promise<LinkScene> {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-over-link-"));
  cleanUps.add(() => rmSync(dir, { recursive: true, force: true }));
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  const link = await createDelayedLink();
  cleanUps.add(() => link.dispose());
  const bastion = await startSshd({ within: link.onBastion, addresses: [link.bastionAddress] });
  cleanUps.add(() => bastion.dispose());
  writeFileSync(join(dir, "pin"), `${token.pin}\n`, { mode: 0o600 });
  writeFileSync(join(dir, "digest"), Buffer.alloc(32, 0x5a));
  const words = ["--module", token.modulePath, "--key", "all", "--pin-source", `file:${join(dir, "pin")}`, "--unlock", "now", "--json"];
  const env = { ...token.env, XDG_STATE_HOME: join(dir, "state") };
  const connect = startCli(["connect", "bastion", "-F", bastion.sshConfig, ...words], { env, within: link.onWorkstation });
  cleanUps.add(() => connect.end());
  const ready = await connect.untilEvent("ready");
  const socket = String(ready["remoteSocket"]);

  const run: LinkScene["run"] = async (program, options = {}) => {
    const [file = "", ...args] = [...link.onBastion, ...program];
    await link.count();
    const started = process.hrtime.bigint();
    const child = spawn(file, args, { env: bastionEnv(bastion, options.env ?? {}), stdio: ["pipe", "pipe", "pipe"] });
    const out: Buffer[] = [];
    let complaint = "";
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      complaint += text;
    });
    // A program that does not read its input may have ended.
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    const ms = Number(process.hrtime.bigint() - started) / 1e6;
    const { flights } = await link.count();
    if (code !== 0) throw new Error(`${program.slice(0, 3).join(" ")} ended with ${code}: ${complaint}`);
    return { ms, stdout: Buffer.concat(out), flights };
  };

  return {
    link,
    token,
    bastion,
    dir,
    socket,
    address: String(ready["address"]),
    run,
    tokenfwd: (more, input) =>
      run([process.execPath, BUNDLE, ...more], { env: { TOKENFWD_SOCKET: socket }, ...(input === undefined ? {} : { input }) }),
    pkcs11Tool: (address) => {
      const sign = ["--login", "--pin", token.pin, "--sign", "-m", "ECDSA", "--id", "02"];
      const files = ["-i", join(dir, "digest"), "-o", join(dir, "signature")];
      return run(["pkcs11-tool", "--module", P11KIT_CLIENT, ...sign, ...files], { env: { P11_KIT_SERVER_ADDRESS: address } });
    },
    async stockForward() {
      const server = await startStockServer(token);
      cleanUps.add(() => server.dispose());
      const remote = join(dir, "stock.sock");
      const where = { sshConfig: bastion.sshConfig, local: server.socket, remote, within: link.onWorkstation };
      await startSshForward({ ...where, session: "none" }, cleanUps);
      return `unix:path=${remote}`;
    },
  };
}

/** Whether the bundle is built: `npm run build` makes it. */
export function bundleBuilt(): boolean {
  return spawnSync(process.execPath, [BUNDLE, "--version"], { stdio: "ignore" }).status === 0;
}
