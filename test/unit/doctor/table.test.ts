/*
 * The table of ids and causes holds what the runner, the pages and scripts take for granted.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../src/base/errors.js";
import { ALL_CHECKS, nameCause } from "../../../src/doctor/table.js";

const causes = ALL_CHECKS.flatMap((check) => Object.entries(check.causes).map(([cause, row]) => ({ check: check.id, cause, ...row })));

describe("the table of doctor's checks", () => {
  it("names each check once, in words that a script can rely on", () => {
    const ids = ALL_CHECKS.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of [...ids, ...causes.map(({ cause }) => cause)]) expect(id).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
  });

  it("lets a check need only checks before it", () => {
    for (const [index, { id, needs }] of ALL_CHECKS.entries())
      expect([id, needs.filter((need) => !ALL_CHECKS.slice(0, index).some((before) => before.id === need))]).toEqual([id, []]);
  });

  it("has at most one cause for a code and a reason, and one usual cause for a code", () => {
    // Two checks that look for the same in two places share their causes.
    const tables = [...new Set(ALL_CHECKS.map((check) => check.causes))];
    const coded = tables
      .flatMap((table) => Object.entries(table).map(([cause, row]) => ({ cause, ...row })))
      .filter(({ code }) => code !== null);
    const pairs = coded.map(({ code, cause }) => `${code} ${cause}`);
    expect(pairs.filter((pair, index) => pairs.indexOf(pair) !== index)).toEqual([]);
    const usual = coded.filter((row) => row.usual === true).map(({ code }) => code);
    expect(usual.filter((code, index) => usual.indexOf(code) !== index)).toEqual([]);
  });

  it("gives each cause a meaning in sentences and a mend", () => {
    for (const { check, cause, meaning, mend } of causes) {
      expect([check, cause, /^\S.*\.$/s.test(meaning)]).toEqual([check, cause, true]);
      expect([check, cause, mend.length > 5]).toEqual([check, cause, true]);
    }
  });

  it("has a cause for each reason that an error of the way carries", () => {
    const names = new Set(causes.map(({ cause }) => cause));
    const files = ["src/forward", "src/agent"].flatMap((dir) =>
      readdirSync(dir, { recursive: true, encoding: "utf8" }).flatMap((name) => (name.endsWith(".ts") ? [join(dir, name)] : [])),
    );
    const reasons = files.flatMap((file) =>
      [...readFileSync(file, "utf8").matchAll(/\breason[:=] ?(?:.*\? )?"([a-z]+(?:-[a-z0-9]+)+)"/g)].map((match) => match[1] ?? ""),
    );
    expect(reasons.length).toBeGreaterThan(30);
    expect(reasons.filter((reason) => !names.has(reason))).toEqual([]);
  });

  it("names the cause of an error with which connect ends", () => {
    expect(nameCause(new TokenfwdError("E_MODULE", "x", { reason: "not-built" }))).toEqual({ check: "native-addon", cause: "not-built" });
    expect(nameCause(new TokenfwdError("E_MODULE_FAULT", "x", { reason: "hangs" }))).toEqual({ check: "module", cause: "hangs" });
    expect(nameCause(new TokenfwdError("E_USAGE", "x"))).toBeNull();
  });
});
