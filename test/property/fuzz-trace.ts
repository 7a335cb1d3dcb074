/*
 * The decoder of a trace under the fuzzer of both wires: one direction of a conversation damaged, the other as it was. Whatever comes,
 * nothing is thrown, every record is JSON with the fields that all have, and a PIN in what is not broken is nowhere.
 */

import { MAGIC } from "../../src/wire/rpc/messages.js";
import { createTraceDecoder } from "../../src/wire/trace/decoder.js";
import type { TraceRecord } from "../../src/wire/trace/records.js";
import { rpcVectors, stockConversations } from "../support/traces.js";
import type { FuzzTarget } from "./fuzz-wires.js";

/** What an untouched direction says, and the other one that is to be damaged. */
interface Half {
  readonly damaged: "client" | "server";
  readonly stream: Buffer;
  readonly other: Buffer;
}

const ordered = (record: TraceRecord): boolean => typeof record.t === "number" && record.c === 1 && typeof record.kind === "string";

/** A trace of both protocols, of both directions. */
export function traceTarget(): FuzzTarget {
  const halves: Half[] = [];
  const add = (client: Buffer, server: Buffer): void => {
    halves.push({ damaged: "client", stream: client, other: server }, { damaged: "server", stream: server, other: client });
  };
  for (const { passed } of stockConversations()) {
    const side = (from: string) => Buffer.concat(passed.filter((one) => one.from === from).map(({ bytes }) => bytes));
    add(side("client"), side("server"));
  }
  const frames = (file: string) => rpcVectors<{ hex: string }>(file).map(({ hex }) => Buffer.from(hex, "hex"));
  add(Buffer.concat([MAGIC, ...frames("requests.json")]), Buffer.concat([MAGIC, ...frames("answers.json")]));
  return {
    name: "the decoder of a trace",
    streams: halves.map(({ stream }) => stream),
    async feed(pieces, index) {
      const { damaged, other } = halves[index] ?? { damaged: "client", other: Buffer.alloc(0) };
      const kept = new Set<string>();
      const decoder = createTraceDecoder({
        data: index % 4 === 0,
        onRecord(record) {
          if (!ordered(record)) throw new Error("a record without what all have");
          const text = JSON.stringify(record);
          if (/[\u0000-\u001f\u007f-\u009f\u202e]/.test(text)) throw new Error("a record with what is not printable");
          if (record.kind === "note" && record.level === "lost") throw new Error(record.text);
          kept.add(record.kind);
        },
      });
      decoder.open(1, { kind: "fuzz" }, 0);
      let at = 1;
      if (damaged === "server") decoder.bytes(1, "client", Buffer.from(other), at);
      for (const piece of pieces) decoder.bytes(1, damaged, piece, ++at);
      if (damaged === "client") decoder.bytes(1, "server", Buffer.from(other), ++at);
      decoder.close(1, null, ++at);
      if (!kept.has("close")) throw new Error("the connection was never closed");
    },
  };
}
