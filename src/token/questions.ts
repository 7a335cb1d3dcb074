/*
 * Questions to the workstation that several clients wait for: each is put once, whoever waits for it, and ends when
 * nobody waits any more. It must never give a client that joins later the end of a question that was given up.
 */

export interface Questions<T> {
  /**
   * The answer to the question of this key; `put` puts it where it is not open, and must end when its signal aborts.
   * A caller whose own signal aborts gets `gone` at once.
   */
  ask(key: string, signal: AbortSignal, put: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

interface Open<T> {
  readonly answer: Promise<T>;
  readonly abort: AbortController;
  waiting: number;
}

/** No question open yet. `gone` is what a caller gets that has given up. */
export function createQuestions<T>(gone: T): Questions<T> {
  const open = new Map<string, Open<T>>();
  return {
    async ask(key, signal, put) {
      if (signal.aborted) return gone;
      let question = open.get(key);
      if (question === undefined) {
        const abort = new AbortController();
        question = { answer: put(abort.signal), abort, waiting: 0 };
        open.set(key, question);
      }
      const mine = question;
      mine.waiting += 1;
      let leave = (): void => {};
      const left = new Promise<T>((resolve) => {
        leave = () => resolve(gone);
      });
      signal.addEventListener("abort", leave, { once: true });
      try {
        return await Promise.race([mine.answer, left]);
      } finally {
        signal.removeEventListener("abort", leave);
        mine.waiting -= 1;
        // Answered, or given up by the last who waited: either way the next one asks anew.
        if (!signal.aborted || mine.waiting === 0) {
          if (open.get(key) === mine) open.delete(key);
        }
        if (mine.waiting === 0) mine.abort.abort();
      }
    },
  };
}
