/*
 * An ssh2 channel as a well-behaved Duplex. ssh2's own never calls back a write to a closed channel, leaves `destroyed`
 * unset and keeps a dead pipe waiting (reference: ssh2 1.17.0 Channel.js); nothing else of ours may touch a raw channel's data.
 */
import { Duplex } from "node:stream";
import type { Channel } from "ssh2";

/** Wraps a channel; it owns it from now on. Destroying the stream closes the channel. */
export function channelStream(channel: Channel): Duplex {
  let closed = false;
  let ended = false;
  let waiting: ((error?: Error | null) => void) | null = null;
  const settle = (error?: Error | null) => {
    const callback = waiting;
    waiting = null;
    callback?.(error);
  };
  const stream = new Duplex({
    allowHalfOpen: true,
    read() {
      channel.resume();
    },
    write(chunk: Buffer, _encoding, callback) {
      if (closed) return callback(gone());
      waiting = callback;
      channel.write(chunk, (error) => settle(error));
    },
    final(callback) {
      if (!closed) channel.end();
      callback();
    },
    destroy(error, callback) {
      if (!closed) {
        channel.close();
        // ssh2 tells of the close only after its data was read.
        channel.resume();
      }
      settle(error ?? gone());
      callback(error);
    },
  });
  channel.on("data", (chunk: Buffer) => {
    if (!stream.destroyed && !stream.push(chunk)) channel.pause();
  });
  const end = () => {
    if (!ended) stream.push(null);
    ended = true;
  };
  channel.on("end", end);
  channel.on("error", (error: Error) => stream.destroy(error));
  channel.on("close", () => {
    closed = true;
    settle(gone());
    end();
    // Bytes that are still to be read come first, then the end, then the close.
    if (!stream.writableEnded) stream.end();
    if (stream.readableEnded) stream.destroy();
    else stream.once("end", () => stream.destroy());
  });
  channel.pause();
  return stream;
}

function gone(): Error {
  return Object.assign(new Error("the channel is closed"), { code: "EPIPE" });
}
