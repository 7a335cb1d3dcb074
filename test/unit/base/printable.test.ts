/*
 * What a bastion, a token or a module cannot put on a terminal.
 */
import { expect, test } from "vitest";
import { paddedText, printable } from "../../../src/base/printable.js";

test.each([
  ["an escape sequence", "\x1b[2Jx", "\\x1b[2Jx"],
  ["a line end", "a\r\nb", "a\\x0d\\x0ab"],
  ["a bidirectional override", "a\u202eb", "a\\u{202e}b"],
  ["a character of no width", "a\u200bb", "a\\u{200b}b"],
  ["a letter that shows nothing", "a\u3164b", "a\\u{3164}b"],
  ["half of a character cut in two", "a\ud83d", "a\\u{d83d}"],
])("%s is shown for what it is", (_what, text, shown) => {
  expect(printable(text)).toBe(shown);
});

test("what is no UTF-8 is replaced, what is too long is cut, and letters stay", () => {
  expect(printable(Buffer.from([0x61, 0xff]))).toBe("a\ufffd");
  expect(printable("abcdef", 3)).toBe("abc...");
  expect(printable("Schlüssel 鍵")).toBe("Schlüssel 鍵");
  expect(paddedText(Buffer.from("label   \0"))).toBe("label");
});
