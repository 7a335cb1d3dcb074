/*
 * Serves one stream until it ends: waits for its first byte, gives it to the wire that this byte names, counts what passes,
 * holds back who asks and does not read, and sees that nobody keeps a place by silence. It knows no call and no token.
 */
import type { Duplex } from "node:stream";
import type { StreamTap } from "../wire/trace/records.js";

/** What both wires have in common (wire/p11kit/server.ts, wire/rpc/server.ts). */
export interface WireServer {
  push(chunk: Buffer): void;
  end(): void;
  readonly pendingBytes: number;
  /** Resolves after end() or a violation, when nothing of this client runs any more. */
  readonly idle: Promise<void>;
  onDrain?: () => void;
}

/** The stream's side, as a wire's server uses it. */
export interface StreamLine {
  write(bytes: Buffer): void;
  /** A promise holds a server back until the peer reads again or has gone. */
  full(): Promise<void> | null;
  /**
   * The peer has broken the protocol: reports it and closes the stream, at once or, with `afterWrites`, when what has been
   * written has gone out.
   */
  violate(reason: string, options?: { readonly afterWrites: boolean }): void;
  /** The client has shown that it speaks this wire: it is not too late any more. */
  greeted(): void;
}

export interface StreamServerOptions {
  readonly stream: Duplex;
  /** Called once, with the first byte, which is then pushed with the rest. */
  serve(firstByte: number, line: StreamLine): WireServer;
  /** Bytes so far, written to by this function alone. */
  readonly counters: { bytesIn: number; bytesOut: number };
  /** Called at most once. The reason is printable. */
  onViolation(reason: string): void;
  /** Until the first byte, and until `greeted`. */
  readonly greetingTimeoutMs: number;
  /** How long a client that has ended its side may take to read the answers it has coming. */
  readonly lingerMs: number;
  /** Sees what passes, and when it has ended. */
  readonly tap?: StreamTap | undefined;
}

/** Above this much unanswered input a stream is no longer read. */
const MAX_PENDING_BYTES = 2 * 1024 * 1024;

/** Serves a stream that is open, and owns it. Resolves when it has closed and its server is idle; never rejects. */
export function serveStream(options: StreamServerOptions): Promise<void> {
  const { stream, counters, lingerMs, greetingTimeoutMs, tap } = options;
  let server: WireServer | null = null;
  let violated = false;

  const lingering = (): NodeJS.Timeout => setTimeout(() => stream.destroy(), lingerMs);
  const line: StreamLine = {
    write(bytes) {
      counters.bytesOut += bytes.length;
      if (!stream.writable) return;
      stream.write(bytes);
      tap?.bytes("server", bytes);
    },
    full: () => (stream.writableNeedDrain && !stream.destroyed ? drained(stream) : null),
    violate(reason, { afterWrites } = { afterWrites: false }) {
      if (violated) return;
      violated = true;
      clearTimeout(late);
      options.onViolation(reason);
      if (!afterWrites || !stream.writable) {
        stream.destroy();
        return;
      }
      late = lingering();
      stream.end(() => stream.destroy());
    },
    greeted: () => clearTimeout(late),
  };
  let late = setTimeout(
    () => line.violate(`no ${server === null ? "version byte" : "hello"} in ${greetingTimeoutMs / 1000} s`),
    greetingTimeoutMs,
  );

  stream.on("data", (chunk: Buffer) => {
    if (chunk.length === 0) return;
    counters.bytesIn += chunk.length;
    // Before anybody overwrites a PIN in it.
    tap?.bytes("client", chunk);
    if (server === null) {
      const chosen = options.serve(chunk.readUInt8(0), line);
      server = chosen;
      chosen.onDrain = () => {
        if (stream.isPaused() && chosen.pendingBytes <= MAX_PENDING_BYTES) stream.resume();
      };
      void chosen.idle.then(() => {
        if (!violated) stream.end();
      });
    }
    server.push(chunk);
    if (server.pendingBytes > MAX_PENDING_BYTES) stream.pause();
  });
  let hungUp = false;
  stream.once("end", () => {
    hungUp = true;
    clearTimeout(late);
    if (server === null) stream.end();
    server?.end();
    // A peer that has said all it will, and reads nothing of what waits for it, does not keep its place for that.
    late = lingering();
  });
  return new Promise<void>((resolve) => stream.once("close", resolve)).then(async () => {
    clearTimeout(late);
    tap?.closed(hungUp ? "client" : violated ? "server" : null);
    server?.end();
    await server?.idle;
  });
}

/** Resolves when the stream takes bytes again, or never will. */
function drained(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      stream.off("drain", settle);
      stream.off("close", settle);
      resolve();
    };
    stream.once("drain", settle);
    stream.once("close", settle);
  });
}
