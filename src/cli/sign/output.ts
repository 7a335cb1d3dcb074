/*
 * A command's result on stdout, in one write and only when it is whole. It must never report success for what was not written.
 */
import type { Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";

/** Writes it and waits until it has left. Rejects with E_OUTPUT when the reader has gone or the disk is full. */
export function writeResult(stdout: Writable, result: Buffer | string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      const code = "code" in cause ? String(cause.code) : "unknown";
      const hint = "the signature or list was not kept; see where stdout leads to, and run it again";
      reject(new TokenfwdError("E_OUTPUT", `the result could not be written to stdout (${code})`, { cause, hint }));
    };
    stdout.on("error", fail);
    stdout.write(result, (error) => {
      // The stream tells of a failed write once more, as an event: the listener stays for that.
      if (error) return fail(error);
      stdout.off("error", fail);
      resolve();
    });
  });
}
