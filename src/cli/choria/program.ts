/*
 * The group `choria` as commander sees it, the same in the program of the workstation and in the bundle. A command adds itself
 * here, with its options and its help beside its code; what it does is loaded when it is called. It must never import what a
 * bastion does not have.
 */
import type { Command } from "commander";
import { usage } from "../options.js";
import { addCheck } from "./check-options.js";
import { addConfig } from "./config-options.js";
import { addPing } from "./ping-options.js";
import { addRelay } from "./relay-options.js";
import { addRun } from "./run-options.js";
import { addSignRequest } from "./sign-request-options.js";
import { addSigner } from "./signer-options.js";
import { addTlsHandshake } from "./tls-handshake.js";

/** The words after the first `--`, null when there was none. */
export type Words = readonly (string | Buffer)[] | null;

/** How a command of the group is run. */
export interface ChoriaStart {
  /** A command that takes no words after `--`: they are E_USAGE. */
  alone(name: string, run: () => Promise<number>): Promise<void>;
  /** A command that passes on what stands after `--`. */
  withWords(run: (words: Words) => Promise<number>): Promise<void>;
}

/** Runs with the words of this command line; `ended` gets the exit status. */
export function choriaStart(words: Words, ended: (status: number) => void): ChoriaStart {
  return {
    async alone(name, run) {
      if (words !== null) throw usage(`choria ${name} takes no command`, "leave out -- and what follows");
      ended(await run());
    },
    async withWords(run) {
      ended(await run(words));
    },
  };
}

/** What adds one command to the group. */
export type AddChoriaCommand = (group: Command, start: ChoriaStart) => void;

const COMMANDS: readonly AddChoriaCommand[] = [addRun, addPing, addSignRequest, addSigner, addRelay, addCheck, addConfig, addTlsHandshake];

/** Adds the group with all its commands. */
export function addChoriaCommands(program: Command, start: ChoriaStart): void {
  const group = program.command("choria").description("use Choria from a bastion, with the key on the token");
  for (const add of COMMANDS) add(group, start);
}
