/*
 * Listens on a TCP port of this machine's own loopback, for signer and relay. It must never listen on an address that another
 * machine could reach, and keeps no connection after its end.
 */
import { createServer, isIP, isIPv6, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";

export interface LoopbackOptions {
  /** `127.0.0.1`, another address of 127.0.0.0/8, or `::1`; no name, for a name can mean anything. */
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Connections above this are closed at once; default 512. */
  readonly maxConnections?: number;
}

export interface Loopback {
  readonly host: string;
  readonly port: number;
  /** Stops listening and ends every connection. Safe to call twice. */
  close(): Promise<void>;
}

/** Whether it is an address, and one that only this machine can reach. */
export function isLoopback(host: string): boolean {
  return isIP(host) !== 0 && (host.startsWith("127.") || host === "::1");
}

/** `127.0.0.1:4222`, or `[::1]:4222`. */
export function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Listens and hands over each connection once; whoever takes it owns it, with both of its halves, until `close` destroys it.
 * Rejects with E_USAGE for an address that is not loopback, and with E_CHORIA when the port cannot be had.
 */
export async function listenLoopback(options: LoopbackOptions, connected: (stream: Duplex) => void): Promise<Loopback> {
  const { host, port, maxConnections = 512 } = options;
  if (!isLoopback(host)) {
    throw new TokenfwdError("E_USAGE", `${printable(host, 100)} is no loopback address`, {
      hint: "others could reach it; name 127.0.0.1 or ::1, as an address and not by name",
    });
  }
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    // Whoever takes it listens too; one that breaks in between is an end like any other.
    socket.on("error", () => socket.destroy());
    socket.on("close", () => sockets.delete(socket));
    connected(socket);
  });
  server.maxConnections = maxConnections;
  const bound = await listening(server, host, port);
  let closing: Promise<void> | undefined;
  return {
    host,
    port: bound,
    close() {
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      });
      return closing;
    },
  };
}

function listening(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const why = WHY[cause.code ?? ""] ?? `(${printable(cause.code ?? cause.message, 100)})`;
      reject(
        new TokenfwdError("E_CHORIA", `cannot listen on ${hostPort({ host, port })}: ${why}`, {
          hint: "leave the port out, and a free one is taken",
          cause,
        }),
      );
    });
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address();
      resolve(address !== null && typeof address === "object" ? address.port : port);
    });
  });
}

const WHY: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program listens there",
  EACCES: "only root may take this port",
  EADDRNOTAVAIL: "this machine does not have the address",
};
