/*
 * What both wires are for the decoder of a trace: a reader of each direction that writes records into a ledger. Types only, and
 * the limits within which a frame is looked at.
 */
import type { Ledger } from "./ledger.js";
import type { HeldBudget } from "./splitter.js";

export interface WireTraceOptions {
  readonly c: number;
  /** Byte strings that are no PIN are shown too. */
  readonly data: boolean;
  readonly budget: HeldBudget;
  readonly emit: Ledger<never>["emit"];
}

/** The reading of one connection in one of the protocols. */
export interface WireTrace {
  client(chunk: Buffer, at: number): void;
  server(chunk: Buffer, at: number): void;
  /** Both directions have ended: writes down what remained open. */
  end(at: number): void;
  /** What was asked so far, and how long for. */
  readonly ledger: Pick<Ledger<unknown>, "calls" | "unanswered" | "serverMs">;
  /** Bytes of PINs so far, and of frames whose length would tell that of one. */
  readonly withheldBytes: number;
}

/** Longer frames are passed over; our own peers send none above 1 MiB, and answers of stock ones are shorter. */
export const MAX_TRACED_FRAME_BYTES = 4 * 1024 * 1024;

/** An error's own words where they are ours, which never hold a byte of a message. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error && OUR_ERRORS.has(thrown.name) ? thrown.message : "it cannot be read";
}
const OUR_ERRORS: ReadonlySet<string> = new Set(["DecodeError", "Refusal", "RpcError"]);
