/*
 * What a trace costs: the same signatures by an agent that writes none and by one that does, in turn within each round; and through
 * `tokenfwd trace`, whose socket is one more process on the way.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { P11KIT_CLIENT, type ServerProcess, startAgent, TOKENFWD } from "../interop/agent-process.js";
import { createSoftHsm } from "../support/softhsm.js";
import { buildProgram, type Caller, KEY_NAMES, startMany, startModuleCaller, startRpcCaller } from "./callers.js";
import type { PairedOptions } from "./local.js";
import { type PairedRow, pairedTable, ratioTarget, runPaired, type Target, type Way } from "./paired.js";

/** A traced signature may cost a tenth more: so many of them in the time of one without. */
const TARGET: readonly Target[] = [ratioTarget("untraced", 0.91)];

/** Starts the tap and answers its process id once it listens. */
async function startTap(socket: string, listen: string, file: string, cleanUps: PairedOptions["cleanUps"]): Promise<number> {
  const child = spawn(process.execPath, [TOKENFWD, "trace", "--socket", socket, "--listen", listen, "-o", file], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  cleanUps.add(async () => {
    child.kill("SIGTERM");
    await ended;
  });
  let said = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (said.includes("until Ctrl-C")) resolve();
    });
    void ended.then(() => reject(new Error(`tokenfwd trace has ended: ${said}`)));
  });
  return child.pid ?? -1;
}

/** Runs it and answers the rows, P-256 first. */
export async function benchTrace(options: PairedOptions): Promise<PairedRow[]> {
  const { say, cleanUps } = options;
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  const agentWith = async (...args: string[]): Promise<ServerProcess> => {
    const agent = await startAgent({ token, pin: "file", args });
    cleanUps.add(() => agent.dispose());
    return agent;
  };
  const plain = await agentWith();
  const traced = await agentWith("--trace", join(token.dir, "agent.trace"));
  const tapSocket = join(token.dir, "tap");
  const tap = await startTap(plain.socket, tapSocket, join(token.dir, "tap.trace"), cleanUps);
  const program = buildProgram("sign-loop", token.dir);

  const rows: PairedRow[] = [];
  for (const algorithm of ["ec", "rsa"] as const) {
    say(`${KEY_NAMES[algorithm]}: starting the callers`);
    const ways: Way[] = [];
    const add = async (name: string, start: () => Promise<Caller>, servers: number[], beside?: string, targets: readonly Target[] = []) => {
      const callers = await startMany(1, start, cleanUps);
      ways.push({ name, callers, servers, beside: beside === undefined ? {} : { untraced: beside }, targets });
    };
    const pkcs11 = (address: string) => () =>
      startModuleCaller(program, P11KIT_CLIENT, token.label, algorithm, {
        env: { ...token.env, P11_KIT_SERVER_ADDRESS: address },
        pin: token.pin,
      });
    const rpc = (socket: string, inFlight: number) => () => startRpcCaller(socket, algorithm, "sign", inFlight, { env: token.env });
    const pairs = [
      ["p11-kit wire, 1 caller", (server: ServerProcess) => pkcs11(server.address)],
      ["RPC sign, 1 caller", (server: ServerProcess) => rpc(server.socket, 1)],
      ["RPC sign, 16 in flight", (server: ServerProcess) => rpc(server.socket, 16)],
    ] as const;
    for (const [name, caller] of pairs) {
      await add(name, caller(plain), [plain.pid]);
      await add(`${name}, traced`, caller(traced), [traced.pid], name, TARGET);
    }
    const [[first]] = pairs;
    await add("p11-kit wire, through tokenfwd trace", pkcs11(`unix:path=${tapSocket}`), [plain.pid, tap], first);
    rows.push(...(await runPaired({ ...options, key: KEY_NAMES[algorithm], ways })));
    for (const one of ways) for (const caller of one.callers) await caller.end();
  }
  return rows;
}

export function traceTable(rows: readonly PairedRow[]): string {
  return pairedTable(rows, ["untraced"]);
}
