import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DocumentError, type JsonValue, OtherNumber, parseJson } from "../../../../src/choria/documents/json.js";

const LIMITS = { maxBytes: 100_000, maxDepth: 64, maxValues: 10_000 };
const parse = (text: string | Buffer): JsonValue => parseJson(text, LIMITS, "it");

/** As JSON.parse would have it. */
function plain(value: JsonValue): unknown {
  if (value instanceof OtherNumber) return Number(value.text);
  if (value instanceof Map) return Object.fromEntries([...value].map(([name, member]) => [name, plain(member)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

/** What JSON.parse makes of it, or that it refuses. */
function theirs(text: string): { readonly value: unknown } | null {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return null;
  }
}

function ours(text: string): { readonly value: unknown } | DocumentError {
  try {
    return { value: plain(parse(text)) };
  } catch (thrown) {
    if (thrown instanceof DocumentError) return thrown;
    throw thrown;
  }
}

describe("parseJson", () => {
  it("understands whatever JSON.parse does as it does, save for what can be read in two ways", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), fc.constantFrom("", " ", "\n\t"), (text, space) => {
        const given = `${space}${text}${space}`;
        const mine = ours(given);
        if (mine instanceof DocumentError) expect(["duplicate-key", "encoding"]).toContain(mine.fault);
        else expect(mine).toEqual(theirs(given));
      }),
    );
  });

  it("accepts nothing that JSON.parse refuses, wherever a text was broken", () => {
    const piece = fc.oneof(
      fc.constantFrom("{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "1", "-", "e", ".", "true", "null", " ", "\u2028"),
      fc.string(),
    );
    const broken = fc.tuple(fc.json(), fc.nat(), fc.nat({ max: 3 }), piece).map(([text, at, cut, put]) => {
      const where = at % (text.length + 1);
      return text.slice(0, where) + put + text.slice(where + cut);
    });
    fc.assert(
      fc.property(
        fc.oneof(
          broken,
          fc.array(piece).map((all) => all.join("")),
        ),
        (text) => {
          const mine = ours(text);
          if (mine instanceof DocumentError) return;
          expect(mine).toEqual(theirs(text));
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it("keeps a number that is no plain integer as its text", () => {
    expect(parse("[1,-1,0,9007199254740991]")).toEqual([1, -1, 0, Number.MAX_SAFE_INTEGER]);
    const others = ["1.0", "-0", "1e2", "9007199254740992", "1e999"];
    expect(parse(`[${others.join()}]`)).toEqual(others.map((text) => new OtherNumber(text)));
  });

  it("takes a long text with many escapes, and one without", () => {
    const long = "\\n".repeat(40_000);
    expect(parse(`"${long}"`)).toHaveLength(40_000);
    expect(() => parse(`"${"x".repeat(100_000)}"`)).toThrow("it has 100002 bytes, and 100000 are the most");
  });

  it("stops at the level and the value too many, and not before", () => {
    const nested = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);
    expect(() => parse(nested(64))).not.toThrow();
    expect(() => parse(nested(65))).toThrow("it has more than 64 levels");
    expect(() => parse(`[${"1,".repeat(9_998)}1]`)).not.toThrow();
    expect(() => parse(`[${"1,".repeat(9_999)}1]`)).toThrow("it has more than 10000 values");
  });

  it("shows nothing of a document in an error that a terminal could act on", () => {
    expect(() => parse('{"\\u001b]0;x\\u0007":1,"\\u001b]0;x\\u0007":2}')).toThrow('it has "\\x1b]0;x\\x07" twice in one object');
  });
});
