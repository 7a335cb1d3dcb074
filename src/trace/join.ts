/*
 * Joins a client's stream to the server's, byte for byte, and shows what passes to a tap. Bytes are written on before they are shown,
 * a side that does not read holds the other back, and each side's end is the other's. It must never change, delay or keep a byte.
 */
import type { Duplex } from "node:stream";
import type { Direction, StreamTap } from "../wire/trace/records.js";

/** How long a side may take to end when the other has gone. */
const LINGER_MS = 10_000;

/** Joins two open streams with half-open ends, and owns both. Resolves when both have closed; never rejects. */
export function joinTapped(client: Duplex, server: Duplex, tap: StreamTap, lingerMs = LINGER_MS): Promise<void> {
  let first: Direction | null = null;
  const pass = (from: Direction, here: Duplex, there: Duplex): Promise<void> => {
    here.on("data", (chunk: Buffer) => {
      if (there.writable && !there.write(chunk)) here.pause();
      tap.bytes(from, chunk);
    });
    there.on("drain", () => here.resume());
    here.once("end", () => {
      first ??= from;
      there.end();
    });
    here.on("error", () => there.destroy());
    return new Promise((resolve) => {
      here.once("close", () => {
        first ??= from;
        // What it said last still goes out; whoever does not end then is ended.
        there.end();
        const late = setTimeout(() => there.destroy(), lingerMs);
        there.once("close", () => clearTimeout(late));
        if (there.closed) clearTimeout(late);
        // Nobody is left to read what comes from there.
        there.resume();
        resolve();
      });
    });
  };
  return Promise.all([pass("client", client, server), pass("server", server, client)]).then(() => tap.closed(first));
}
