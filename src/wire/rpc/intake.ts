/*
 * Frames on their way in: each is taken up at once, or while the client does not read what it has coming, kept until the stream
 * has drained, in order. Counts what is held for frames that are not done with. It must never keep one after `end`.
 */
import type { Frame } from "./frame.js";

export interface IntakeOptions {
  /** A promise while the stream is full, which resolves when it drains and when it closes, and never rejects. */
  full(): Promise<void> | null;
  take(frame: Frame): void;
}

export interface Intake {
  /** Of frames that were added and are not settled, each with what it costs to hold it. */
  readonly pendingBytes: number;
  add(frame: Frame): void;
  /** A frame that was taken is done with. */
  settle(frame: Frame): void;
  /** Overwrites and drops what was not taken up: it may hold a PIN. Nothing may be added after that. */
  end(): void;
}

/** Added to a frame's bytes: what it takes to hold it, which for the smallest is most of it. */
const FRAME_COST_BYTES = 256;

const costOf = (frame: Frame): number => frame.size + FRAME_COST_BYTES;

/** An intake that holds nothing. */
export function createIntake({ full, take }: IntakeOptions): Intake {
  let queue: Frame[] = [];
  /** Of the queue: those are done with. To shift a long array moves it whole each time. */
  let taken = 0;
  let waiting = false;
  let pendingBytes = 0;

  async function drain(first: Promise<void>): Promise<void> {
    waiting = true;
    let wait: Promise<void> | null = first;
    for (;;) {
      if (wait !== null) await wait;
      const frame = queue[taken];
      if (frame === undefined) break;
      wait = full();
      if (wait !== null) continue;
      taken++;
      take(frame);
    }
    queue = [];
    taken = 0;
    waiting = false;
  }

  return {
    get pendingBytes() {
      return pendingBytes;
    },
    add(frame) {
      pendingBytes += costOf(frame);
      const wait = waiting ? null : full();
      if (!waiting && wait === null) {
        take(frame);
        return;
      }
      queue.push(frame);
      if (wait !== null) void drain(wait);
    },
    settle(frame) {
      pendingBytes -= costOf(frame);
    },
    end() {
      const left = queue.slice(taken);
      queue = [];
      taken = 0;
      for (const frame of left) {
        frame.wipe();
        pendingBytes -= costOf(frame);
      }
    },
  };
}
