/*
 * The tables in protocol/ are the tables in src/: a page that was not generated again after a change fails here.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ERRORS } from "../../src/base/errors.js";
import { attributeKind, CKA } from "../../src/cryptoki/attributes.js";
import { CALLS } from "../../src/cryptoki/calls.js";
import { MECHANISMS } from "../../src/cryptoki/mechanisms.js";
import { PAGES, renderPage } from "../support/generate-docs.mjs";

const source = {
  calls: CALLS,
  mechanisms: [...MECHANISMS.values()],
  attributes: Object.values(CKA).map((type) => ({ type, kind: attributeKind(type) })),
  errors: ERRORS,
};

describe("the generated pages", () => {
  it.each(PAGES)("%s is what `npm run docs` writes", (page) => {
    const text = readFileSync(join(import.meta.dirname, "../..", page), "utf8");
    expect(text).toMatch(/<!-- generated: \w+ -->/);
    expect(renderPage(text, source)).toBe(text);
  });

  it("would differ if a call were added", () => {
    const page = readFileSync(join(import.meta.dirname, "../../protocol/p11kit-rpc.md"), "utf8");
    const call = { ...CALLS[0], id: 90, name: "C_Imagined" };
    expect(renderPage(page, { ...source, calls: [...CALLS, call] })).toContain("| 90 | C_Imagined |");
  });
});
