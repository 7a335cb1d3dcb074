/*
 * Tells who listens on a Unix socket, by a p11-kit conversation whose first frame carries a question in its options:
 * our agent answers with its pid, a stock server ignores it. It must never send more than the handshake,
 * and what it learns is the peer's own word: good for a message, never for a decision about trust.
 */
import { connect } from "node:net";
import { localContext } from "../cryptoki/local-context.js";
import { createP11KitClient } from "../wire/p11kit/client.js";
import { initializeArgs } from "../wire/p11kit/requests.js";

/** The options of the first frame that ask "who are you". */
export const PING_OPTIONS = Buffer.from("tokenfwd-ping");
const ANSWER = /^tokenfwd pid=([1-9][0-9]{0,9})$/;

/**
 * What lives on a socket: `stale` nobody listens, `tokenfwd` an agent of ours, `p11-kit` another server of the protocol,
 * `other` somebody accepts and says nothing we know, within the time given.
 */
export type PingAnswer =
  | { readonly kind: "stale" }
  | { readonly kind: "tokenfwd"; readonly pid: number }
  | { readonly kind: "p11-kit" }
  | { readonly kind: "other"; readonly why: string };

/** The reply options of our agent to the options of a first frame; null when they do not ask. */
export function answerPing(options: Buffer): Buffer | null {
  return options.equals(PING_OPTIONS) ? Buffer.from(`tokenfwd pid=${process.pid}`) : null;
}

/** Asks the socket at `path` who it is. Never rejects; at most `timeoutMs` (default 3,000). */
export function pingSocket(path: string, timeoutMs = 3000): Promise<PingAnswer> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const abort = new AbortController();
    let spoke = false;
    const client = createP11KitClient({
      write: (bytes) => void socket.write(bytes),
      end: () => void socket.end(),
      frameOptions: PING_OPTIONS,
    });
    const silent = (why: string): PingAnswer => (spoke ? { kind: "p11-kit" } : { kind: "other", why });
    const settle = (answer: PingAnswer): void => {
      clearTimeout(timer);
      resolve(answer);
      abort.abort();
      socket.destroy();
      client.closed();
      void client.close();
    };
    const timer = setTimeout(() => settle(silent("it accepts and does not answer")), timeoutMs);
    client.negotiated.then(
      () => {
        spoke = true;
      },
      () => {},
    );
    socket.on("error", (error: NodeJS.ErrnoException) => {
      const nobody = error.code === "ECONNREFUSED" || error.code === "ENOENT";
      settle(nobody ? { kind: "stale" } : silent(`it cannot be reached (${error.code ?? "unknown reason"})`));
    });
    socket.on("data", (chunk) => client.push(chunk));
    socket.on("close", () => settle(silent("it closes the connection without an answer")));
    socket.once("connect", () => {
      client.call("C_Initialize", initializeArgs(), localContext("ping", abort.signal)).then(
        () => {
          const named = ANSWER.exec(client.lastReplyOptions?.toString("latin1") ?? "");
          settle(named ? { kind: "tokenfwd", pid: Number(named[1]) } : silent("it does not speak p11-kit"));
        },
        () => settle(silent("it does not speak p11-kit")),
      );
    });
  });
}
