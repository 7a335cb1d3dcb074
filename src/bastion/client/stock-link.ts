/*
 * A connection to a stock p11-kit server, made to look like one to our agent: keys, signatures, a log-in with a PIN from
 * this side. It must never let a PIN go anywhere but into C_Login.
 */
import type { Socket } from "node:net";
import { createKeyRing } from "../../cryptoki/keys/key-ring.js";
import { localContext } from "../../cryptoki/local-context.js";
import { MECHANISMS } from "../../cryptoki/mechanisms.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import type { AnyResult, Cryptoki } from "../../cryptoki/types.js";
import { createP11KitClient, type P11KitClient } from "../../wire/p11kit/client.js";
import { negotiateP11Kit, type OpenedClient } from "../../wire/p11kit/negotiate.js";
import { initializeArgs } from "../../wire/p11kit/requests.js";
import { dial, hangUp, socketError } from "./dial.js";
import type { LinkSettings, StockLink } from "./link-types.js";
import { createStockLogins } from "./stock-login.js";

interface Opened extends OpenedClient {
  readonly socket: Socket;
  readonly isGone: () => boolean;
}

async function open(path: string, offerVersion: 0 | 2, settings: LinkSettings, signal: AbortSignal): Promise<Opened> {
  const socket = await dial(path, settings.times.connectMs, signal);
  const client = createP11KitClient({
    write: (bytes, written) => void socket.write(bytes, written),
    end: () => hangUp(socket),
    offerVersion,
  });
  socket.on("data", (chunk) => client.push(chunk));
  let isGone = false;
  socket.once("close", () => {
    isGone = true;
    client.closed();
  });
  return { socket, client, isGone: () => isGone, abandon: () => void socket.destroy() };
}

/**
 * Hides the mechanisms whose parameter a server of this version reads wrongly: one before 0.25 takes the parameter of a
 * hashing PSS mechanism for something else. The key ring then makes them of a hash and CKM_RSA_PKCS_PSS.
 */
function withoutUnreadable(client: P11KitClient, version: number): Cryptoki {
  const isRead = (type: bigint): boolean => {
    const row = MECHANISMS.get(Number(type));
    return row?.shape !== "rsa-pss" || (row.stockSince !== null && row.stockSince <= version);
  };
  return {
    events: client.events,
    close: async () => {},
    async call(name, args, ctx) {
      const answer = (await client.call(name, args, ctx)) as AnyResult;
      const list = name === "C_GetMechanismList" ? answer["mechanisms"] : null;
      return (Array.isArray(list) ? { ...answer, mechanisms: (list as readonly bigint[]).filter(isRead) } : answer) as never;
    },
  };
}

function stockLink(path: string, version: number, made: Opened, { pin, tries }: LinkSettings): StockLink {
  const { client, socket, isGone } = made;
  const ring = createKeyRing({ cryptoki: withoutUnreadable(client, version), ...createStockLogins({ cryptoki: client, pin, tries }) });
  let isClosed = false;
  const close = (): void => {
    isClosed = true;
    client.closed();
    hangUp(socket);
  };
  return { protocol: "p11-kit", path, cryptoki: client, ring, isGone: () => isClosed || isGone(), close } as const;
}

/** A connection to a stock server on this path. Rejects with E_AGENT_SOCKET, or with the signal's reason. */
export async function openStockLink(path: string, settings: LinkSettings, signal: AbortSignal): Promise<StockLink> {
  const made = await negotiateP11Kit((offer) => open(path, offer, settings, signal), { firstByteMs: settings.times.firstByteMs, signal });
  if (!made.ok) throw socketError(path, "speaks neither tokenfwd RPC nor p11-kit RPC");
  const { opened, version } = made;
  const { client } = opened;
  const { rv } = await client.call("C_Initialize", initializeArgs(), localContext(settings.client, signal));
  if (signal.aborted || rv !== CKR.CKR_OK) opened.abandon();
  signal.throwIfAborted();
  if (rv !== CKR.CKR_OK) throw socketError(path, `is a p11-kit server that refuses us (${rvName(rv)})`);
  return stockLink(path, version, opened, settings);
}
