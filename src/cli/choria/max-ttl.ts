/*
 * The option --max-ttl, which the commands that sign requests share.
 */
import { DEFAULT_MAX_TTL_SECONDS, MIN_TTL_SECONDS, MOST_TTL_SECONDS } from "../../choria/limits.js";
import { parseNumber } from "../options.js";

/** Its seconds, or the default. Throws E_USAGE. */
export function parseMaxTtl(text: string | undefined): number {
  return text === undefined ? DEFAULT_MAX_TTL_SECONDS : parseNumber(text, "--max-ttl", MIN_TTL_SECONDS, MOST_TTL_SECONDS);
}
