/*
 * The way of `--stock`: a stock `p11-kit server` in the place of our agent: no policy, no PIN kept here, no word about uses. What we ask of
 * it ourselves we ask as any client. It must never be asked to log in.
 */
import { connect, type Socket } from "node:net";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { KeyError } from "../cryptoki/keys/key-error.js";
import { readTokenFacts } from "../cryptoki/keys/token-reader.js";
import { localContext } from "../cryptoki/local-context.js";
import { CKR, rvName } from "../cryptoki/rv.js";
import type { CallContext, Cryptoki } from "../cryptoki/types.js";
import { createP11KitClient, type P11KitClient } from "../wire/p11kit/client.js";
import { negotiateP11Kit, type OpenedClient } from "../wire/p11kit/negotiate.js";
import { initializeArgs } from "../wire/p11kit/requests.js";
import { startStockProcess } from "./stock-process.js";
import { createStockStreams, type StockStreams, type StockStreamsOptions } from "./stock-streams.js";

export interface StockOptions {
  /** The module's real path. */
  readonly modulePath: string;
  /** A `pkcs11:` URI with attributes of tokens alone: which tokens the server shows. */
  readonly uri: string;
  readonly signal: AbortSignal;
  readonly log: Log;
  /** Makes what sees the bytes of a stream as they pass. */
  readonly tap?: StockStreamsOptions["tap"];
}

/** A token as the server describes it; all printable. */
export interface StockToken {
  readonly uri: string;
  readonly label: string;
  readonly serial: string;
}

export interface Stock {
  /** The initialised tokens it shows. */
  readonly tokens: readonly StockToken[];
  /** The version byte to offer it: releases before 0.24.1 take none but 0. */
  readonly offerVersion: 0 | 2;
  /** The slots that a client sees which connects now. */
  slots(): Promise<readonly bigint[]>;
  readonly attach: StockStreams["attach"];
  /** Resolves, never rejects, when the server has ended by itself. */
  readonly gone: Promise<TokenfwdError>;
  /** Ends every stream and the server. Safe to call twice. */
  close(): Promise<void>;
}

/** The server starts its module before it answers the version byte. */
const FIRST_BYTE_MS = 30_000;
const CALL_MS = 30_000;
const LINGER_MS = 1_000;
const MAX_SLOTS = 1_024;

/** Starts the server and asks it what it shows. Rejects with E_STOCK, E_TOKEN_NOT_FOUND, E_SOCKET_PATH, or the signal's reason. */
export async function openStock(options: StockOptions): Promise<Stock> {
  const { signal } = options;
  const server = await startStockProcess(options);
  const streams = createStockStreams({ path: server.socket, tap: options.tap });
  const ask = <T>(use: (cryptoki: Cryptoki, ctx: CallContext, version: number) => Promise<T>) => withClient(server.socket, signal, use);
  const close = async (): Promise<void> => {
    streams.close();
    await server.close();
  };
  try {
    const { tokens, version } = await ask(async (cryptoki, ctx, version) => ({ tokens: await listTokens(cryptoki, ctx), version }));
    if (tokens.length === 0) {
      throw new TokenfwdError("E_TOKEN_NOT_FOUND", "p11-kit server of --stock shows no initialised token that is meant", {
        hint: "is it plugged in? tokenfwd token list says what each module shows; --token and --module choose",
      });
    }
    return {
      tokens,
      offerVersion: version === 0 ? 0 : 2,
      slots: () => ask(listSlots),
      attach: streams.attach,
      gone: server.gone,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Opened extends OpenedClient {
  readonly socket: Socket;
}

function open(path: string, offerVersion: 0 | 2): Opened {
  const socket = connect({ path });
  const client: P11KitClient = createP11KitClient({ write: (bytes) => void socket.write(bytes), end: () => socket.end(), offerVersion });
  socket.on("data", (chunk: Buffer) => client.push(chunk));
  socket.on("error", () => {});
  socket.once("close", () => client.closed());
  return { socket, client, abandon: () => void socket.destroy() };
}

/** A connection of our own, for as long as `use` takes. Rejects with E_STOCK, or the signal's reason. */
async function withClient<T>(
  path: string,
  signal: AbortSignal,
  use: (cryptoki: Cryptoki, ctx: CallContext, version: number) => Promise<T>,
): Promise<T> {
  const made = await negotiateP11Kit(async (offer) => open(path, offer), { firstByteMs: FIRST_BYTE_MS, signal });
  if (!made.ok) {
    const why = made.why === "silent" ? `does not answer in ${FIRST_BYTE_MS / 1000} s` : "closes every connection: does the module load?";
    throw refused(why);
  }
  const { client, socket } = made.opened;
  const ctx = localContext("stock", AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]));
  try {
    const { rv } = await client.call("C_Initialize", initializeArgs(), ctx);
    if (rv !== CKR.CKR_OK) throw refused(`refuses C_Initialize (${rvName(rv)})`);
    return await use(client, ctx, made.version);
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof KeyError ? refused(error.message) : error;
  } finally {
    // Its process ends with the connection; a module may not stand two that start at once.
    const closed = new Promise((resolve) => socket.once("close", resolve));
    await client.close();
    socket.destroySoon();
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, LINGER_MS).unref())]);
    socket.destroy();
  }
}

async function listSlots(cryptoki: Cryptoki, ctx: CallContext): Promise<readonly bigint[]> {
  const { rv, slots } = await cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: MAX_SLOTS }, ctx);
  if (rv !== CKR.CKR_OK || !Array.isArray(slots)) throw refused(`cannot list its slots (${rvName(rv)})`);
  return slots as readonly bigint[];
}

async function listTokens(cryptoki: Cryptoki, ctx: CallContext): Promise<readonly StockToken[]> {
  const tokens: StockToken[] = [];
  for (const slot of await listSlots(cryptoki, ctx)) {
    const facts = await readTokenFacts(cryptoki, slot, ctx);
    if (facts !== null) tokens.push({ uri: facts.uri, label: facts.label, serial: facts.serial });
  }
  return tokens;
}

function refused(why: string): TokenfwdError {
  return new TokenfwdError("E_STOCK", `p11-kit server of --stock ${why}`, {
    hint: "TOKENFWD_LOG=FILE keeps what it says; try by hand: p11-kit server --foreground --provider MODULE pkcs11:",
  });
}
