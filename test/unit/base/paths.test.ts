/* The workstation's runtime and state directories and its id, on real directories: what is fit to hold a socket and what is refused. */
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  directoryFault,
  maxSocketPathBytes,
  type PathEnvironment,
  runtimeDirectory,
  stateDirectory,
  workstationId,
} from "../../../src/base/paths.js";

let dir: string;
const uid = process.geteuid?.() ?? 0;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-paths-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function around(env: Record<string, string>, platform: NodeJS.Platform = "linux"): PathEnvironment {
  return { env, platform, uid, home: dir };
}

test("the runtime directory is XDG_RUNTIME_DIR when it is ours and 0700", () => {
  const path = join(dir, "run");
  mkdirSync(path, { mode: 0o700 });
  expect(runtimeDirectory(around({ XDG_RUNTIME_DIR: path }))).toBe(path);
});

test("on macOS TMPDIR stands in for it, without the slash at its end", () => {
  chmodSync(dir, 0o700);
  expect(runtimeDirectory(around({ TMPDIR: `${dir}/` }, "darwin"))).toBe(dir);
});

test("without either it is /tmp/tokenfwd-UID, and another user's directory there is refused", () => {
  const other: PathEnvironment = { env: {}, platform: "linux", uid: 3_999_999_999, home: dir };
  try {
    // We cannot make a directory that belongs to that user, so what we make there is not its own.
    expect(() => runtimeDirectory(other)).toThrow(expect.objectContaining({ code: "E_SOCKET_PATH" }));
    expect(lstatSync("/tmp/tokenfwd-3999999999").mode & 0o777).toBe(0o700);
  } finally {
    rmSync("/tmp/tokenfwd-3999999999", { recursive: true, force: true });
  }
});

test.each([
  ["a mode wider than 0700", () => chmodSync(join(dir, "run"), 0o750), "has mode 0750"],
  ["nothing at all", () => rmSync(join(dir, "run"), { recursive: true }), "does not exist"],
  ["a file", () => swap((path) => writeFileSync(path, "")), "is not a directory"],
  ["a link to a good directory", () => swap((path) => symlinkSync(dir, path)), "is a symbolic link"],
])("a runtime directory that is %s is refused with what is wrong", (_, spoil, text) => {
  mkdirSync(join(dir, "run"), { mode: 0o700 });
  spoil();
  expect(() => runtimeDirectory(around({ XDG_RUNTIME_DIR: join(dir, "run") }))).toThrow(
    expect.objectContaining({
      code: "E_SOCKET_PATH",
      message: expect.stringContaining(text),
      hint: expect.stringContaining("XDG_RUNTIME_DIR"),
    }),
  );
});

function swap(make: (path: string) => void): void {
  rmSync(join(dir, "run"), { recursive: true });
  make(join(dir, "run"));
}

test("a directory that belongs to another user has a fault that names the uid", () => {
  expect(directoryFault(dir, uid + 1, false)).toBe(`belongs to another user (uid ${uid})`);
});

test("a directory that its group can write to has a fault, one that others can only read has none", () => {
  chmodSync(dir, 0o755);
  expect(directoryFault(dir, uid, false)).toBeNull();
  chmodSync(dir, 0o770);
  expect(directoryFault(dir, uid, false)).toContain("can be written by others");
});

test("the workstation's id is 8 hex digits, stays the same, and its file is 0600", () => {
  const id = workstationId(around({}));
  expect(id).toMatch(/^[0-9a-f]{8}$/);
  expect(workstationId(around({}))).toBe(id);
  const kept = join(dir, ".local", "state", "tokenfwd");
  expect(readFileSync(join(kept, "workstation-id"), "utf8")).toBe(`${id}\n`);
  expect(lstatSync(join(kept, "workstation-id")).mode & 0o777).toBe(0o600);
  expect(readdirSync(kept)).toEqual(["workstation-id"]);
});

test("XDG_STATE_HOME moves the state directory, a relative one is not used", () => {
  expect(stateDirectory(around({ XDG_STATE_HOME: "/x" }))).toBe("/x/tokenfwd");
  expect(stateDirectory(around({ XDG_STATE_HOME: "x" }))).toBe(join(dir, ".local/state/tokenfwd"));
});

test("a damaged id is refused rather than replaced", () => {
  mkdirSync(join(dir, "tokenfwd"));
  writeFileSync(join(dir, "tokenfwd", "workstation-id"), "../../etc\n");
  expect(() => workstationId(around({ XDG_STATE_HOME: dir }))).toThrow(expect.objectContaining({ code: "E_CONFIG" }));
});

test("a socket's path may have 107 bytes on Linux and 103 elsewhere", () => {
  expect(maxSocketPathBytes("linux")).toBe(107);
  expect(maxSocketPathBytes("darwin")).toBe(103);
});
