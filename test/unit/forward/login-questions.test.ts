/* What a server's words look like on the terminal where a PIN is asked for, too. */
import { expect, it } from "vitest";
import { promptLines } from "../../../src/forward/ssh2/login-questions.js";

it("a server's text becomes printable lines that each say who asks, and not without end", () => {
  expect(promptLines("me@b", ["", "one\ntwo\r\nthree \x1b[1m"])).toEqual(["(me@b) one", "(me@b) two", "(me@b) three \\x1b[1m"]);
  expect(promptLines("me@b", ["x\n".repeat(1000)]).length).toBeLessThanOrEqual(20);
  expect(promptLines("me@b", ["x".repeat(10_000)]).length).toBeLessThanOrEqual(6);
});

it("a line that the terminal would wrap begins anew with who asks, so that no row of it looks like a question of ours", () => {
  const who = "ops@bastion";
  const ours = 'tokenfwd: ops@bastion asks for the PIN of the token "ops": ';
  // As wide as a row of the terminal, by spaces and by characters that are two columns wide.
  for (const before of [" ".repeat(80 - `(${who}) `.length), "\u8a3c".repeat((80 - `(${who}) `.length) / 2)]) {
    const lines = promptLines(who, [`${before}${ours}`]);
    for (const line of lines) {
      expect(line.startsWith(`(${who}) `)).toBe(true);
      expect([...line].reduce((columns, one) => columns + (one <= "~" ? 1 : 2), 0)).toBeLessThanOrEqual(72);
    }
    expect(lines.map((line) => line.slice(`(${who}) `.length)).join("")).toBe(`${before}${ours}`.trimEnd());
  }
});
