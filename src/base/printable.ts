/*
 * Makes text from a bastion, a token or a module fit for a terminal, a log or a file. Whatever comes from outside goes
 * through here; what comes out holds no control, bidirectional or invisible character and no line break.
 */

const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** What most texts are: nothing has to be looked up for it. */
const PLAIN = /^[ -~]*$/;

/**
 * The text with each unsafe character as `\xNN` or `\u{N}`, cut to `maxLength` characters (default 500) with `...`.
 * A Buffer is read as UTF-8; bytes that are not become U+FFFD.
 */
export function printable(text: string | Buffer, maxLength = 500): string {
  const given = typeof text === "string" ? text : text.toString("utf8");
  const cut = given.length > maxLength ? `${given.slice(0, maxLength)}...` : given;
  if (PLAIN.test(cut)) return cut;
  return cut.replace(UNSAFE, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

/** A path or name as one word of a command that a person may copy from a hint: printable, and nothing in it ends the word. */
export function shellWord(text: string): string {
  return `'${printable(text).replaceAll("'", "'\\''")}'`;
}

/** A space- or NUL-padded PKCS#11 string without its padding, printable. */
export function paddedText(bytes: Buffer): string {
  return printable(bytes.toString("utf8").replace(/[\0 ]+$/, ""));
}
