/*
 * What an origin may do: three profiles over the classes of the calls table. `sign` is the default everywhere.
 * Fail closed: a class that a profile does not name is refused. It must never depend on anything a client says of itself.
 */
import { CKA } from "../cryptoki/attributes.js";
import { type CallClass, callByName } from "../cryptoki/calls.js";
import { CKF, CKO, CKU } from "../cryptoki/constants.js";
import { CKM, mechanismName } from "../cryptoki/mechanisms.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallContext, Cryptoki, Mechanism } from "../cryptoki/types.js";
import type { ObjectView } from "../token/objects.js";

export type Profile = "read" | "sign" | "full";

export interface PolicyOptions {
  readonly profile: Profile;
  /** Lets CKM_RSA_X_509 through under `read` and `sign`: raw RSA is decryption by another name. */
  readonly allowRawRsa: boolean;
  /** Told of each refusal, with a reason fit for a person. */
  readonly onRefused: (refusal: Refusal, ctx: CallContext) => void;
}

/** What was not done: the call, the CK_RV that it got, and why. */
export interface Refusal {
  readonly call: string;
  readonly rv: number;
  readonly why: string;
}

const LOOK: readonly CallClass[] = ["information", "session", "object", "verify", "digest", "random"];
const ALLOWED: Readonly<Record<Profile, ReadonlySet<CallClass>>> = {
  read: new Set(LOOK),
  sign: new Set<CallClass>([...LOOK, "login", "sign"]),
  full: new Set<CallClass>([...LOOK, "login", "sign", "encrypt", "decrypt", "mutation", "state"]),
};

/** Attributes that are the secret of a private or secret key, whatever CKA_SENSITIVE says. */
const KEY_SECRETS: ReadonlySet<number> = new Set([
  CKA.CKA_VALUE,
  CKA.CKA_PRIVATE_EXPONENT,
  CKA.CKA_PRIME_1,
  CKA.CKA_PRIME_2,
  CKA.CKA_EXPONENT_1,
  CKA.CKA_EXPONENT_2,
  CKA.CKA_COEFFICIENT,
]);

/** Classes whose values are made to be shown, also where a token shows the object only after a log-in. */
const SHOWN: ReadonlySet<bigint> = new Set([CKO.CKO_CERTIFICATE, CKO.CKO_PUBLIC_KEY, CKO.CKO_DOMAIN_PARAMETERS]);

/** True when a client under this profile may read, or search by, this attribute of this object. */
export function mayReadAttribute(profile: Profile, object: ObjectView, type: number): boolean {
  if (profile === "full" || !KEY_SECRETS.has(type) || SHOWN.has(object.class)) return true;
  return object.class === CKO.CKO_DATA && !object.private;
}

/** Why a call is refused, or null. */
function refusal(options: PolicyOptions, name: Parameters<typeof callByName>[0], args: AnyArgs): { rv: number; why: string } | null {
  const { profile } = options;
  const call = callByName(name);
  if (!ALLOWED[profile].has(call.class)) {
    const rv = call.class === "mutation" ? CKR.CKR_TOKEN_WRITE_PROTECTED : CKR.CKR_FUNCTION_NOT_SUPPORTED;
    return { rv, why: `the profile ${profile} does not allow it` };
  }
  if (call.class === "login" && args["userType"] === CKU.CKU_SO && profile !== "full") {
    return { rv: CKR.CKR_TOKEN_WRITE_PROTECTED, why: `the profile ${profile} does not allow the security officer's log-in` };
  }
  const type = (args["mechanism"] as Mechanism | null | undefined)?.type ?? args["mechanismType"];
  if (!mechanismAllowed(options, Number(type ?? -1))) {
    return { rv: CKR.CKR_MECHANISM_INVALID, why: `${mechanismName(Number(type))} needs --allow-raw-rsa` };
  }
  return null;
}

function mechanismAllowed({ profile, allowRawRsa }: PolicyOptions, type: number): boolean {
  return profile === "full" || allowRawRsa || type !== CKM.CKM_RSA_X_509;
}

/** Lists only what may be used, and answers with the caller's room as C_GetMechanismList does. */
async function mechanismList(inner: Cryptoki, options: PolicyOptions, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
  const all = await inner.call("C_GetMechanismList", { slot: args["slot"] as bigint, room: MAX_MECHANISMS }, ctx);
  if (all.rv !== CKR.CKR_OK || !Array.isArray(all.mechanisms)) return all as AnyResult;
  const mechanisms = (all.mechanisms as readonly bigint[]).filter((type) => mechanismAllowed(options, Number(type)));
  const room = args["room"] as number | null;
  if (room === null) return { rv: CKR.CKR_OK, mechanisms: mechanisms.length };
  return mechanisms.length > room ? { rv: CKR.CKR_BUFFER_TOO_SMALL, mechanisms: mechanisms.length } : { rv: CKR.CKR_OK, mechanisms };
}
const MAX_MECHANISMS = 4_096;

/** A Cryptoki that lets through what the profile allows and answers the rest with a CK_RV (design, section 8). */
export function createPolicy(inner: Cryptoki, options: PolicyOptions): Cryptoki {
  return {
    events: inner.events,
    close: () => inner.close(),
    call(name, args, ctx) {
      const refused = refusal(options, name, args as AnyArgs);
      if (refused !== null) {
        options.onRefused({ call: name, ...refused }, ctx);
        return Promise.resolve({ rv: refused.rv } as never);
      }
      if (name === "C_GetMechanismList") return mechanismList(inner, options, args as AnyArgs, ctx) as Promise<never>;
      const answering = inner.call(name, args, ctx);
      if (name !== "C_GetTokenInfo" || options.profile === "full") return answering;
      return answering.then((answer) => {
        const flags = (answer as AnyResult)["flags"];
        return typeof flags === "bigint" ? { ...answer, flags: flags | CKF.CKF_WRITE_PROTECTED } : answer;
      });
    },
  };
}
