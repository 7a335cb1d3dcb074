/*
 * One request that an agent is carrying out: its signal and its deadline. A timer is made only where the asker gave a deadline, a
 * signal only for a handler that asks for it, and one that was not aborted serves the next request: making one and listening to
 * it anew costs more than the rest of a request. It must never be handed on before its handler has ended.
 */
import type { RpcOperation } from "./server-types.js";

/** An operation as the server sees it. */
export interface Operation extends RpcOperation {
  readonly id: number;
  /** True from the answer on, whichever it is: a later one is dropped. */
  answered: boolean;
  /** Aborts the signal. Safe to call twice. */
  abort(): void;
  /** Stops the timer. */
  settle(): void;
  /** The handler has ended: nothing of it may listen to the signal any more. */
  end(): void;
}

/** The operations of one connection. */
export interface Operations {
  /** One whose time begins now; `onDeadline` is called when it is over, unless it was settled before. */
  create(id: number, deadlineMs: number | null, onDeadline: (operation: Operation) => void): Operation;
}

/** No operation yet. */
export function createOperations(): Operations {
  // As many as there have been operations at once: the server limits those.
  const spare: AbortController[] = [];
  return { create: (id, deadlineMs, onDeadline) => new RunningOperation(id, deadlineMs, onDeadline, spare) };
}

class RunningOperation implements Operation {
  readonly id: number;
  readonly deadlineMs: number | null;
  answered = false;
  #aborted = false;
  #controller: AbortController | null = null;
  readonly #timer: NodeJS.Timeout | null;
  readonly #spare: AbortController[];

  constructor(id: number, deadlineMs: number | null, onDeadline: (operation: Operation) => void, spare: AbortController[]) {
    this.id = id;
    this.#spare = spare;
    this.deadlineMs = deadlineMs;
    this.#timer = deadlineMs === null ? null : setTimeout(() => onDeadline(this), deadlineMs);
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = this.#spare.pop() ?? new AbortController();
      if (this.#aborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  abort(): void {
    this.#aborted = true;
    this.#controller?.abort();
  }

  settle(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  end(): void {
    if (this.#controller === null || this.#aborted) return;
    this.#spare.push(this.#controller);
    this.#controller = null;
  }
}
