/*
 * Which objects `--key` exposes: one private key with its certificate and public key, or everything, or nothing.
 * A key that is not exposed does not exist for a client. Fail closed: what cannot be told apart is not shown.
 */
import { TokenfwdError } from "../base/errors.js";
import { CKO } from "../cryptoki/constants.js";
import { matchesObject, matchesToken, namesObject, parseSelector } from "../cryptoki/uri.js";
import type { ObjectView } from "../token/objects.js";
import type { Inspection, PublicObject } from "./inspect.js";

export interface Exposure {
  /** The slots of the tokens in play. */
  readonly slots: ReadonlySet<bigint>;
  readonly object: (object: ObjectView) => boolean;
}

const COMPANIONS: ReadonlySet<bigint> = new Set([CKO.CKO_PRIVATE_KEY, CKO.CKO_PUBLIC_KEY, CKO.CKO_CERTIFICATE]);

/**
 * The exposure of `key`: `all`, null for none, or a pkcs11: URI of exactly one key.
 * Throws E_USAGE for a URI that is not one, E_KEY_NOT_FOUND and E_KEY_CHOICE.
 */
export function exposeKey(key: string | null, inspection: Inspection): Exposure {
  const slots = new Set(inspection.tokens.map((token) => token.slot));
  if (key === "all") return { slots, object: () => true };
  if (key === null) return { slots, object: () => false };
  const uri = parseSelector(key);
  if (!namesObject(uri))
    throw new TokenfwdError("E_USAGE", "--key names no object", { hint: "add id=, object= or type= to the URI, or say --key all" });
  const tokens = inspection.tokens.filter((token) => matchesToken(uri, token));
  if (tokens.length === 0) throw new TokenfwdError("E_KEY_NOT_FOUND", "the token that --key names is not there");

  const onTokens = [...inspection.certificates, ...inspection.publicKeys].filter((object) =>
    tokens.some((token) => token.slot === object.slot),
  );
  // type= says which of the three was named; the key is meant in any case.
  const anyType = { ...uri, path: new Map([...uri.path].filter(([name]) => name !== "type")) };
  const matching = onTokens.filter((object) => matchesObject(anyType, { class: object.class, label: object.labelBytes, id: object.id }));
  const keyOf = (object: PublicObject) => `${object.slot}/${object.id.length > 0 ? object.id.toString("hex") : `label ${object.label}`}`;
  const keys = new Map(matching.map((object) => [keyOf(object), object]));
  if (keys.size > 1) {
    throw new TokenfwdError("E_KEY_CHOICE", "several keys match --key", {
      hint: `choose one: ${[...new Set(matching.map((object) => object.uri))].join("  ")}`,
      reason: "several-keys",
    });
  }
  const chosen = [...keys.values()][0];
  if (chosen === undefined)
    return unseenKey(
      key,
      tokens.map((token) => token.slot),
      onTokens.map((object) => object.uri),
    );
  const slot = chosen.slot;
  const same = (object: ObjectView) => (chosen.id.length > 0 ? object.id.equals(chosen.id) : object.label.equals(chosen.labelBytes));
  return { slots: new Set([slot]), object: (object) => object.slot === slot && COMPANIONS.has(object.class) && same(object) };
}

/** A key with no public object: only its full name can be trusted, for nothing can be compared before a log-in. */
function unseenKey(key: string, slots: readonly bigint[], others: readonly string[]): Exposure {
  const uri = parseSelector(key);
  const slot = slots[0];
  if (uri.path.get("type")?.toString() !== "private" || slot === undefined || slots.length > 1) {
    const hint =
      others.length > 0
        ? `the keys there are: ${[...new Set(others)].join("  ")}`
        : "the token shows no public object; name the private key with type=private and its token";
    throw new TokenfwdError("E_KEY_NOT_FOUND", "no key matches --key", { hint });
  }
  const wanted = (object: ObjectView) => matchesObject(uri, object);
  return { slots: new Set([slot]), object: (object) => object.slot === slot && object.class === CKO.CKO_PRIVATE_KEY && wanted(object) };
}
