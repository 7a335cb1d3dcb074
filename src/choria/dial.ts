/*
 * Opens a TCP connection to a broker from this machine, for whoever is not handed another way to dial. It must never leave a
 * socket behind that nobody owns.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { printable } from "../base/printable.js";
import { hostPort } from "./loopback.js";

const CONNECT_MS = 5_000;

const WHY: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there",
  ENOTFOUND: "this machine knows no such host",
  EAI_AGAIN: "the name cannot be looked up now",
  EHOSTUNREACH: "there is no way to that host",
  ENETUNREACH: "there is no way to that network",
  ETIMEDOUT: "it does not answer",
  ECONNRESET: "it hung up",
};

/** A `Dial` (types.ts) by TCP; at most 5 s. Rejects with an Error that says why in words, or with the signal's reason. */
export async function dialTcp(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  const late = AbortSignal.timeout(CONNECT_MS);
  const socket = connect({ host, port, noDelay: true, keepAlive: true });
  // Stays for the socket's life: after an error comes "close", which is what its owner listens to.
  socket.on("error", () => {});
  try {
    await once(socket, "connect", { signal: AbortSignal.any([signal, late]) });
    return socket;
  } catch (thrown) {
    socket.destroy();
    signal.throwIfAborted();
    const { code, message } = thrown as NodeJS.ErrnoException;
    const why = late.aborted ? "it does not answer" : (WHY[code ?? ""] ?? printable(code ?? message, 100));
    throw new Error(`${printable(hostPort({ host, port }), 300)} cannot be reached: ${why}`, { cause: thrown });
  }
}
