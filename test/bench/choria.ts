/*
 * One `choria req rpcutil ping --nodes FILE` to two servers, with the key in a file and with the key on the token at the other end of a
 * connect, all against one broker and in turns. The token's module is the same SoftHSM for all; what a real token needs for a signature
 * comes on top, two or three times.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startCli } from "../interop/cli-process.js";
import { answered, BOTH, keyless } from "../support/choria/keyless.js";
import { runProgram, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { settingsText } from "../support/choria/settings.js";
import { spyOn } from "../support/choria/spy.js";
import { startSshd } from "../support/sshd.js";
import type { CleanUps } from "./clean-ups.js";
import { median, quantile, short, table } from "./stats.js";

const BUNDLE = fileURLToPath(new URL("../../dist/tokenfwd-bastion.cjs", import.meta.url));
/** For each round of the bench, so that a median means something. */
const RUNS_A_ROUND = 4;
/** What the stand-ins for signer and relay took, on another day and machine, with their key on the token and sessions resumed. */
const STAND_INS_MS = { file: 38, both: 76 };

export interface ChoriaBenchOptions {
  readonly rounds: number;
  readonly cleanUps: CleanUps;
  say(text: string): void;
}

export interface ChoriaRow {
  readonly way: string;
  readonly ms: readonly number[];
  /** Of the token's key, in each run. */
  readonly signatures: number;
}

/** Answers rows, or why there are none. */
export async function benchChoria({ rounds, cleanUps, say }: ChoriaBenchOptions): Promise<readonly ChoriaRow[] | string> {
  if (!(await choriaAvailable())) return "needs the real choria, and so Go 1.25 or newer; see README.md";
  const network = await startChoriaNetwork();
  cleanUps.add(() => network.dispose());
  const dir = mkdtempSync(join(tmpdir(), "tfwd-bench-choria-"));
  cleanUps.add(() => rmSync(dir, { recursive: true, force: true }));
  const token = spyOn(network.token);
  mkdirSync(join(dir, "bin"));
  symlinkSync(network.program, join(dir, "bin", "choria"));
  writeFileSync(join(dir, ".choriarc"), settingsText(keyless(network)));
  writeFileSync(join(dir, "nodes"), `${BOTH.join("\n")}\n`);
  writeFileSync(join(dir, "pin"), `${network.token.pin}\n`, { mode: 0o600 });
  const path = `${dir}/bin:/usr/bin:/bin`;
  const bastion = await startSshd({ setEnv: { HOME: dir, PATH: path } });
  cleanUps.add(() => bastion.dispose());
  const words = ["-F", bastion.sshConfig, "--module", token.modulePath, "--pin-source", `file:${join(dir, "pin")}`, "--choria", "--json"];
  const connect = startCli(["connect", "bastion", ...words], { env: { ...token.env, XDG_STATE_HOME: join(dir, "state") } });
  cleanUps.add(() => connect.end());
  const ready = await connect.untilEvent("ready");
  const { directory } = ready["choria"] as { readonly directory: string };

  const req = ["req", "rpcutil", "ping", "--json", "--nodes", join(dir, "nodes")];
  const env = { HOME: dir, XDG_RUNTIME_DIR: bastion.runtimeDir, TOKENFWD_SOCKET: String(ready["remoteSocket"]) };
  const fileConfig = await network.fileConfig();
  const ways: readonly { readonly way: string; run(): ReturnType<typeof runProgram> }[] = [
    { way: "key in a file", run: () => network.runChoria(req, { config: fileConfig }) },
    {
      way: "connect --choria",
      run: () => runProgram(join(directory, "choria"), req, { ...env, PATH: `${directory}:${path}` }, { cwd: dir }),
    },
    {
      way: "tokenfwd choria run",
      run: () => runProgram(process.execPath, [BUNDLE, "choria", "run", "--", ...req], { ...env, PATH: path }, { cwd: dir }),
    },
  ];
  const ms = ways.map((): number[] => []);
  const signatures = ways.map(() => 0);
  for (let round = 0; round <= rounds; round++) {
    say(round === 0 ? "choria: a first round that does not count" : `choria: round ${round} of ${rounds}`);
    for (let run = 0; run < (round === 0 ? 1 : RUNS_A_ROUND); run++) {
      for (const [index, { way, run: begin }] of ways.entries()) {
        const before = token.signatures();
        const done = await begin();
        if (answered(done.stdout, done.stderr).length !== BOTH.length) throw new Error(`${way}: not every server answered`);
        if (round === 0) continue;
        ms[index]?.push(done.ms);
        signatures[index] = token.signatures() - before;
      }
    }
  }
  return ways.map(({ way }, index) => ({ way, ms: ms[index] ?? [], signatures: signatures[index] ?? 0 }));
}

/** For a person. */
export function choriaTable(rows: readonly ChoriaRow[]): string {
  const base = median(rows[0]?.ms ?? []);
  const lines = rows.map(({ way, ms, signatures }) => {
    const sorted = Float64Array.from(ms).sort();
    return [
      way,
      short(median(ms)),
      short(quantile(sorted, 0.1)),
      short(quantile(sorted, 0.9)),
      short(median(ms) - base),
      String(signatures),
    ];
  });
  const { file, both } = STAND_INS_MS;
  return `${table(["choria req --nodes, 2 servers", "ms", "p10", "p90", "beside the file", "signatures"], lines)}\n(the stand-ins took ${both} ms where a file took ${file}: ${both - file} beside it)`;
}
