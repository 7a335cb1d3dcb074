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
import { BASTION_CHECKS } from "../../src/doctor/bastion/checks.js";
import { COMMON_CAUSES } from "../../src/doctor/causes.js";
import { CHORIA_CHECKS } from "../../src/doctor/choria/checks.js";
import { ALL_CHECKS } from "../../src/doctor/table.js";
import { WAY_CHECKS } from "../../src/doctor/way/checks.js";
import { WORKSTATION_CHECKS } from "../../src/doctor/workstation/checks.js";
import { checksOfCode, PAGES, renderPage } from "../support/generate-docs.mjs";

const source = {
  calls: CALLS,
  mechanisms: [...MECHANISMS.values()],
  attributes: Object.values(CKA).map((type) => ({ type, kind: attributeKind(type) })),
  errors: ERRORS,
  checks: { workstation: WORKSTATION_CHECKS, way: WAY_CHECKS, choria: CHORIA_CHECKS, bastion: BASTION_CHECKS, common: COMMON_CAUSES },
};

describe("the generated pages", () => {
  it.each(PAGES)("%s is what `npm run docs` writes", (page) => {
    const text = readFileSync(join(import.meta.dirname, "../..", page), "utf8");
    expect(text).toMatch(/<!-- generated: \w+ -->/);
    expect(renderPage(text, source)).toBe(text);
  });

  it("has a section on each check, and each error code that a check can find leads there", () => {
    const read = (page: string): string => readFileSync(join(import.meta.dirname, "../..", page), "utf8");
    const anchors = new Set([...read("docs/troubleshooting.md").matchAll(/^### (.+)$/gm)].map(([, id]) => id));
    expect([...ALL_CHECKS, ...BASTION_CHECKS].map(({ id }) => id).filter((id) => !anchors.has(id))).toEqual([]);
    const operations = read("docs/operations.md");
    const unlinked = Object.keys(ERRORS).filter((code) => {
      const [, anchor] = new RegExp(`^\\| \\[\`${code}\`\\]\\(troubleshooting\\.md#([^)]+)\\)`, "m").exec(operations) ?? [];
      const ids = checksOfCode(code, [...ALL_CHECKS, ...BASTION_CHECKS]);
      return ids.length > 0 && (anchor === undefined || !ids.includes(anchor));
    });
    expect(unlinked).toEqual([]);
  });

  it("would differ if a call were added", () => {
    const page = readFileSync(join(import.meta.dirname, "../../protocol/p11kit-rpc.md"), "utf8");
    const call = { ...CALLS[0], id: 90, name: "C_Imagined" };
    expect(renderPage(page, { ...source, calls: [...CALLS, call] })).toContain("| 90 | C_Imagined |");
  });
});
