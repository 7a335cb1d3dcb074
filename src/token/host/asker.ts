/*
 * What a question to the person at the workstation is: an interface with two implementations, the terminal and
 * pinentry. Texts that are shown have passed base/printable; an answer is a SecretBytes that its taker disposes of.
 */
import type { SecretBytes } from "../../base/secret.js";

export interface PinQuestion {
  /** Label of the token. */
  readonly token: string;
  /** Who wants to use it. */
  readonly who: string;
  /** What went wrong with the last answer, and how many tries are left, one sentence each. */
  readonly notices: readonly string[];
}

/** `unavailable`: this way of asking does not work here after all. */
export type PinAnswer =
  | { readonly kind: "given"; readonly pin: SecretBytes }
  | { readonly kind: "cancelled" }
  | { readonly kind: "unavailable" };
export type ConfirmAnswer = "yes" | "no" | "cancelled" | "unavailable";

export interface Asker {
  /** Asks for a PIN. An abort of the signal ends the question with `cancelled` and leaves no trace of it. */
  pin(question: PinQuestion, signal: AbortSignal): Promise<PinAnswer>;
  /** Asks yes or no; only an explicit yes is one. */
  confirm(question: string, signal: AbortSignal): Promise<ConfirmAnswer>;
  /** How `stty` restores the terminal that a question changes; null where none is. */
  readonly terminalState: string | null;
}
