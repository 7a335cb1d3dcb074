/*
 * Joins the bastion's streams to a server's socket, byte for byte. It must never change a byte, and never read more of a stream than
 * the options of its first frame, which is where a connect finds its nonce.
 */
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { createFirstOptionsReader } from "../wire/p11kit/first-options.js";
import type { Direction, StreamTap } from "../wire/trace/records.js";

export interface StockStreamsOptions {
  readonly path: string;
  /** Default 64, as many as our agent serves of one bastion: each is a process of p11-kit's here. */
  readonly maxStreams?: number;
  /** Makes what sees the bytes of a stream as they pass. */
  readonly tap?: (() => StreamTap) | undefined;
}

export interface StockStreams {
  /** Joins a stream to the server until either ends, and owns it. Throws when it serves as many as it may. */
  attach(stream: Duplex): { onFirstFrameOptions(listener: (options: Buffer) => void): void };
  /** Ends all of them. */
  close(): void;
}

const MAX_STREAMS = 64;
const LINGER_MS = 1_000;

/** No stream yet. */
export function createStockStreams({ path, maxStreams = MAX_STREAMS, tap }: StockStreamsOptions): StockStreams {
  const streams = new Set<Duplex>();
  return {
    attach(stream) {
      if (streams.size >= maxStreams) throw new Error("too many clients");
      streams.add(stream);
      stream.once("close", () => streams.delete(stream));
      return join(stream, path, tap?.());
    },
    close() {
      for (const stream of streams) stream.destroy();
    },
  };
}

/** Both directions as they come; either side's failure ends both. */
function join(
  stream: Duplex,
  path: string,
  tap: StreamTap | undefined,
): { onFirstFrameOptions(listener: (options: Buffer) => void): void } {
  const socket = connect({ path, allowHalfOpen: true });
  let listener: (options: Buffer) => void = () => {};
  const reader = createFirstOptionsReader((options) => listener(options));
  const look = (chunk: Buffer): void => {
    if (!reader.push(chunk)) stream.off("data", look);
  };
  stream.on("data", look);
  if (tap !== undefined) {
    stream.on("data", (chunk: Buffer) => tap.bytes("client", chunk));
    socket.on("data", (chunk: Buffer) => tap.bytes("server", chunk));
    let first: Direction | null = null;
    stream.once("end", () => {
      first ??= "client";
    });
    socket.once("end", () => {
      first ??= "server";
    });
    stream.once("close", () => tap.closed(first));
  }
  stream.on("error", () => socket.destroy());
  stream.once("close", () => socket.destroy());
  socket.on("error", () => stream.destroy());
  // The server's end is the session's: what it said last goes out, and nothing more is taken.
  socket.once("end", () => {
    stream.end();
    setTimeout(() => stream.destroy(), LINGER_MS).unref();
  });
  socket.once("close", () => {
    if (!stream.writableEnded) stream.destroy();
  });
  stream.pipe(socket);
  socket.pipe(stream, { end: false });
  return {
    onFirstFrameOptions(given) {
      listener = given;
    },
  };
}
