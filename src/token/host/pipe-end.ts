/*
 * The host's end of the pipe to the agent. It is read into one piece of memory, and what is written goes out before `write`
 * returns as long as the pipe takes it: the stream is there for what it does not take. Measured for a P-256 signature of a
 * software token: a tenth of this process's time. It must never give out bytes that the next read overwrites, but to who is done
 * with them before it returns.
 */
import { writeSync } from "node:fs";
import { type ConnectOpts, Socket, type SocketConstructorOpts } from "node:net";

export interface PipeEndOptions {
  /** A connected socket of this process's. */
  readonly fd: number;
  /** What has come, in memory that is overwritten with zeros when this returns. */
  onBytes(bytes: Buffer): void;
  /** Called once or more when the other end has gone. */
  onEnd(): void;
}

export interface PipeEnd {
  /** Takes a whole frame, which becomes the pipe's. `written` is called when it has left this process, also before this returns. */
  write(frame: Buffer, written?: () => void): void;
}

const READ_BYTES = 64 * 1024;

export function createPipeEnd({ fd, onBytes, onEnd }: PipeEndOptions): PipeEnd {
  const memory = Buffer.alloc(READ_BYTES);
  const options: SocketConstructorOpts & Pick<ConnectOpts, "onread"> = {
    fd,
    readable: true,
    writable: true,
    onread: {
      buffer: memory,
      callback(length) {
        const bytes = memory.subarray(0, length);
        onBytes(bytes);
        bytes.fill(0);
        return true;
      },
    },
  };
  const stream = new Socket(options);
  stream.on("end", onEnd).on("close", onEnd).on("error", onEnd);
  // Without a listener for data nobody else would ask for the end.
  stream.resume();

  /** How much of it the pipe has taken at once. */
  function writeNow(frame: Buffer): number {
    if (stream.writableLength > 0) return 0;
    try {
      return writeSync(fd, frame);
    } catch {
      // The pipe is full, or broken: the stream waits for the one and tells of the other.
      return 0;
    }
  }

  return {
    write(frame, written) {
      const taken = writeNow(frame);
      if (taken < frame.length) stream.write(taken === 0 ? frame : frame.subarray(taken), () => written?.());
      else written?.();
    },
  };
}
