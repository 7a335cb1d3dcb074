/*
 * Just enough of a p11-kit RPC server to stand behind a forward in tests: it answers the version byte, C_Initialize and
 * C_GetSlotList, and reports the options of the first frame. Independent of our own codec, so that it can disagree with it.
 */
import type { Duplex } from "node:stream";

export interface FakeP11Server {
  attach(stream: Duplex): { onFirstFrameOptions(listener: (options: Buffer) => void): void };
  /** Streams attached so far. */
  readonly streams: readonly Duplex[];
  /** Options of each first frame seen, as text. */
  readonly options: readonly string[];
}

/** What makes it misbehave. */
export interface FakeP11Options {
  readonly slots?: readonly bigint[];
  /** Accept and never answer. */
  readonly silent?: boolean;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function reply(call: number, id: number, signature: string, body: Buffer): Buffer {
  const message = Buffer.concat([u32(id), u32(signature.length), Buffer.from(signature), body]);
  return Buffer.concat([u32(call), u32(0), u32(message.length), message]);
}

/** A server for streams; call `attach` with each. */
export function createFakeP11Server(options: FakeP11Options = {}): FakeP11Server {
  const slots = options.slots ?? [0n];
  const streams: Duplex[] = [];
  const seen: string[] = [];
  return {
    streams,
    options: seen,
    attach(stream) {
      streams.push(stream);
      const listeners: ((options: Buffer) => void)[] = [];
      let pending = Buffer.alloc(0);
      let greeted = false;
      let first = true;
      stream.on("error", () => {});
      stream.on("end", () => stream.end());
      stream.on("data", (chunk: Buffer) => {
        if (options.silent === true) return;
        pending = Buffer.concat([pending, chunk]);
        if (!greeted && pending.length > 0) {
          greeted = true;
          stream.write(Buffer.from([Math.min(pending[0] ?? 0, 2)]));
          pending = pending.subarray(1);
        }
        while (greeted && pending.length >= 12) {
          const optionsLength = pending.readUInt32BE(4);
          const length = 12 + optionsLength + pending.readUInt32BE(8);
          if (pending.length < length) return;
          const frame = pending.subarray(0, length);
          pending = pending.subarray(length);
          if (first) {
            first = false;
            const bytes = Buffer.from(frame.subarray(12, 12 + optionsLength));
            seen.push(bytes.toString("latin1"));
            for (const listener of listeners) listener(bytes);
          }
          const call = frame.readUInt32BE(0);
          const id = frame.readUInt32BE(12 + optionsLength);
          if (id === 4) {
            const list = slots.map((slot) => {
              const bytes = Buffer.alloc(8);
              bytes.writeBigUInt64BE(slot);
              return bytes;
            });
            // The request ends with the room: 0 asks for the count alone.
            const wantsList = frame.readUInt32BE(length - 4) > 0;
            const body = wantsList ? [Buffer.from([1]), u32(slots.length), ...list] : [Buffer.from([0]), u32(slots.length)];
            stream.write(reply(call, id, "au", Buffer.concat(body)));
          } else {
            stream.write(reply(call, id, "", Buffer.alloc(0)));
          }
        }
      });
      return { onFirstFrameOptions: (listener) => void listeners.push(listener) };
    },
  };
}
