/*
 * The calls of the line, made on the module one after another; and the C_SignInit that is likely to come next, made ahead when an
 * answer has left and nothing waits, for with many a software token it takes longer than C_Sign does. What was made ahead is
 * used for that very C_SignInit alone. It must never be told of as a success that the module has taken back since: see docs/adr/0010.
 */
import type { CallName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import { keptMechanism, sameMechanism } from "../../cryptoki/same-mechanism.js";
import type { AnyResult, CallArgs, CallResult } from "../../cryptoki/types.js";
import type { TokenDriver } from "../driver/pkcs11js.js";
import type { FromHost, HostStep, ToHost } from "./messages.js";
import type { Presence } from "./presence.js";

export interface Steps {
  /** Makes a call. `isAlone`: nothing waits behind it. Throws what the driver throws. */
  make(call: Extract<ToHost, { kind: "call" }>, isAlone: boolean): Extract<FromHost, { kind: "result" }>;
  /** Makes ahead what the last answer has promised, and answers whether it has promised any; to be called when that has left. */
  goAhead(): boolean;
  /** All sessions have ended. */
  released(): void;
}

/** A token that takes longer than this for a signature, as all of hardware do, has nothing to gain. */
const QUICK_MS = 5;

type SignInit = CallArgs<"C_SignInit">;

/** What C_Sign answers when no signature has begun that it could finish: none was made, and C_SignInit would have failed as well. */
const NOTHING_BEGUN: ReadonlySet<number> = new Set([
  CKR.CKR_SESSION_HANDLE_INVALID,
  CKR.CKR_KEY_HANDLE_INVALID,
  CKR.CKR_OBJECT_HANDLE_INVALID,
]);

const asSignInit = ({ name, args }: HostStep): SignInit | null => (name === "C_SignInit" ? (args as SignInit) : null);

/** A copy that outlives the message it came in. */
const kept = ({ session, key, mechanism }: SignInit): SignInit => ({
  session,
  key,
  mechanism: mechanism === null ? null : keptMechanism(mechanism),
});

function isSame(a: SignInit, b: SignInit): boolean {
  return a.key === b.key && a.mechanism !== null && b.mechanism !== null && sameMechanism(a.mechanism, b.mechanism);
}

/** `now`: milliseconds of a clock that only goes forward. */
export function createSteps(
  driver: Pick<TokenDriver, "call">,
  presence: Pick<Presence, "observe">,
  now: () => number = () => performance.now(),
): Steps {
  /** Begun ahead, by session. */
  const ahead = new Map<bigint, SignInit>();
  let next: SignInit | null = null;

  /** What the answer says about tokens is told first, so that whoever acts on the answer knows it. */
  function step({ name, args }: HostStep): CallResult {
    const result: CallResult = driver.call(name, args as CallArgs<CallName>);
    presence.observe(name, args, result);
    return result;
  }

  /** True when this call is a C_SignInit that was made ahead; it is not ahead any more then. */
  function takes(one: HostStep): boolean {
    const init = asSignInit(one);
    const begun = init === null ? undefined : ahead.get(init.session);
    if (init === null || begun === undefined || !isSame(init, begun)) return false;
    ahead.delete(init.session);
    return true;
  }

  /** A call of its own. A number that a session had may be another's. */
  function single(one: HostStep): CallResult {
    if (takes(one)) return { rv: CKR.CKR_OK };
    const result = step(one);
    const { session } = (one.name === "C_OpenSession" ? result : one.args) as { readonly session?: bigint };
    if (session !== undefined && (one.name === "C_OpenSession" || one.name === "C_CloseSession")) ahead.delete(session);
    return result;
  }

  /** Two calls, the second when the first has succeeded. */
  function pair(first: HostStep, then: HostStep): { readonly result: CallResult; readonly begun: boolean } {
    if (takes(first)) {
      const result = step(then);
      if (NOTHING_BEGUN.has(result.rv)) return { result, begun: false };
      if (result.rv !== CKR.CKR_OPERATION_NOT_INITIALIZED) return { result, begun: true };
      // A log-out has ended it: begun anew, as if it had not been ahead.
    }
    const init = step(first);
    return init.rv === CKR.CKR_OK ? { result: step(then), begun: true } : { result: init, begun: false };
  }

  return {
    make({ id, name, args, first, again }, isAlone) {
      if (first === undefined) return { kind: "result", id, result: single({ name, args }) };
      const began = now();
      const { result, begun } = pair(first, { name, args });
      const isMade = begun && name === "C_Sign" && result.rv === CKR.CKR_OK && Buffer.isBuffer((result as AnyResult)["output"]);
      const init = again === true && isAlone && isMade ? asSignInit(first) : null;
      if (init === null || now() - began > QUICK_MS) return { kind: "result", id, result, begun };
      next = kept(init);
      return { kind: "result", id, result, begun, ahead: true };
    },
    goAhead() {
      const init = next;
      next = null;
      if (init === null) return false;
      // One that fails is made again when it is asked for, and tells its reason then.
      if (step({ name: "C_SignInit", args: init }).rv === CKR.CKR_OK) ahead.set(init.session, init);
      return true;
    },
    released: () => ahead.clear(),
  };
}
