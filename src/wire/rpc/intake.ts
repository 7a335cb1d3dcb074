/*
 * Frames on their way in: each is taken up at once, or while the client does not read what it has coming, kept until the stream
 * has drained, in order. Counts what is held for frames that are not done with. It must never keep one after `end`, nor let one
 * client's frames keep all others waiting.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
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

/** Taken up in one turn of the event loop; a client that sends more at once shares the loop with the others. */
const MAX_IN_A_TURN = 256;

const costOf = (frame: Frame): number => frame.size + FRAME_COST_BYTES;

/** An intake that holds nothing. */
export function createIntake({ full, take }: IntakeOptions): Intake {
  let queue: Frame[] = [];
  /** So many of the queue have been taken up: they leave it together, for to shift a long array moves it whole each time. */
  let taken = 0;
  let waiting = false;
  let pendingBytes = 0;
  let takenThisTurn = 0;

  /** What the next frame has to wait for, if anything. */
  function hold(): Promise<void> | null {
    const wait = full();
    if (wait !== null) return wait;
    if (takenThisTurn >= MAX_IN_A_TURN) return nextTurn();
    if (takenThisTurn === 0) setImmediate(() => (takenThisTurn = 0));
    takenThisTurn++;
    return null;
  }

  async function drain(first: Promise<void>): Promise<void> {
    waiting = true;
    let wait: Promise<void> | null = first;
    for (;;) {
      if (wait !== null) await wait;
      const frame = queue[taken];
      if (frame === undefined) break;
      wait = hold();
      if (wait !== null) continue;
      taken++;
      if (taken === MAX_IN_A_TURN) {
        queue.splice(0, taken);
        taken = 0;
      }
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
      const wait = waiting ? null : hold();
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
