import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createLogin, loginText, readOrMakeLogin } from "../../../../src/choria/relay/login.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-login-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));
const file = () => join(dir, "login");

describe("a relay's login", () => {
  it("is another one each time, and nothing that would have to be quoted", () => {
    const [one, two] = [createLogin(), createLogin()];
    expect(one.password.equals(two.password)).toBe(false);
    expect(loginText(one)).toMatch(/^relay-[0-9a-f]{8}:[A-Za-z0-9_-]{32}\n$/);
  });

  it("is made once, for its owner alone, and read from then on", () => {
    const made = readOrMakeLogin(file());
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(readFileSync(file(), "utf8")).toBe(loginText(made));
    expect(readOrMakeLogin(file())).toEqual(made);
  });

  it.each(["", "joe", "joe:", ":secret", "joe:two words", "joe:secret\nmore\n", "jo e:secret", `joe:${"x".repeat(257)}`])(
    "is not taken from a file that holds %j",
    (text) => {
      writeFileSync(file(), text, { mode: 0o600 });
      expect(() => readOrMakeLogin(file())).toThrow(
        expect.objectContaining({ code: "E_CONFIG", message: expect.stringContaining("does not hold user:password on one line") }),
      );
      expect(readFileSync(file(), "utf8")).toBe(text);
    },
  );

  it.each([0o640, 0o604, 0o666])("is not taken from a file of mode %o", (mode) => {
    writeFileSync(file(), "joe:secret\n");
    chmodSync(file(), mode);
    expect(() => readOrMakeLogin(file())).toThrow(expect.objectContaining({ code: "E_CONFIG", hint: `chmod 600 '${file()}'` }));
  });

  it("is not taken from a link or a directory, nor made where there is no directory", () => {
    writeFileSync(join(dir, "real"), "joe:secret\n", { mode: 0o600 });
    symlinkSync(join(dir, "real"), file());
    expect(() => readOrMakeLogin(file())).toThrow("is a symbolic link");
    expect(() => readOrMakeLogin(dir)).toThrow("is no file of yours");
    expect(() => readOrMakeLogin(join(dir, "no", "such"))).toThrow("cannot be made (ENOENT)");
  });
});
