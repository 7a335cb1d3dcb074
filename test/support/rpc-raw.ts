/*
 * A tokenfwd RPC peer that says whatever it is told to, frame by frame, for what our own client would never send.
 */
import type { Duplex } from "node:stream";
import { decodeBodyCopied, encodeFrame, type Fields } from "../../src/wire/rpc/codec.js";
import { createFrameDecoder } from "../../src/wire/rpc/frame.js";
import { DEFAULT_RPC_LIMITS, MAGIC } from "../../src/wire/rpc/messages.js";

export interface RawRpcPeer {
  /** Messages received so far, in order. */
  readonly received: readonly Fields[];
  send(...messages: readonly Fields[]): void;
  sendBytes(bytes: Buffer): void;
  /** The next answer or error with this id, also one that has come already. Rejects when the stream ends first. */
  answer(id: number | null): Promise<Fields>;
}

/** A peer on this stream, which has said its magic unless told otherwise. */
export function createRawRpcPeer(stream: Duplex, { magic = MAGIC }: { readonly magic?: Buffer } = {}): RawRpcPeer {
  const received: Fields[] = [];
  const waiting = new Set<() => void>();
  let skipped = 0;
  const wake = (): void => {
    for (const one of [...waiting]) one();
  };
  const decoder = createFrameDecoder({
    maxFrameBytes: DEFAULT_RPC_LIMITS.maxFrameBytes,
    onFrame: (frame) => received.push(decodeBodyCopied(frame.body)),
  });
  stream.on("data", (chunk: Buffer) => {
    const from = Math.min(chunk.length, MAGIC.length - skipped);
    skipped += from;
    if (chunk.length > from) decoder.push(chunk.subarray(from));
    wake();
  });
  stream.once("close", wake);
  stream.write(magic);
  return {
    received,
    send: (...messages) => void stream.write(Buffer.concat(messages.map((message) => Buffer.from(encodeFrame(message))))),
    sendBytes: (bytes) => void stream.write(bytes),
    answer: (id) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = received.find((each) => each["id"] === id && each["type"] !== "event");
          if (found === undefined && !stream.destroyed) return;
          waiting.delete(look);
          if (found === undefined) reject(new Error(`the stream ended without an answer to ${id}`));
          else resolve(found);
        };
        waiting.add(look);
        look();
      }),
  };
}
