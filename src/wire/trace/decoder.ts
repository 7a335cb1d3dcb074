/*
 * From the bytes of traced connections to records: finds out which protocol a connection speaks and reads it. Bytes come in any
 * pieces, with the time at which they passed; what is made of them does not depend on the pieces. It does no I/O, answers nothing,
 * and a fault in it is a record. It must never keep a byte beyond the frame that it belongs to.
 */
import { MAGIC } from "../rpc/messages.js";
import type { WireTrace } from "./conversation.js";
import { roundMs } from "./ledger.js";
import { createP11KitTrace } from "./p11kit.js";
import type { Direction, ShownFields, TraceRecord } from "./records.js";
import { createRpcTrace } from "./rpc.js";
import type { HeldBudget } from "./splitter.js";

export interface TraceDecoderOptions {
  /** Byte strings that are no PIN are shown as hex, and not as their length alone. */
  readonly data: boolean;
  /** Each record, from within the call that completed it. */
  onRecord(record: TraceRecord): void;
}

/** Times are milliseconds on one clock, from the beginning of the trace on. */
export interface TraceDecoder {
  /** A connection, by a number that is used once. */
  open(c: number, origin: ShownFields, at: number): void;
  /** The next bytes of a direction; they are not kept. Unknown connections are ignored. */
  bytes(c: number, from: Direction, bytes: Buffer, at: number): void;
  /** Bytes passed that nobody kept: what follows on this connection can no longer be read. */
  lost(c: number, at: number): void;
  close(c: number, by: Direction | null, at: number): void;
  /** Closes what is open. */
  end(at: number): void;
}

/** What unfinished frames of all connections may hold together. */
const MAX_HELD_BYTES = 32 * 1024 * 1024;
/** The highest first byte that can be a version of p11-kit's. */
const MAX_P11KIT_VERSION = 0x0f;

interface Connection {
  readonly openedAt: number;
  wire: WireTrace | null;
  /** Nothing more of it can be read. */
  dead: boolean;
  last: Direction | null;
  trips: number;
  sent: number;
  received: number;
}

export function createTraceDecoder({ data, onRecord }: TraceDecoderOptions): TraceDecoder {
  const connections = new Map<number, Connection>();
  const budget: HeldBudget = { left: MAX_HELD_BYTES };

  const note = (c: number, level: "broken" | "lost", from: Direction | null, text: string, at: number): void =>
    onRecord({ kind: "note", t: roundMs(at), c, level, from, text });

  function start(c: number, connection: Connection, from: Direction, first: number, at: number): void {
    const options = { c, data, budget, emit: onRecord };
    if (from === "client" && first === MAGIC[0]) connection.wire = createRpcTrace(options);
    else if (from === "client" && first <= MAX_P11KIT_VERSION) connection.wire = createP11KitTrace(options);
    else {
      connection.dead = true;
      onRecord({ kind: "protocol", t: roundMs(at), c, protocol: "unknown" });
      const what = from === "server" ? "it spoke before the client did" : `its first byte is 0x${first.toString(16).padStart(2, "0")}`;
      note(c, "broken", from, `no protocol that is known: ${what}`, at);
    }
  }

  /** A fault of ours in one connection is not one of the others. */
  function guarded(c: number, connection: Connection, at: number, work: () => void): void {
    try {
      work();
    } catch (thrown) {
      connection.dead = true;
      // Its text may be anybody's; its kind is ours.
      const kind = thrown instanceof Error ? thrown.name : "error";
      note(c, "lost", null, `the decoder failed (${kind}): nothing more of this connection is read`, at);
    }
  }

  function close(c: number, by: Direction | null, at: number): void {
    const connection = connections.get(c);
    if (connection === undefined) return;
    connections.delete(c);
    const { wire, openedAt } = connection;
    if (wire !== null) guarded(c, connection, at, () => wire.end(at));
    onRecord({
      kind: "close",
      t: roundMs(at),
      c,
      by,
      calls: wire?.ledger.calls ?? 0,
      unanswered: wire?.ledger.unanswered ?? 0,
      trips: connection.trips,
      sent: connection.sent - (wire?.withheldBytes ?? 0),
      received: connection.received,
      ms: roundMs(at - openedAt),
      serverMs: roundMs(wire?.ledger.serverMs(at) ?? 0),
    });
  }

  return {
    open(c, origin, at) {
      connections.set(c, { openedAt: at, wire: null, dead: false, last: null, trips: 0, sent: 0, received: 0 });
      onRecord({ kind: "open", t: roundMs(at), c, origin });
    },
    bytes(c, from, bytes, at) {
      const connection = connections.get(c);
      if (connection === undefined || bytes.length === 0) return;
      if (from === "client") connection.sent += bytes.length;
      else {
        connection.received += bytes.length;
        if (connection.last === "client") connection.trips += 1;
      }
      connection.last = from;
      if (connection.dead) return;
      guarded(c, connection, at, () => {
        if (connection.wire === null) start(c, connection, from, bytes.readUInt8(0), at);
        connection.wire?.[from](bytes, at);
      });
    },
    lost(c, at) {
      const connection = connections.get(c);
      if (connection === undefined) return;
      connection.dead = true;
      note(c, "lost", null, "bytes passed that were not kept: nothing more of this connection is read", at);
    },
    close,
    end(at) {
      for (const c of [...connections.keys()]) close(c, null, at);
    },
  };
}
