/*
 * One line per private-key use and per refusal, at most ten a second for each client; the rest is counted and said in one
 * line when the second is over. It must never drop a use without saying that it did.
 */

export interface UseLines {
  /** A line about something `client` did; `text` is asked where there is room for it. */
  add(client: string, text: () => string): void;
  /** Says what is still counted, and stops the timers. */
  flush(): void;
}

/** Lines a second that one client may fill. */
const MAX_LINES_PER_SECOND = 10;
const WINDOW_MS = 1000;

interface Window {
  printed: number;
  held: number;
  readonly timer: NodeJS.Timeout;
}

/** A limiter in front of `print`; `what` is what the lines are about, in the plural, where they are not uses. */
export function createUseLines(print: (text: string) => void, what: string | null = null): UseLines {
  const windows = new Map<string, Window>();
  const end = (client: string): void => {
    const window = windows.get(client);
    if (window === undefined) return;
    windows.delete(client);
    clearTimeout(window.timer);
    if (window.held > 0) print(`and ${window.held} more${what === null ? "" : ` ${what}`} by ${client} within a second`);
  };
  return {
    add(client, text) {
      let window = windows.get(client);
      if (window === undefined) {
        const timer = setTimeout(() => end(client), WINDOW_MS);
        timer.unref();
        window = { printed: 0, held: 0, timer };
        windows.set(client, window);
      }
      if (window.printed < MAX_LINES_PER_SECOND) {
        window.printed++;
        print(text());
      } else {
        window.held++;
      }
    },
    flush() {
      for (const client of [...windows.keys()]) end(client);
    },
  };
}
