/*
 * `tokenfwd export`: prints how to do it by hand, for a machine or a person that has to go without tokenfwd. It must never run what it
 * prints, and never write anywhere but to stdout.
 */
import { join } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import type { Log } from "../../base/log.js";
import { runtimeDirectory } from "../../base/paths.js";
import { printable } from "../../base/printable.js";
import { namesObject, parseSelector } from "../../cryptoki/uri.js";
import { findModule } from "../../token/discovery/discover.js";
import { checkModuleFile } from "../../token/host/module-file.js";
import { stockUri } from "../connect/stock.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { checkFile, checkTokenOptions, usage } from "../options.js";
import { createUi } from "../ui.js";
import { remoteRuntimeDir, sshSettingsFor } from "./destination.js";
import { aliasOf, byHandText, isPlainPath } from "./text.js";

/** The options of export as commander hands them over. */
export interface RawExportOptions {
  readonly sshConfig?: string;
  readonly module?: string;
  readonly token?: string;
  readonly config?: string;
}

/** Answers 0. Throws E_USAGE, E_MODULE, E_TOKEN_NOT_FOUND, E_KEY_CHOICE, E_SSH, E_SSH_CONFIG, E_RUNTIME_DIR, E_SOCKET_PATH, E_INTERRUPTED. */
export async function runExport(raw: RawExportOptions, log: Log): Promise<number> {
  const { sshConfig: destination, config } = raw;
  if (destination === undefined)
    throw usage("export needs --ssh-config DEST", "it prints what to put into ssh_config and what to type for that destination");
  if (destination === "" || destination.startsWith("-"))
    throw usage("the destination is not one", "write it as ssh takes it: user@host, or a Host of ssh_config");
  const { module, token } = checkTokenOptions({
    ...(raw.module === undefined ? {} : { module: raw.module }),
    ...(raw.token === undefined ? {} : { token: raw.token }),
  });
  if (token !== null && /^pkcs11:/i.test(token) && namesObject(parseSelector(token)))
    throw usage("--token names an object, and p11-kit server shows all objects of a token", "name the token alone");
  const configFile = config === undefined ? null : checkFile(config, "-F");
  const flags = configFile === null ? [] : ["-F", configFile];
  const lifetime = createLifetime(processSignals);
  const { signal } = lifetime;
  try {
    const named = module === null ? null : checkModuleFile(module);
    const alias = aliasOf(destination);
    const settings = await sshSettingsFor(destination, alias, flags, signal);
    const runtimeDir = await remoteRuntimeDir(destination, flags, signal);
    const modulePath = named ?? checkModuleFile(await findModule(token, { signal, log }));
    const localSocket = join(runtimeDirectory(), "tokenfwd-by-hand", "p11.sock");
    if (!isPlainPath(localSocket)) throw notPlain("E_SOCKET_PATH", localSocket, "this workstation");
    if (!isPlainPath(runtimeDir)) throw notPlain("E_RUNTIME_DIR", runtimeDir, printable(destination));
    const text = byHandText({
      destination: printable(destination),
      alias,
      settings,
      configFile,
      modulePath,
      uri: stockUri(token),
      localSocket,
      runtimeDir,
    });
    await new Promise((resolve) => process.stdout.write(text, resolve));
    if (named === null) createUi(process.stderr).line(`the text names the module ${printable(modulePath)}`);
    return 0;
  } finally {
    await lifetime.close();
  }
}

function notPlain(code: "E_SOCKET_PATH" | "E_RUNTIME_DIR", path: string, where: string): TokenfwdError {
  return new TokenfwdError(code, `the path ${printable(path)} on ${where} has characters that ssh_config cannot hold safely`, {
    hint: "let XDG_RUNTIME_DIR name a directory of plain letters, digits and . _ / + @ -",
  });
}
