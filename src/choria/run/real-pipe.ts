/*
 * A pipe that a child can open once more by name, as choria does with /dev/stderr: what Node makes for a child is a socket, and that
 * cannot be. It must never leave its name in the directory.
 */
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, unlinkSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";

export interface RealPipe {
  readonly readable: Readable;
  /** For the child. */
  readonly fd: number;
  /** To be called once the child has been started; the readable then ends with the last writer. */
  closeOurs(): void;
}

/** Makes one by way of `directory`, which must be ours alone. @throws TokenfwdError E_CHORIA */
export function makeRealPipe(directory: string): RealPipe {
  const path = join(directory, "pipe");
  try {
    execFileSync("mkfifo", ["-m", "600", path], { stdio: "ignore" });
    try {
      const reading = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const fd = openSync(path, constants.O_WRONLY);
      const readable = new Socket({ fd: reading, readable: true, writable: false });
      return { readable, fd, closeOurs: () => closeSync(fd) };
    } finally {
      unlinkSync(path);
    }
  } catch (cause) {
    throw new TokenfwdError("E_CHORIA", `no pipe can be made for choria: ${printable((cause as Error).message)}`, {
      hint: "is mkfifo there, and does the runtime directory hold pipes?",
      cause,
    });
  }
}
