/*
 * Builds test/support/shim-module.c and wraps a token's module in it, so that a test can make the module slow, hung,
 * crashing or strange while it runs. The build is made once per process and removed with the last shim.
 */
import { execFile } from "node:child_process";
import { access, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const execute = promisify(execFile);
const SOURCE = fileURLToPath(new URL("./shim-module.c", import.meta.url));
const INCLUDES = fileURLToPath(new URL("../../node_modules/pkcs11js/includes", import.meta.url));

export interface ShimModule extends AsyncDisposable {
  /** The module to load in place of the real one. */
  readonly modulePath: string;
  /** SHIM_MODULE, SHIM_CONTROL, SHIM_LOGINS and SHIM_STATE for the process that loads it. */
  readonly env: Readonly<Record<string, string>>;
  /** Replaces the rules; see shim-module.c. No rules: plain forwarding. */
  control(...rules: readonly string[]): Promise<void>;
  /** How often C_Login has reached the module. */
  logins(): Promise<number>;
  /** PIN tries that are left, where the rule `tries` has been used; NaN before the first wrong one. */
  triesLeft(): Promise<number>;
  dispose(): Promise<void>;
}

/** A shim in front of this module. */
export async function createShimModule(realModulePath: string): Promise<ShimModule> {
  await access(realModulePath);
  const dir = await mkdtemp(join(tmpdir(), "tokenfwd-shim-"));
  const modulePath = join(dir, "shim.so");
  const controlFile = join(dir, "control");
  const loginsFile = join(dir, "logins");
  const stateFile = join(dir, "state");
  const dispose = () => rm(dir, { recursive: true, force: true });
  try {
    await execute("cc", ["-shared", "-fPIC", "-O1", "-Wall", "-I", INCLUDES, "-o", modulePath, SOURCE, "-ldl"]);
    await writeFile(controlFile, "");
    await writeFile(loginsFile, "");
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    modulePath,
    env: { SHIM_MODULE: realModulePath, SHIM_CONTROL: controlFile, SHIM_LOGINS: loginsFile, SHIM_STATE: stateFile },
    control: (...rules) => writeFile(controlFile, rules.map((rule) => `${rule}\n`).join("")),
    logins: async () => (await readFile(loginsFile, "utf8")).split("\n").length - 1,
    triesLeft: async () => Number.parseInt(await readFile(stateFile, "utf8").catch(() => ""), 10),
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}
