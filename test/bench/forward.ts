/*
 * The bench over the forward, on loopback through a real sshd: the same signatures through `tokenfwd connect`, through `connect
 * --stock`, and through what a person does without us: stock `p11-kit server` behind `ssh -N -R` and behind `ssh -tt -R`.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { P11KIT_CLIENT, startStockServer } from "../interop/agent-process.js";
import { startCli } from "../interop/cli-process.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { startSshd } from "../support/sshd.js";
import { type Algorithm, buildProgram, type Caller, KEY_NAMES, startMany, startModuleCaller, startRpcCaller } from "./callers.js";
import type { CleanUps } from "./clean-ups.js";
import type { PairedOptions } from "./local.js";
import { latencyTarget, type PairedRow, pairedTable, ratioTarget, runPaired, type Target, type Way } from "./paired.js";
import { startSshForward } from "./ssh-forward.js";

/** A forwarded socket and the processes that carry it, on both sides. */
export interface Forwarded {
  readonly socket: string;
  readonly servers: readonly number[];
}

/** By a connect of ours. Each forward has an sshd of its own, so that its processor time can be told from the others'. */
export async function forwardByConnect(token: SoftHsm, more: readonly string[], cleanUps: CleanUps): Promise<Forwarded & { pid: number }> {
  const bastion = await startSshd();
  cleanUps.add(() => bastion.dispose());
  const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--json", ...more];
  const connect = startCli(words, { env: { ...token.env, XDG_STATE_HOME: join(bastion.dir, "state") } });
  cleanUps.add(() => connect.end());
  const ready = await connect.untilEvent("ready");
  return { socket: String(ready["remoteSocket"]), servers: [connect.pid, bastion.pid], pid: connect.pid };
}

/** The words of a connect that has the PIN already, from a file that this writes. */
export function withPin(token: SoftHsm): string[] {
  const file = join(token.dir, "pin");
  writeFileSync(file, `${token.pin}\n`, { mode: 0o600 });
  return ["--key", "all", "--pin-source", `file:${file}`, "--unlock", "now"];
}

async function forwardBySsh(token: SoftHsm, session: "none" | "pty", cleanUps: CleanUps): Promise<Forwarded> {
  const bastion = await startSshd();
  cleanUps.add(() => bastion.dispose());
  const server = await startStockServer(token);
  cleanUps.add(() => server.dispose());
  const remote = join(bastion.runtimeDir, "stock.sock");
  const ssh = await startSshForward({ sshConfig: bastion.sshConfig, local: server.socket, remote, session }, cleanUps);
  return { socket: remote, servers: [server.pid, ssh, bastion.pid] };
}

const PLAIN = "p11-kit server, ssh -N -R";
const PTY = "p11-kit server, ssh -tt -R";

/** Of one stock client through a connect. */
const oneTarget = (algorithm: Algorithm): Target[] => [
  ratioTarget("-N -R", 1),
  ratioTarget("-tt -R", 0.85),
  latencyTarget(algorithm === "rsa" ? 3 : 1.5),
];

/** Runs it and answers the rows, P-256 first. */
export async function benchForward(options: PairedOptions): Promise<PairedRow[]> {
  const { say, cleanUps } = options;
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  const program = buildProgram("sign-loop", token.dir);
  const plain = await forwardBySsh(token, "none", cleanUps);
  const pty = await forwardBySsh(token, "pty", cleanUps);
  const ours = await forwardByConnect(token, withPin(token), cleanUps);
  const oursStock = await forwardByConnect(token, ["--stock"], cleanUps);
  const rows: PairedRow[] = [];
  for (const algorithm of ["ec", "rsa"] as const) {
    say(`${KEY_NAMES[algorithm]} over the forward: starting the callers`);
    const ways: Way[] = [];
    const pkcs11 = (through: Forwarded) => () => {
      const env = { PATH: process.env["PATH"], P11_KIT_SERVER_ADDRESS: `unix:path=${through.socket}` };
      return startModuleCaller(program, P11KIT_CLIENT, token.label, algorithm, { env, pin: token.pin });
    };
    const rpc = (inFlight: number) => () =>
      startRpcCaller(ours.socket, algorithm, "sign", inFlight, { env: { PATH: process.env["PATH"] } });
    for (const n of [1, 16]) {
      const callers = n === 1 ? "1 caller" : `${n} processes`;
      const lanes = n === 1 ? "1 caller" : `${n} in flight`;
      const beside = { "-N -R": `${PLAIN}, ${callers}`, "-tt -R": `${PTY}, ${callers}` };
      const add = async (name: string, count: number, start: () => Promise<Caller>, through: Forwarded, targets: Target[] = []) => {
        const compared = through === plain ? {} : through === pty ? { "-N -R": beside["-N -R"] } : beside;
        ways.push({ name, callers: await startMany(count, start, cleanUps), servers: through.servers, beside: compared, targets });
      };
      await add(beside["-N -R"], n, pkcs11(plain), plain);
      await add(beside["-tt -R"], n, pkcs11(pty), pty);
      await add(`tokenfwd connect, ${callers}`, n, pkcs11(ours), ours, n === 1 ? oneTarget(algorithm) : []);
      await add(`tokenfwd connect --stock, ${callers}`, n, pkcs11(oursStock), oursStock);
      await add(`tokenfwd connect, RPC sign, ${lanes}`, 1, rpc(n), ours);
    }
    rows.push(...(await runPaired({ ...options, key: KEY_NAMES[algorithm], ways })));
    for (const one of ways) for (const caller of one.callers) await caller.end();
  }
  return rows;
}

export function forwardTable(rows: readonly PairedRow[]): string {
  return pairedTable(rows, ["-N -R", "-tt -R"]);
}
