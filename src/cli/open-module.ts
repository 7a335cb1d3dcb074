/*
 * The token host for the command line: of the module that was named, else of the one that is found. With --module nothing else is
 * looked at. It must never choose between two different tokens.
 */
import { silentLog } from "../base/log.js";
import { printable } from "../base/printable.js";
import { findModule } from "../token/discovery/discover.js";
import type { TokenHost, TokenHostOptions } from "../token/host/host.js";
import { createHostPool } from "../token/host/pool.js";

export interface OpenModuleOptions extends Omit<TokenHostOptions, "modulePath"> {
  /** Null: the one module of this machine that shows a token that `token` selects. */
  readonly modulePath: string | null;
  /** Label or `pkcs11:` URI; null for any token. */
  readonly token: string | null;
  /** Processes with the module. */
  readonly hosts: number;
  readonly signal: AbortSignal;
  /** Is told in words which module was found; not called for one that was named. */
  found(line: string): void;
}

/** Rejects as createHostPool does, and with E_TOKEN_NOT_FOUND or E_KEY_CHOICE where the module has to be found and cannot be. */
export async function openModule(options: OpenModuleOptions): Promise<TokenHost> {
  const { modulePath, token, hosts, signal, found, log = silentLog, ...rest } = options;
  if (modulePath !== null) return createHostPool({ ...rest, modulePath, signal, log }, hosts);
  const path = await findModule(token, { signal, log });
  found(`using the module ${printable(path)}`);
  return createHostPool({ ...rest, modulePath: path, signal, log }, hosts);
}
