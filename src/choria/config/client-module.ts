/*
 * Where a machine's systems keep p11-kit's client module, by which a program reaches a token elsewhere. It looks, and loads nothing.
 */
import type { Look } from "./finding.js";

const DIRECTORIES = [
  ...["x86_64", "aarch64", "riscv64", "s390x", "powerpc64le", "i386"].map((machine) => `/usr/lib/${machine}-linux-gnu`),
  "/usr/lib/arm-linux-gnueabihf",
  "/usr/lib64",
  "/usr/lib",
  "/usr/local/lib",
  "/opt/homebrew/lib",
] as const;

/** Its path, or null when there is none at a usual place. */
export async function findClientModule(look: Look): Promise<string | null> {
  for (const directory of DIRECTORIES) {
    const path = `${directory}/pkcs11/p11-kit-client.so`;
    if ((await look(path, "mode")).state === "file") return path;
  }
  return null;
}
