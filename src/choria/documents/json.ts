/*
 * JSON as both ends of Choria must understand it alike. Where JSON.parse and Go's decoder could read one text in two ways it is
 * refused: a name that stands twice, half of a surrogate pair, a byte order mark, bytes that are not UTF-8. It must never answer
 * a part of a document, and looks at no more bytes, values and levels than it was told.
 */
import { printable } from "../../base/printable.js";

/** A number that is not a plain integer which a double holds exactly, as it stands in the text: `1.5`, `-0`, `1e3`, 2^60. */
export class OtherNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** An object's members in the order of the text. */
export type JsonObject = ReadonlyMap<string, JsonValue>;
export type JsonValue = null | boolean | number | string | OtherNumber | readonly JsonValue[] | JsonObject;

export interface JsonLimits {
  readonly maxBytes: number;
  /** Objects and arrays within one another. */
  readonly maxDepth: number;
  /** Values in all, those in objects and arrays too. */
  readonly maxValues: number;
}

/** What kind of fault a document has; each vector in protocol/vectors/choria names one. */
export type DocumentFault =
  | "size"
  | "encoding"
  | "syntax"
  | "duplicate-key"
  | "depth"
  | "protocol"
  | "missing-key"
  | "unknown-key"
  | "type"
  | "value"
  | "body"
  | "base64"
  | "hash";

/** A document that is refused. The message is printable and ends the sentence "the document is refused: ...". */
export class DocumentError extends Error {
  readonly fault: DocumentFault;

  constructor(fault: DocumentFault, message: string) {
    super(printable(message, 400));
    this.fault = fault;
  }
}
DocumentError.prototype.name = "DocumentError";

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const STRING = /"[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*)*"/y;
const INTEGER = /^(?:0|-?[1-9][0-9]*)$/;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** Parses one JSON text and nothing after it. `what` names the text in errors. Throws DocumentError. */
export function parseJson(given: Buffer | string, limits: JsonLimits, what: string): JsonValue {
  const bytes = typeof given === "string" ? Buffer.byteLength(given) : given.length;
  if (bytes > limits.maxBytes) throw new DocumentError("size", `${what} has ${bytes} bytes, and ${limits.maxBytes} are the most`);
  return new Parser(typeof given === "string" ? given : decode(given, what), limits, what).whole();
}

function decode(bytes: Buffer, what: string): string {
  try {
    return UTF8.decode(bytes);
  } catch {
    throw new DocumentError("encoding", `${what} is not UTF-8`);
  }
}

class Parser {
  readonly #text: string;
  readonly #limits: JsonLimits;
  readonly #what: string;
  #at = 0;
  #depth = 0;
  #values = 0;

  constructor(text: string, limits: JsonLimits, what: string) {
    this.#text = text;
    this.#limits = limits;
    this.#what = what;
  }

  whole(): JsonValue {
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) throw this.#syntax();
    return value;
  }

  #syntax(): DocumentError {
    return new DocumentError("syntax", `${this.#what} is not JSON, at character ${this.#at + 1}`);
  }

  #match(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found === undefined) return null;
    this.#at += found.length;
    return found;
  }

  #space(): void {
    this.#match(SPACE);
  }

  /** Whether the next character that is no space is this one; then it is behind us. */
  #take(character: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #value(): JsonValue {
    this.#values += 1;
    if (this.#values > this.#limits.maxValues)
      throw new DocumentError("size", `${this.#what} has more than ${this.#limits.maxValues} values`);
    this.#space();
    const next = this.#text[this.#at];
    if (next === '"') return this.#string();
    if (next === "{") return this.#nested(() => this.#object());
    if (next === "[") return this.#nested(() => this.#array());
    for (const [word, value] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    return this.#number();
  }

  #nested<T>(read: () => T): T {
    this.#depth += 1;
    if (this.#depth > this.#limits.maxDepth)
      throw new DocumentError("depth", `${this.#what} has more than ${this.#limits.maxDepth} levels`);
    this.#at += 1;
    const value = read();
    this.#depth -= 1;
    return value;
  }

  #number(): number | OtherNumber {
    const text = this.#match(NUMBER);
    if (text === null) throw this.#syntax();
    const value = Number(text);
    return INTEGER.test(text) && Number.isSafeInteger(value) ? value : new OtherNumber(text);
  }

  #string(): string {
    this.#space();
    const token = this.#match(STRING);
    if (token === null) throw this.#syntax();
    const text = token.includes("\\") ? (JSON.parse(token) as string) : token.slice(1, -1);
    // Go reads half a pair as U+FFFD, and the signature would be over another text than the one it sees.
    if (LONE_SURROGATE.test(text)) throw new DocumentError("encoding", `${this.#what} holds half of a surrogate pair`);
    return text;
  }

  #array(): readonly JsonValue[] {
    const items: JsonValue[] = [];
    if (this.#take("]")) return items;
    do items.push(this.#value());
    while (this.#take(","));
    if (!this.#take("]")) throw this.#syntax();
    return items;
  }

  #object(): JsonObject {
    const members = new Map<string, JsonValue>();
    if (this.#take("}")) return members;
    do {
      const name = this.#string();
      if (members.has(name)) throw new DocumentError("duplicate-key", `${this.#what} has ${quoted(name)} twice in one object`);
      if (!this.#take(":")) throw this.#syntax();
      members.set(name, this.#value());
    } while (this.#take(","));
    if (!this.#take("}")) throw this.#syntax();
    return members;
  }
}

const WORDS: readonly (readonly [string, null | boolean])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];

/** A name or value as it is shown in an error: printable, at most 60 characters, in quotes. */
export function quoted(text: string): string {
  return `"${printable(text, 60)}"`;
}

const GO_ESCAPES = /[<>&\u2028\u2029]/g;

/**
 * A value as Go's encoder writes it: no spaces, members in the order given, and what could end a script in a page escaped, which
 * stands in strings only. Members that are undefined are left out.
 */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replace(GO_ESCAPES, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
