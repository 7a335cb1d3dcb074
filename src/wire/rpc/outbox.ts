/*
 * Frames on their way out: what becomes ready in one turn of the event loop leaves in one write, and a single frame leaves
 * in the turn in which it became ready. It must never hold a frame into the next turn.
 */

/** A larger batch is written in several writes, so that joining frames never copies much. */
const MAX_BATCH_BYTES = 64 * 1024;

export interface Outbox {
  /** Takes a frame, which becomes the outbox's. */
  add(frame: Buffer): void;
  /** Writes what waits at once. */
  flush(): void;
  /** Drops what waits, and everything that comes later. */
  discard(): void;
}

/** An empty outbox; `write` is called from within the turn of `add`, or from within `flush`. */
export function createOutbox(write: (bytes: Buffer) => void): Outbox {
  let waiting: Buffer[] = [];
  let scheduled = false;
  let discarded = false;

  function flush(): void {
    if (waiting.length === 0) return;
    const frames = waiting;
    waiting = [];
    const [first] = frames;
    if (frames.length === 1 && first !== undefined) {
      write(first);
      return;
    }
    let batch: Buffer[] = [];
    let bytes = 0;
    for (const frame of frames) {
      if (bytes > 0 && bytes + frame.length > MAX_BATCH_BYTES) {
        write(batch.length === 1 ? (batch[0] as Buffer) : Buffer.concat(batch, bytes));
        batch = [];
        bytes = 0;
      }
      batch.push(frame);
      bytes += frame.length;
    }
    write(batch.length === 1 ? (batch[0] as Buffer) : Buffer.concat(batch, bytes));
  }

  return {
    add(frame) {
      if (discarded) return;
      waiting.push(frame);
      if (scheduled) return;
      scheduled = true;
      // After the microtasks of this turn, in which further frames may become ready, and before the loop goes on.
      process.nextTick(() => {
        scheduled = false;
        flush();
      });
    },
    flush,
    discard() {
      discarded = true;
      waiting = [];
    },
  };
}
