/*
 * The private pipe by which one process of a module lends another the PIN that its token has accepted. Both ends lie in hosts: the
 * agent makes the pipe, hands both ends on and never has the one that a PIN could be read from. One PIN is lent at a time and comes
 * back with what the token said of it; where that is not heard, it counts as refused. It must never lend a PIN for another
 * token than the one that accepted it, and a borrower must never keep one.
 */
import type { Duplex } from "node:stream";
import { createFrameDecoder, decodeBody, encodeFrame } from "./frames.js";
import type { TokenKey } from "./pin-store.js";

type ToLender =
  | { readonly kind: "borrow"; readonly slot: bigint; readonly identity: string }
  | { readonly kind: "outcome"; readonly refused: boolean };
interface Lent {
  readonly pin: Buffer | null;
}

/** Lends the PIN of this token, or null: `use` answers whether the token has refused it, and never rejects. */
export type Lend = (token: TokenKey, use: (pin: Buffer | null) => Promise<boolean>) => Promise<void>;

/** Longer than a log-in may take before its process is ended. */
const OUTCOME_MS = 120_000;

/** Serves one borrower until its end of the pipe is gone. It owns the link. */
export function lendOver(link: Duplex, lend: Lend): void {
  const decoder = createFrameDecoder();
  let settle: ((refused: boolean) => void) | null = null;

  function outcome(refused: boolean): void {
    settle?.(refused);
    settle = null;
  }

  /** Gives the PIN out, and waits for what the token says. */
  function use(pin: Buffer | null): Promise<boolean> {
    // Gone before its turn came: nobody has been given anything.
    if (link.destroyed) return Promise.resolve(false);
    const frame = encodeFrame({ pin } satisfies Lent, true);
    link.write(frame, () => frame.fill(0));
    if (pin === null) return Promise.resolve(false);
    return new Promise((resolve) => {
      const timer = setTimeout(() => outcome(true), OUTCOME_MS);
      settle = (refused) => {
        clearTimeout(timer);
        resolve(refused);
      };
    });
  }

  function receive(message: ToLender): void {
    if (message.kind === "outcome") outcome(message.refused);
    else void lend({ slot: message.slot, identity: message.identity }, use).catch(() => link.destroy());
  }

  link.on("data", (chunk: Buffer) => {
    try {
      for (const body of decoder.push(chunk)) receive(decodeBody<ToLender>(body));
    } catch {
      // Memory that a module has overwritten: nothing that such a process says is heard.
      link.destroy();
    }
  });
  link.on("error", () => {});
  link.on("close", () => outcome(true));
}

export interface PinBorrower {
  /**
   * Runs `use` with the PIN that the first host saw this token accept, or with null where there is none; the PIN is wiped when it
   * returns. It answers true when the token has refused the PIN.
   */
  borrow(token: TokenKey, use: (pin: Buffer | null) => boolean): Promise<void>;
}

/** The other end. One `borrow` at a time. It owns the link. */
export function createPinBorrower(link: Duplex): PinBorrower {
  const decoder = createFrameDecoder();
  let take: ((pin: Buffer | null) => void) | null = null;
  let isGone = false;

  function lent(pin: Buffer | null): void {
    const taking = take;
    take = null;
    if (taking === null) pin?.fill(0);
    else taking(pin);
  }

  link.on("data", (chunk: Buffer) => {
    for (const body of decoder.push(chunk)) {
      lent(decodeBody<Lent>(body).pin);
      body.fill(0);
    }
  });
  link.on("error", () => {});
  link.on("close", () => {
    isGone = true;
    lent(null);
  });

  return {
    borrow: (token, use) =>
      new Promise((resolve) => {
        take = (pin) => {
          const refused = use(pin);
          if (pin !== null && !isGone) link.write(encodeFrame({ kind: "outcome", refused } satisfies ToLender));
          resolve();
        };
        if (isGone) lent(null);
        else link.write(encodeFrame({ kind: "borrow", ...token } satisfies ToLender));
      }),
  };
}
