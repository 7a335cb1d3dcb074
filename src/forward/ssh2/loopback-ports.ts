/*
 * TCP ports on the server's loopback whose connections come to us. It must never take a channel for a port that we did not ask
 * for, or one that did not begin on the server itself: with GatewayPorts, sshd may listen on every address.
 */
import type { Duplex } from "node:stream";
import type { Client, ClientChannel } from "ssh2";
import type { Outcome } from "../transport.js";
import { channelStream } from "./channel-stream.js";
import type { Attempt } from "./transport.js";

const LOOPBACK = "127.0.0.1";
const FROM_THERE = new Set([LOOPBACK, "::1", "::ffff:127.0.0.1"]);

export interface LoopbackPorts {
  listen(connected: (stream: Duplex) => void): Promise<Outcome<number>>;
  unlisten(port: number): Promise<void>;
}

/** Ports of one connection; they end with it. */
export function createLoopbackPorts(client: Client, attempt: Attempt): LoopbackPorts {
  const ports = new Map<number, (stream: Duplex) => void>();
  client.on("tcp connection", (info, accept, reject) => {
    const connected = ports.get(info.destPort);
    if (connected === undefined || info.destIP !== LOOPBACK || !FROM_THERE.has(info.srcIP)) reject();
    else connected(channelStream(accept() as ClientChannel));
  });
  const forget = (port: number) => attempt<null>("listen", (done) => client.unforwardIn(LOOPBACK, port, (error) => done(error, null)));
  return {
    listen: (connected) =>
      attempt<number>(
        "listen",
        (done) => {
          client.forwardIn(LOOPBACK, 0, (error, port) => {
            // In this very moment: the first connection may come in the same packet.
            if (!error) ports.set(port, connected);
            done(error, port);
          });
        },
        (late) => {
          ports.delete(late);
          void forget(late);
        },
      ),
    async unlisten(port) {
      if (ports.delete(port)) await forget(port);
    },
  };
}
