/*
 * The bench on one machine: the same signatures through stock p11-kit, through our agent over both wires, by the module itself,
 * and through three Node processes that do nothing but pass them on.
 */
import { P11KIT_CLIENT, startAgent, startStockServer } from "../interop/agent-process.js";
import { createSoftHsm } from "../support/softhsm.js";
import {
  type Algorithm,
  buildProgram,
  type Caller,
  KEY_NAMES,
  startBareChain,
  startMany,
  startModuleCaller,
  startRpcCaller,
} from "./callers.js";
import type { CleanUps } from "./clean-ups.js";
import { type PairedRow, pairedTable, ratioTarget, runPaired, type Target, type Way } from "./paired.js";

export interface PairedOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly say: (text: string) => void;
  /** Gets what has to be ended; the caller disposes of it. */
  readonly cleanUps: CleanUps;
}

const MODULE = "the module itself, 1 process";
const STOCK_1 = "stock p11-kit, 1 caller";
const STOCK_16 = "stock p11-kit, 16 processes";
const BARE_1 = "three bare Node processes, 1 caller";
const BARE_16 = "three bare Node processes, 16 in flight";
const ONE = { stock: STOCK_1, module: MODULE, bare: BARE_1 };
const MANY = { stock: STOCK_16, module: MODULE, bare: BARE_16 };

/** What one host, a serial process, is held to: with RSA the module's own rate, with P-256 a ratio to stock. */
const manyTarget = (algorithm: Algorithm, ecRatio: number): Target[] => [
  algorithm === "rsa" ? ratioTarget("module", 0.9) : ratioTarget("stock", ecRatio),
];

/** Runs it and answers the rows, P-256 first. */
export async function benchLocal(options: PairedOptions): Promise<PairedRow[]> {
  const { say, cleanUps } = options;
  const token = await createSoftHsm({ label: "bench", certificates: false });
  cleanUps.add(() => token.dispose());
  const stock = await startStockServer(token);
  cleanUps.add(() => stock.dispose());
  const agent = await startAgent({ token, pin: "file" });
  cleanUps.add(() => agent.dispose());
  const twoHosts = await startAgent({ token, pin: "file", args: ["--hosts", "2"] });
  cleanUps.add(() => twoHosts.dispose());
  const program = buildProgram("sign-loop", token.dir);
  const pin = token.pin;

  const rows: PairedRow[] = [];
  for (const algorithm of ["ec", "rsa"] as const) {
    say(`${KEY_NAMES[algorithm]}: starting the callers`);
    const pkcs11 = (address: string) => () => {
      const env = { ...token.env, P11_KIT_SERVER_ADDRESS: address };
      return startModuleCaller(program, P11KIT_CLIENT, token.label, algorithm, { env, pin });
    };
    const rpc = (how: "sign" | "call", inFlight: number) => () =>
      startRpcCaller(agent.socket, algorithm, how, inFlight, { env: token.env });
    const direct = () => startModuleCaller(program, token.modulePath, token.label, algorithm, { env: token.env, pin });
    const bare = (inFlight: number) => () => startBareChain(token.modulePath, token.label, algorithm, inFlight, { env: token.env, pin });
    const ways: Way[] = [];
    const add = async (name: string, n: number, start: () => Promise<Caller>, servers: number[], beside = {}, targets: Target[] = []) => {
      ways.push({ name, callers: await startMany(n, start, cleanUps), servers, beside, targets });
    };
    const rpcOne = algorithm === "ec" ? [ratioTarget("stock", 0.95)] : [];
    await add(MODULE, 1, direct, [], { stock: STOCK_1 });
    await add(STOCK_1, 1, pkcs11(stock.address), [stock.pid], { module: MODULE });
    await add(BARE_1, 1, bare(1), [], { stock: STOCK_1, module: MODULE });
    await add("ours, p11-kit wire, 1 caller", 1, pkcs11(agent.address), [agent.pid], ONE, [
      ratioTarget("stock", algorithm === "rsa" ? 0.95 : 0.8),
    ]);
    await add("ours, RPC sign, 1 caller", 1, rpc("sign", 1), [agent.pid], ONE, rpcOne);
    await add("ours, RPC call, 1 caller", 1, rpc("call", 1), [agent.pid], ONE);
    await add(STOCK_16, 16, pkcs11(stock.address), [stock.pid], { module: MODULE });
    await add(BARE_16, 1, bare(16), [], { stock: STOCK_16, module: MODULE });
    await add("ours, p11-kit wire, 16 processes", 16, pkcs11(agent.address), [agent.pid], MANY, manyTarget(algorithm, 0.95));
    if (algorithm === "rsa") {
      const targets = [ratioTarget("stock", 0.9)];
      await add("ours, the same with --hosts 2", 16, pkcs11(twoHosts.address), [twoHosts.pid], MANY, targets);
    }
    await add("ours, RPC sign, 16 in flight", 1, rpc("sign", 16), [agent.pid], MANY, manyTarget(algorithm, 1));
    await add("ours, RPC call, 16 in flight", 1, rpc("call", 16), [agent.pid], MANY);
    rows.push(...(await runPaired({ ...options, key: KEY_NAMES[algorithm], ways })));
    // An idle caller costs nothing, but the next algorithm's stock callers load the module once more each.
    for (const one of ways) for (const caller of one.callers) await caller.end();
  }
  return rows;
}

export function localTable(rows: readonly PairedRow[]): string {
  return pairedTable(rows, ["stock", "module", "bare"]);
}
