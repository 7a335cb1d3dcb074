/*
 * What a person reads, and the rule for every line of it:
 *   - it goes to stderr; stdout holds data and nothing else;
 *   - it begins with `tokenfwd: ` in lower case, has no full stop at its end, and names the thing it speaks of;
 *   - after an error comes one `hint: ` line: a command to type or a sentence to send to somebody, never an apology;
 *   - an error ends with its code and exit status in brackets, because with `-- CMD` the process's own status is 255;
 *   - text from a bastion, a token or a module passes base/printable here, once more, whoever made the line;
 *   - nothing is drawn, coloured or moved: a line once written stays, and reads the same in a file.
 * It must never ask anything: questions are in terminal.ts, and PINs are asked by the token host alone.
 */
import type { Writable } from "node:stream";
import type { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";

const MAX_LINE = 8000;

export interface Ui {
  /** One line for a person. */
  line(text: string): void;
  warning(text: string): void;
  hint(text: string): void;
  error(error: TokenfwdError): void;
}

/** A Ui on a stream, which stays the caller's. In raw mode a line begins at the left edge only with `\r\n`, so it ends with both. */
export function createUi(stream: Pick<Writable, "write">, isRaw: () => boolean = () => false): Ui {
  const put = (prefix: string, text: string): void => {
    stream.write(`${prefix}${printable(text, MAX_LINE)}${isRaw() ? "\r\n" : "\n"}`);
  };
  return {
    line: (text) => put("tokenfwd: ", text),
    warning: (text) => put("tokenfwd: warning: ", text),
    hint: (text) => put("hint: ", text),
    error(error) {
      put("tokenfwd: ", `${error.message} [${error.code} ${error.exitCode}]`);
      if (error.hint !== undefined) put("hint: ", error.hint);
    },
  };
}

/** A Ui that says nothing, for `--json` where the events share its stream. */
export const silentUi: Ui = { line() {}, warning() {}, hint() {}, error() {} };
