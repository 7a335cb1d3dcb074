/*
 * A SoftHSM for a test file that starts token hosts from its own process: this process's environment names the token while the
 * file's tests run, and what it named before comes back.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { createSoftHsm, type SoftHsm } from "./softhsm.js";

export interface SoftHsmHere {
  /** There from the file's `beforeAll` on. */
  readonly token: SoftHsm;
  /** Holds the PIN, for a pin source of kind `file`. */
  readonly pinFile: string;
}

/** Registers the hooks of a test file; `prepare` may put more on the token. */
export function softHsmHere(prepare?: (token: SoftHsm) => Promise<unknown>): SoftHsmHere {
  const before = process.env["SOFTHSM2_CONF"];
  let token: SoftHsm;
  const pinFile = () => join(token.dir, "pin");
  beforeAll(async () => {
    token = await createSoftHsm();
    await prepare?.(token);
    process.env["SOFTHSM2_CONF"] = token.configFile;
    writeFileSync(pinFile(), `${token.pin}\n`, { mode: 0o600 });
  });
  afterAll(async () => {
    if (before === undefined) delete process.env["SOFTHSM2_CONF"];
    else process.env["SOFTHSM2_CONF"] = before;
    await token.dispose();
  });
  return {
    get token() {
      return token;
    },
    get pinFile() {
      return pinFile();
    },
  };
}
