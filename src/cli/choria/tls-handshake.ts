/*
 * `tokenfwd choria tls-handshake`: what the relay starts for each handshake with the token's key (choria/tls). A way into this
 * program that works from dist and from the one file alike; nobody types it, and it is in no help.
 */
import { fstatSync } from "node:fs";
import { TokenfwdError } from "../../base/errors.js";
import { usage } from "../options.js";
import type { AddChoriaCommand } from "./program.js";

const NAME = "tls-handshake";

/** The words after Node that start it: this very program again. */
export function handshakeProgram(): readonly string[] {
  const script = process.argv[1];
  if (script === undefined) throw new TokenfwdError("E_BUG", "internal error: this program does not know its own file");
  return [script, "choria", NAME];
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

export const addTlsHandshake: AddChoriaCommand = (group, start) => {
  group.command(NAME, { hidden: true }).action(() =>
    start.alone(NAME, async () => {
      const { CIPHER_FD, CONTROL_FD, runHandshakeChild } = await import("../../choria/tls/handshake-child.js");
      if (![CIPHER_FD, CONTROL_FD].every(isSocket)) throw usage("choria tls-handshake is for the relay alone", "run tokenfwd choria relay");
      return await runHandshakeChild();
    }),
  );
};
