/*
 * What a person and a script read of doctor.
 */
import { describe, expect, it } from "vitest";
import { doctorJson, doctorLines, doctorSum } from "../../../../src/cli/doctor/output.js";
import { givenOptions } from "../../../../src/cli/doctor/walk.js";
import type { CheckResult } from "../../../../src/doctor/walk.js";

const passed: CheckResult = { id: "a", title: "first", status: "pass", cause: null, detail: "fine", mend: null, code: null };
const failed: CheckResult = { id: "b", title: "second one", status: "fail", cause: "bad", detail: "it is", mend: "mend it", code: "E_SSH" };
const plain = { colours: false, width: 10 };

describe("the list", () => {
  it("has a mark, the title in a column, what was seen, and below it the mend", () => {
    expect(doctorLines(passed, plain)).toBe("✓ first       fine\n");
    expect(doctorLines(failed, plain)).toBe("✗ second one  it is [bad E_SSH]\n              mend: mend it\n");
    expect(doctorLines({ ...failed, status: "warn", code: null }, plain)).toContain("! second one  it is [bad]\n");
    expect(doctorLines({ ...passed, status: "not-reached", detail: "needs b" }, plain)).toBe("- first       not reached: needs b\n");
    expect(doctorLines({ ...passed, detail: "" }, plain)).toBe("✓ first\n");
  });

  it("colours the marks and nothing else, where colours were asked for", () => {
    expect(doctorLines(failed, { ...plain, colours: true })).toBe(`\u001b[31m✗\u001b[0m${doctorLines(failed, plain).slice(1)}`);
  });

  it("ends with how many there were of each", () => {
    expect(doctorSum([passed, failed, { ...passed, status: "not-reached" }])).toBe("1 passed, 1 failed, 1 not reached\n");
    expect(doctorSum([passed, { ...failed, status: "warn" }])).toBe("1 passed, 1 warned\n");
  });
});

describe("the document", () => {
  it("has the pinned fields of each check and no other", () => {
    expect(JSON.parse(doctorJson([passed, failed]))).toEqual({
      v: 1,
      checks: [
        { id: "a", status: "pass", cause: null, detail: "fine", mend: null },
        { id: "b", status: "fail", cause: "bad", detail: "it is", mend: "mend it" },
      ],
    });
  });
});

it("names the options that were given, not their values", () => {
  expect(givenOptions({ module: "/secret/m.so", pinSource: "file:/p", json: true, sshOption: [], jump: undefined })).toEqual([
    "module",
    "pin-source",
    "json",
  ]);
});
