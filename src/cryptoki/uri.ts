/*
 * PKCS#11 URIs (RFC 7512): parse, print, match. It must never log or echo a query attribute: pin-value is a secret.
 */
import { TokenfwdError } from "../base/errors.js";
import { CKO } from "./constants.js";

/** A parsed URI. Path attributes are decoded bytes; an attribute that is absent matches everything (RFC 7512, 2.3 and 2.5). */
export interface Pkcs11Uri {
  readonly path: ReadonlyMap<string, Buffer>;
  readonly query: ReadonlyMap<string, Buffer>;
}

/** What a token says of itself, without padding. */
export interface TokenIdentity {
  readonly label: string;
  readonly manufacturer: string;
  readonly model: string;
  readonly serial: string;
}

/** What a URI can say of an object. */
export interface ObjectIdentity {
  readonly class: bigint;
  readonly label: Buffer;
  readonly id: Buffer;
}

const PATH_ATTRIBUTES = new Set([
  "token",
  "manufacturer",
  "serial",
  "model",
  "library-manufacturer",
  "library-version",
  "library-description",
  "object",
  "type",
  "id",
  "slot-manufacturer",
  "slot-description",
  "slot-id",
]);
const OBJECT_ATTRIBUTES = new Set(["object", "type", "id"]);
const TYPES: ReadonlyMap<string, bigint> = new Map([
  ["public", CKO.CKO_PUBLIC_KEY],
  ["private", CKO.CKO_PRIVATE_KEY],
  ["cert", CKO.CKO_CERTIFICATE],
  ["secret-key", CKO.CKO_SECRET_KEY],
  ["data", CKO.CKO_DATA],
]);
const NAME = /^[A-Za-z0-9_-]+$/;
/** pk11-pchar and pk11-qchar of RFC 7512, 2.3, without percent-encoding; `&` and the query's `/ ? |` are told apart by the split. */
const VALUE = /^(?:[A-Za-z0-9._~:[\]@!$'()*+,=&/?|-]|%[0-9A-Fa-f]{2})*$/;
const UNRESERVED = /[A-Za-z0-9._~-]/;
const MAX_LENGTH = 4096;

function bad(reason: string): TokenfwdError {
  return new TokenfwdError("E_USAGE", `not a PKCS#11 URI: ${reason}`, {
    hint: "write it as RFC 7512 does, for example pkcs11:token=work;id=%01;type=private",
  });
}

function decode(value: string): Buffer {
  return Buffer.from(
    value.replace(/%([0-9A-Fa-f]{2})|[^%]/g, (all, hex: string | undefined) =>
      hex === undefined ? Buffer.from(all).toString("latin1") : String.fromCharCode(Number.parseInt(hex, 16)),
    ),
    "latin1",
  );
}

function attributes(text: string, separator: string, known: ReadonlySet<string> | null): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  if (text === "") return found;
  for (const part of text.split(separator)) {
    const at = part.indexOf("=");
    const name = at < 0 ? part : part.slice(0, at);
    if (at < 0 || !NAME.test(name)) throw bad("an attribute is not of the form name=value");
    if (!VALUE.test(part.slice(at + 1))) throw bad(`the value of ${name} has a character that must be percent-encoded`);
    if (found.has(name)) throw bad(`${name} stands twice`);
    // A vendor attribute may narrow what is meant; whoever does not know it must not widen it.
    if (known !== null && !known.has(name)) throw bad(`the path attribute ${name} is not known`);
    found.set(name, decode(part.slice(at + 1)));
  }
  return found;
}

/**
 * Parses `pkcs11:...`. Unknown path attributes are refused; query attributes are kept for the caller to refuse.
 * Throws E_USAGE, whose text never holds a value.
 */
export function parseUri(text: string): Pkcs11Uri {
  if (text.length > MAX_LENGTH) throw bad(`longer than ${MAX_LENGTH} characters`);
  if (!/^pkcs11:/i.test(text)) throw bad("it does not begin with pkcs11:");
  const rest = text.slice("pkcs11:".length);
  const mark = rest.indexOf("?");
  const path = attributes(mark < 0 ? rest : rest.slice(0, mark), ";", PATH_ATTRIBUTES);
  const query = mark < 0 ? new Map<string, Buffer>() : attributes(rest.slice(mark + 1), "&", null);
  const type = path.get("type");
  if (type !== undefined && !TYPES.has(type.toString())) throw bad("type is one of public, private, cert, secret-key, data");
  return { path, query };
}

function encode(bytes: Buffer, all: boolean): string {
  let out = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    out += !all && UNRESERVED.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** The URI of a token, from what it says of itself; empty fields are left out. */
export function tokenUri(token: TokenIdentity): string {
  const parts = (["model", "manufacturer", "serial"] as const)
    .filter((name) => token[name] !== "")
    .map((name) => `${name}=${encode(Buffer.from(token[name]), false)}`);
  return `pkcs11:${[...parts, `token=${encode(Buffer.from(token.label), false)}`].join(";")}`;
}

/** The URI of an object on a token: id as percent-encoded bytes (RFC 7512, 2.3), label as `object`, and its type. */
export function objectUri(token: TokenIdentity, object: ObjectIdentity): string {
  const type = [...TYPES].find(([, value]) => value === object.class)?.[0];
  const parts = [
    ...(object.id.length > 0 ? [`id=${encode(object.id, true)}`] : []),
    ...(object.label.length > 0 ? [`object=${encode(object.label, false)}`] : []),
    ...(type === undefined ? [] : [`type=${type}`]),
  ];
  return [tokenUri(token), ...parts].join(";");
}

/** True when the token attributes of the URI all equal the token's. */
export function matchesToken(uri: Pkcs11Uri, token: TokenIdentity): boolean {
  const fields: Record<string, string> = { token: token.label, manufacturer: token.manufacturer, model: token.model, serial: token.serial };
  return Object.entries(fields).every(([name, value]) => uri.path.get(name)?.equals(Buffer.from(value)) ?? true);
}

/** True when the object attributes of the URI all equal the object's. A URI without any matches every object. */
export function matchesObject(uri: Pkcs11Uri, object: ObjectIdentity): boolean {
  const type = uri.path.get("type");
  return (
    (type === undefined || TYPES.get(type.toString()) === object.class) &&
    (uri.path.get("id")?.equals(object.id) ?? true) &&
    (uri.path.get("object")?.equals(object.label) ?? true)
  );
}

/** True when the URI says anything about an object, not only about a token. */
export function namesObject(uri: Pkcs11Uri): boolean {
  return [...uri.path.keys()].some((name) => OBJECT_ATTRIBUTES.has(name));
}

const SELECTABLE = new Set(["token", "manufacturer", "model", "serial", "object", "type", "id"]);

/**
 * A URI as a selector of tokens and objects: parses it and refuses what a selection cannot honour, because ignoring an
 * attribute would widen what is meant. A query attribute is refused by name, its value is never echoed. Throws E_USAGE.
 */
export function parseSelector(text: string): Pkcs11Uri {
  const uri = parseUri(text);
  const query = [...uri.query.keys()][0];
  if (query !== undefined) {
    throw new TokenfwdError("E_USAGE", `the URI carries ${query}, which is not taken from a URI`, {
      hint: query.startsWith("pin-")
        ? "leave it out; the PIN is asked for, or comes from --pin-source"
        : "leave it out; the module is named with --module",
    });
  }
  const other = [...uri.path.keys()].find((name) => !SELECTABLE.has(name));
  if (other !== undefined)
    throw new TokenfwdError("E_USAGE", `a token or key cannot be chosen by ${other}`, { hint: `choose by ${[...SELECTABLE].join(", ")}` });
  return uri;
}
