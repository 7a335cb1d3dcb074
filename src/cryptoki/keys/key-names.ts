/*
 * Which key a request names: by URI, through any of the key's objects, or by the fingerprint of its public key. It must
 * never pick one of several.
 */
import { TokenfwdError } from "../../base/errors.js";
import { CKO } from "../constants.js";
import { matchesObject, matchesToken, namesObject, type Pkcs11Uri, parseSelector } from "../uri.js";
import { KeyError } from "./key-error.js";
import { spkiFingerprint } from "./spki.js";
import type { KeyRecord, TokenRecord } from "./token-reader.js";
import type { KeySignRequest } from "./types.js";

const NOT_KEYS: ReadonlySet<string> = new Set(["data", "secret-key"]);

/** A key's name, parsed once. */
export interface KeyName {
  /** For a cache: two requests with the same text mean the same key. */
  readonly text: string;
  /** True when the token could be the named key's. */
  onToken(token: TokenRecord): boolean;
  matches(token: TokenRecord, key: KeyRecord): boolean;
}

function uriName(text: string): KeyName {
  let uri: Pkcs11Uri;
  try {
    uri = parseSelector(text);
  } catch (thrown) {
    if (!(thrown instanceof TokenfwdError)) throw thrown;
    throw new KeyError("bad-input", thrown.message, { hint: thrown.hint ?? null });
  }
  if (!namesObject(uri)) {
    throw new KeyError("bad-input", "the URI names a token and no key", {
      hint: "add id= or object= to the URI, as `tokenfwd keys` prints it",
    });
  }
  if (NOT_KEYS.has(uri.path.get("type")?.toString() ?? "")) throw new KeyError("bad-input", "the URI names something that cannot sign");
  // type= says which of the key's objects was named; the private key is meant in any case.
  const anyType = { ...uri, path: new Map([...uri.path].filter(([name]) => name !== "type")) };
  return {
    text: `uri ${text}`,
    onToken: (token) => matchesToken(uri, token.entry),
    matches: (token, { entry, labels }) =>
      matchesToken(uri, token.entry) &&
      [entry.label, ...labels].some((label) => matchesObject(anyType, { class: CKO.CKO_PRIVATE_KEY, label, id: entry.id })),
  };
}

function spkiName(fingerprint: Buffer): KeyName {
  if (fingerprint.length !== 32) throw new KeyError("bad-input", "the fingerprint of a key is the 32 bytes of a SHA-256");
  return {
    text: `spki ${fingerprint.toString("hex")}`,
    onToken: () => true,
    matches: (_token, { entry }) => entry.spki !== null && spkiFingerprint(entry.spki).equals(fingerprint),
  };
}

/** The name in a request. Throws KeyError `bad-input`; a query attribute's value is never echoed. */
export function parseKeyName(key: KeySignRequest["key"]): KeyName {
  if (key.uri !== null && key.spki === null) return uriName(key.uri);
  if (key.spki !== null && key.uri === null) return spkiName(key.spki);
  throw new KeyError("bad-input", "a key is named by a URI or by the fingerprint of its public key, one of the two");
}

/** The text under which a parsed name may be kept, without parsing it. */
export function nameText(key: KeySignRequest["key"]): string {
  return key.uri !== null ? `uri ${key.uri}` : `spki ${key.spki?.toString("hex") ?? ""}`;
}

/** The only key of that name, null where there is none. Throws KeyError `ambiguous` with the URIs to choose from. */
export function findNamed(name: KeyName, tokens: readonly TokenRecord[]): { readonly token: TokenRecord; readonly key: KeyRecord } | null {
  const found = tokens.flatMap((token) => token.keys.filter((key) => name.matches(token, key)).map((key) => ({ token, key })));
  if (found.length > 1) {
    throw new KeyError("ambiguous", "several keys match", { hint: `choose one: ${found.map(({ key }) => key.entry.uri).join("  ")}` });
  }
  return found[0] ?? null;
}

/** The error for a name that nothing answers to. */
export function notFound(name: KeyName, tokens: readonly TokenRecord[]): KeyError {
  const there = tokens.flatMap((token) => token.keys.map((key) => key.entry.uri));
  if (tokens.length === 0) return new KeyError("not-found", "there is no token", { hint: "is it plugged in at the workstation?" });
  const message = tokens.some((token) => name.onToken(token)) ? "no key matches" : "no token matches";
  return new KeyError("not-found", message, {
    hint: there.length > 0 ? `the keys there are: ${there.join("  ")}` : "the tokens show no key; name it by a URI with token= and id=",
  });
}
