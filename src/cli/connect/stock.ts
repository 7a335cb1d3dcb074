/*
 * Puts a stock `p11-kit server` behind a connect, for --stock. It must never be chosen without that option, and never take an
 * option that would promise what nobody keeps there.
 */
import { printable } from "../../base/printable.js";
import { namesObject, parseSelector, tokenUri } from "../../cryptoki/uri.js";
import { usage } from "../options.js";
import type { RawConnectOptions } from "../program.js";
import type { Ui } from "../ui.js";
import type { ConnectOptions, ConnectParts, ConnectSurroundings } from "./connect.js";
import type { Serving } from "./serving.js";

/** Refuses what cannot hold where nothing of ours stands between the module and the bastion. Throws E_USAGE. */
export function checkStockOptions(raw: RawConnectOptions): void {
  const refuse = (option: string, why: string, hint: string): never => {
    throw usage(`${option} cannot hold with --stock: ${why}`, hint);
  };
  const leaveOut = (option: string) => `leave out ${option}, or leave out --stock`;
  for (const [option, value] of [
    ["--policy", raw.policy],
    ["--allow-raw-rsa", raw.allowRawRsa],
    ["--allow-full-over-forward", raw.allowFullOverForward],
  ] as const) {
    if (value !== undefined) refuse(option, "p11-kit server has no policy, and every call reaches the module", leaveOut(option));
  }
  if (raw.pinSource !== undefined)
    refuse("--pin-source", "programs on the bastion ask for the PIN and send it over the connection", leaveOut("--pin-source"));
  if (raw.hold !== undefined) refuse("--hold", "a stock server keeps the module open", leaveOut("--hold"));
  if (raw.hosts !== undefined) refuse("--hosts", "a stock server starts a process for each program", leaveOut("--hosts"));
  if (raw.unlock === "now")
    refuse("--unlock now", "each program logs in by itself, with a PIN of its own", "use --unlock later, or leave out --stock");
  if (raw.key !== undefined && raw.key !== "all")
    refuse("--key", "p11-kit server shows all objects of a token", "choose the token with --token, or leave out --stock");
  if (raw.token !== undefined && /^pkcs11:/i.test(raw.token) && namesObject(parseSelector(raw.token)))
    refuse("--token with object, type or id", "p11-kit server shows all objects of a token", "name the token alone");
}

/** The URI that says to p11-kit which tokens are meant: by a label, a `pkcs11:` URI that has been checked, or all. */
export function stockUri(token: string | null): string {
  if (token === null) return "pkcs11:";
  if (/^pkcs11:/i.test(token)) return `pkcs11:${token.slice("pkcs11:".length)}`;
  return tokenUri({ label: token, manufacturer: "", model: "", serial: "" });
}

/** The server of a connect; the lifetime closes it. Rejects with E_MODULE, E_TOKEN_NOT_FOUND, E_KEY_CHOICE, E_STOCK. */
export async function serveStock(options: ConnectOptions, around: ConnectSurroundings, parts: ConnectParts, ui: Ui): Promise<Serving> {
  const { lifetime, log } = around;
  const { signal } = lifetime;
  const found = options.module ?? (await parts.findModule(options.token, { signal, log }));
  if (options.module === null) ui.line(`using the module ${printable(found)}`);
  const starting = parts.openStock({ modulePath: parts.checkModule(found), uri: stockUri(options.token), signal, log });
  const stock = await lifetime.wait(starting, (late) => late.close());
  lifetime.defer(() => stock.close());
  return {
    key: "all",
    tokens: stock.tokens,
    attach: (stream) => stock.attach(stream),
    expectedSlots: () => stock.slots(),
    offerVersion: stock.offerVersion,
    unlock: null,
    gone: stock.gone,
  };
}
