/*
 * Our own version, read from the package.json that lies two directories above this file both in src and in dist. In the
 * bundle, which lies alone, the bundler has put it in. It must never be written down a second time.
 */
import { readFileSync } from "node:fs";

/** Defined by the bundler, and nowhere else. */
declare const TOKENFWD_VERSION: string | undefined;

let known: string | undefined = typeof TOKENFWD_VERSION === "string" ? TOKENFWD_VERSION : undefined;

/** The version in package.json, such as `0.1.0`. Read once. Throws when the installation is broken. */
export function version(): string {
  if (known === undefined) {
    const parsed: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    const found = typeof parsed === "object" && parsed !== null && "version" in parsed ? parsed.version : undefined;
    if (typeof found !== "string") throw new Error("package.json has no version");
    known = found;
  }
  return known;
}
