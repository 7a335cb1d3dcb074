/*
 * What stands between a client's own PIN and the token (`client` mode): tries are made one at a time, wrong ones are
 * counted by destination, and the last one needs a yes at the workstation. It never sees a PIN.
 */
import { CKF, CKU } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyResult, CallContext } from "../cryptoki/types.js";
import type { TokenHost } from "./host/host.js";
import { destinationKey, whoAsks } from "./origins.js";
import { createQuestions } from "./questions.js";

/** A no is not asked for again for this long, whichever client of the destination comes next. */
const REFUSAL_MEMORY_MS = 10_000;
/** This many wrong PINs from a destination, across its clients, close its log-in. */
const MAX_WRONG_PINS = 3;

/** One use of a PIN that a client sent. */
export interface PinTry {
  readonly slot: bigint;
  /** Whose PIN it is: CKU_SO, or the user's. */
  readonly userType: bigint;
  /** False where no try of the token is spent, so that its last one needs no yes. Asked when the turn has come. */
  readonly spends: () => boolean;
  readonly run: () => Promise<AnyResult>;
}

export interface PinGate {
  /** The answer of `run`, or CKR_FUNCTION_REJECTED without running it. */
  pass(pinTry: PinTry, ctx: CallContext): Promise<AnyResult>;
  /** Runs when nobody's PIN is being tried on this slot. */
  inTurn<T>(slot: bigint, run: () => Promise<T>): Promise<T>;
}

export function createPinGate(host: TokenHost): PinGate {
  const wrong = new Map<string, number>();
  /** Until when a no to opening a destination's log-in again holds. */
  const refusedUntilMs = new Map<string, number>();
  const lines = new Map<bigint, Promise<unknown>>();
  const questions = createQuestions(false);

  function inTurn<T>(slot: bigint, run: () => Promise<T>): Promise<T> {
    const turn = (lines.get(slot) ?? Promise.resolve()).then(run);
    lines.set(
      slot,
      turn.catch(() => undefined),
    );
    return turn;
  }

  async function isLastTry({ slot, userType }: PinTry, ctx: CallContext): Promise<boolean> {
    const { flags = 0n } = await host.cryptoki.call("C_GetTokenInfo", { slot }, ctx);
    return (flags & (userType === CKU.CKU_SO ? CKF.CKF_SO_PIN_FINAL_TRY : CKF.CKF_USER_PIN_FINAL_TRY)) !== 0n;
  }

  return {
    inTurn,
    async pass(pinTry, ctx) {
      const { slot } = pinTry;
      const key = `${slot}/${destinationKey(ctx.origin)}`;
      const who = whoAsks(ctx.origin);
      const closed = () => (wrong.get(key) ?? 0) >= MAX_WRONG_PINS;
      const yes = (about: string, text: string) =>
        questions.ask(`${key}/${about}`, ctx.signal, (signal) => host.confirm(text, { ...ctx, signal }));
      let lastTryAllowed = false;
      for (;;) {
        if (closed()) {
          const refused = (refusedUntilMs.get(key) ?? 0) > Date.now();
          if (refused || !(await yes("closed", `${who} has sent ${MAX_WRONG_PINS} wrong PINs; let it try again?`))) {
            if (!refused) refusedUntilMs.set(key, Date.now() + REFUSAL_MEMORY_MS);
            return { rv: CKR.CKR_FUNCTION_REJECTED };
          }
          wrong.delete(key);
        }
        // Questions are put outside of the line: one destination's must not hold up another's log-in.
        const outcome = await inTurn(slot, async () => {
          if (closed()) return null;
          if (pinTry.spends() && !lastTryAllowed && (await isLastTry(pinTry, ctx))) return "last-try";
          const answer = await pinTry.run();
          if (answer.rv === CKR.CKR_PIN_INCORRECT) wrong.set(key, (wrong.get(key) ?? 0) + 1);
          return answer;
        });
        if (outcome === null) continue;
        if (outcome !== "last-try") return outcome;
        if (!(await yes("last try", `one PIN try is left, a wrong PIN locks the token; let ${who} spend it?`)))
          return { rv: CKR.CKR_FUNCTION_REJECTED };
        lastTryAllowed = true;
      }
    },
  };
}
