/* The trace file: how it is made, and what is read back from one that is whole, cut off, or not ours. */
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTraceFile, openTrace, writeWhole } from "../../../src/trace/format.js";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-trace-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const HEADER = '{"tokenfwdTrace":1,"started":"2026-11-23T10:00:00.000Z","by":"tokenfwd 0.1.0","of":{"socket":"/run/s"},"data":false}\n';
const OPEN = '{"kind":"open","t":1.5,"c":1,"origin":{"kind":"local"}}\n';

function file(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}

function read(text: string) {
  const reader = openTrace(file("read", text));
  try {
    const records = [...reader.records()];
    return { header: reader.header, records, complete: reader.complete };
  } finally {
    reader.close();
  }
}

test("the file is made with mode 0600, and never over or through what is there", () => {
  const path = join(dir, "made");
  writeWhole(createTraceFile(path), HEADER);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readFileSync(path, "utf8")).toBe(HEADER);
  expect(() => createTraceFile(path)).toThrow(/exists already/);
  symlinkSync(join(dir, "elsewhere"), join(dir, "link"));
  expect(() => createTraceFile(join(dir, "link"))).toThrow(/exists already/);
  expect(() => createTraceFile(join(dir, "missing", "file"))).toThrow(/ENOENT/);
});

test("a whole trace is read back", () => {
  const { header, records, complete } = read(`${HEADER}${OPEN}{"kind":"end","t":2,"records":1}\n`);
  expect(header).toMatchObject({ by: "tokenfwd 0.1.0", of: { socket: "/run/s" }, data: false });
  expect(records).toEqual([JSON.parse(OPEN)]);
  expect(complete).toBe(true);
});

test("one that was cut off is read as far as it goes, and says so", () => {
  for (const text of [HEADER, HEADER + OPEN, `${HEADER}${OPEN}{"kind":"call","t":2,"c":`]) {
    const { records, complete } = read(text);
    expect(records).toHaveLength(text === HEADER ? 0 : 1);
    expect(complete).toBe(false);
  }
});

test("what is no trace, or none of this version, is refused", () => {
  expect(() => read("")).toThrow(/its first line does not say so/);
  expect(() => read("not JSON\n")).toThrow(/its first line/);
  expect(() => read(HEADER.replace(":1,", ":2,"))).toThrow(/it is of version 2/);
  expect(() => read(`${HEADER}[]\n${OPEN}`)).toThrow(/a line is no record/);
  expect(() => read(`${HEADER}{"kind":"end","t":2}\n${OPEN}`)).toThrow(/after its end/);
  expect(() => openTrace(dir)).toThrow(/no regular file/);
  expect(() => openTrace(join(dir, "nothing"))).toThrow(/ENOENT/);
});
