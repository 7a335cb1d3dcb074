/*
 * Builds test/support/exact-module.c: a module whose every answer is known to the byte. Whoever builds it must remove it, after
 * the last use: a library that is gone while it is loaded takes the process with it.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const SOURCE = fileURLToPath(new URL("./exact-module.c", import.meta.url));
const INCLUDES = fileURLToPath(new URL("../../node_modules/pkcs11js/includes", import.meta.url));

export interface ExactModule extends Disposable {
  readonly modulePath: string;
}

/** Slot 7, session 1, object 2, and the answers that stand in the source. */
export function buildExactModule(): ExactModule {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-exact-"));
  const modulePath = join(dir, "exact.so");
  const remove = () => rmSync(dir, { recursive: true, force: true });
  try {
    execFileSync("cc", ["-shared", "-fPIC", "-O1", "-Wall", "-I", INCLUDES, "-o", modulePath, SOURCE]);
  } catch (error) {
    remove();
    throw error;
  }
  return { modulePath, [Symbol.dispose]: remove };
}
