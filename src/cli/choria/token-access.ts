/*
 * How a command of the group reaches the token: the options that say where the agent is, which key is meant and where a PIN comes
 * from, and the way from these to an identity. It must never take a PIN from the command line.
 */
import type { Command } from "commander";
import type { ConnectOptions, TokenfwdClient } from "../../bastion/client/index.js";
import { parseSelector } from "../../cryptoki/uri.js";
import { type BastionPin, type BastionPinSource, createBastionPin, PIN_NOT_USED, parseBastionPinSource } from "../bastion-pin.js";
import type { Lifetime } from "../lifetime.js";
import { usage } from "../options.js";
import { checkSocket } from "../sign/options.js";
import type { Ui } from "../ui.js";
import { type FoundIdentity, findIdentity } from "./identity.js";

/** The options as commander hands them over. */
export interface RawTokenAccess {
  readonly key?: string;
  readonly pinSource?: string;
  readonly socket?: string;
}

export interface TokenAccess {
  /** A `pkcs11:` URI. */
  readonly key: string | null;
  /** null: not given. */
  readonly pinSource: BastionPinSource | null;
  readonly socket: string | null;
}

/** Adds the options. */
export function withTokenAccess(command: Command): Command {
  return command
    .option("--key <uri>", "the key, by pkcs11: URI (default: the one RSA key that has a certificate)")
    .option("--pin-source <source>", "where the PIN is wanted on this side: ask (default), file:PATH (mode 0600) or fd:N")
    .option("--socket <path>", "the agent's socket (default: found by itself)");
}

/** Checks the options. Throws E_USAGE. */
export function checkTokenAccess(raw: RawTokenAccess): TokenAccess {
  if (raw.key !== undefined) {
    // What was given is not shown: it may be a PIN.
    if (!/^pkcs11:/i.test(raw.key)) throw usage("--key takes a pkcs11: URI", "tokenfwd keys prints them, ready to be copied");
    parseSelector(raw.key);
  }
  return {
    key: raw.key ?? null,
    pinSource: raw.pinSource === undefined ? null : parseBastionPinSource(raw.pinSource),
    socket: checkSocket(raw.socket),
  };
}

/** What opening works with; tests hand in their own. */
export interface AccessAround {
  readonly lifetime: Lifetime;
  readonly ui: Ui;
  readonly env: NodeJS.ProcessEnv;
  connect(options: ConnectOptions): Promise<TokenfwdClient>;
}

export interface OpenIdentity extends FoundIdentity {
  /** Closed with the lifetime. */
  readonly client: TokenfwdClient;
  readonly pin: BastionPin;
  /** Warns of a --pin-source that nothing wanted. To be called when the work is done. */
  warnOfUnusedPin(): void;
}

/** Connects and finds the identity. `who` is what the command calls itself. Rejects as connectClient and findIdentity do. */
export async function openIdentity(access: TokenAccess, who: string, around: AccessAround): Promise<OpenIdentity> {
  const { lifetime, ui, env } = around;
  const { key, pinSource, socket } = access;
  const pin = createBastionPin(pinSource ?? { kind: "ask" }, who);
  const { signal } = lifetime;
  const client = await around.connect({
    ...(socket === null ? {} : { socket }),
    env,
    pin: pin.provider,
    client: who,
    snapshot: true,
    signal,
  });
  lifetime.defer(() => client.close());
  const found = await findIdentity(client, { ...(key === null ? {} : { key }), signal });
  return {
    ...found,
    client,
    pin,
    warnOfUnusedPin() {
      if (pinSource !== null && !pin.wasUsed) ui.warning(PIN_NOT_USED);
    },
  };
}
