/* The diagnostic log: what it writes, what it must never write, and the files it refuses. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../src/base/errors.js";
import { createFileLog } from "../../../src/base/log.js";

let dir = "";
let path = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-log-"));
  path = join(dir, "log");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const lines = (): Record<string, unknown>[] =>
  readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (thrown) {
    return thrown instanceof TokenfwdError ? thrown.code : String(thrown);
  }
  return "nothing thrown";
}

describe("file log", () => {
  it("writes one JSON object a line with time, level and fields, in a file of mode 0600", () => {
    const log = createFileLog(path);
    log.info("attached", { client: "c1", slot: 17n });
    log.error("lost", { why: new TokenfwdError("E_SSH_LOST", "gone") });
    const [first, second] = lines();
    expect(first).toMatchObject({ level: "info", text: "attached", client: "c1", slot: "17", pid: process.pid });
    expect(first?.["ts"]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(second).toMatchObject({ level: "error", why: { code: "E_SSH_LOST", message: "gone" } });
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it("appends to a file of ours and narrows its mode", () => {
    writeFileSync(path, '{"text":"older"}\n');
    chmodSync(path, 0o644);
    createFileLog(path).warn("newer");
    expect(lines().map((line) => line["text"])).toEqual(["older", "newer"]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it("writes neither bytes nor a field that is named like a secret, however deep", () => {
    const log = createFileLog(path);
    log.debug("call", {
      data: Buffer.from("canary-1"),
      pin: "canary-2",
      inner: { userPin: "canary-3", passphrase: Buffer.from("canary-4") },
    });
    expect(readFileSync(path, "utf8")).not.toContain("canary");
    expect(lines()[0]).toMatchObject({ data: "<8 bytes>", pin: "<removed>", inner: { userPin: "<removed>", passphrase: "<removed>" } });
  });

  it("writes no control character, and no field can replace time, level or text", () => {
    createFileLog(path).info("real\n", { level: "fake", text: "fake", ts: "fake", label: "a\u001b[2Jb\u202e" });
    expect(lines()).toHaveLength(1);
    expect(lines()[0]).toMatchObject({ level: "info", text: "real\\x0a", label: "a\\x1b[2Jb\\u{202e}" });
  });

  it("survives fields that go in circles", () => {
    const circle: Record<string, unknown> = { name: "x" };
    circle["self"] = circle;
    createFileLog(path).info("circle", circle);
    expect(lines()).toHaveLength(1);
  });

  it("refuses a symbolic link, a directory, a FIFO and a directory that is missing", () => {
    writeFileSync(join(dir, "target"), "");
    symlinkSync(join(dir, "target"), path);
    const fifo = join(dir, "fifo");
    execFileSync("mkfifo", [fifo]);
    for (const bad of [path, dir, fifo, join(dir, "no", "log")])
      expect(
        codeOf(() => createFileLog(bad)),
        bad,
      ).toBe("E_USAGE");
    expect(readFileSync(join(dir, "target"), "utf8")).toBe("");
  });
});
