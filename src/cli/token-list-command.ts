/*
 * `tokenfwd token list`: what PKCS#11 modules, slots, tokens and objects this machine offers, and what is wrong with each. It never
 * logs in and never asks; with --module it looks at that module and at nothing else.
 */
import { resolve } from "node:path";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { discoverModules } from "../token/discovery/discover.js";
import { createLifetime, processSignals } from "./lifetime.js";
import { checkTokenOptions } from "./options.js";
import { tokenListJson, tokenListText, usableTokens } from "./token-list.js";
import { createUi } from "./ui.js";

/** The options of token list as commander hands them over. */
export interface RawTokenListOptions {
  readonly module?: string;
  readonly json?: boolean;
}

const EXIT_NONE = 20;

/** Answers 0 when at least one token can be used, else 20. Throws E_USAGE, and E_INTERRUPTED after a signal. */
export async function runTokenList(raw: RawTokenListOptions, log: Log): Promise<number> {
  const { module } = checkTokenOptions(raw.module === undefined ? {} : { module: raw.module });
  const lifetime = createLifetime(processSignals);
  try {
    const named = module === null ? {} : { candidates: [{ path: resolve(module), from: "--module", denied: null }] };
    const modules = await lifetime.wait(discoverModules({ ...named, objects: true, signal: lifetime.signal, log }));
    process.stdout.write(raw.json === true ? tokenListJson(modules) : tokenListText(modules));
    if (usableTokens(modules) > 0) return 0;
    createUi(process.stderr).error(
      new TokenfwdError("E_TOKEN_NOT_FOUND", "no token can be used", {
        hint: "the list says what is wrong with each module; plug the token in, or name its module with --module",
      }),
    );
    return EXIT_NONE;
  } finally {
    await lifetime.close();
  }
}
