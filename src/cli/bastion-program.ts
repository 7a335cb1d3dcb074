/*
 * The commands that also run on a bastion, as commander sees them, and the program that has these alone: the bundle. What a
 * command does is loaded when it is called. It must never import what a bastion does not have: native code, ssh2, execa.
 */
import { Command } from "commander";
import { version } from "../base/version.js";
import { BASTION_DOCTOR_HELP, BASTION_HELP, KEYS_HELP, SIGN_HELP } from "./bastion-help.js";
import { addChoriaCommands, type ChoriaStart, choriaStart, type Words } from "./choria/program.js";
import { usage } from "./options.js";

/** The options of sign as commander hands them over. */
export interface RawSignOptions {
  readonly key?: string;
  readonly spki?: string;
  readonly mechanism?: string;
  readonly digest?: boolean;
  readonly der?: boolean;
  readonly base64?: boolean;
  readonly expectCert?: string;
  readonly purpose?: string;
  readonly pinSource?: string;
  readonly socket?: string;
  readonly deadline?: string;
}

/** The options of keys as commander hands them over. */
export interface RawKeysOptions {
  readonly json?: boolean;
  readonly pinSource?: string;
  readonly socket?: string;
}

/** The options of doctor on a bastion as commander hands them over. */
export interface RawBastionDoctorOptions {
  readonly json?: boolean;
  readonly report?: string;
  readonly pinSource?: string;
  readonly socket?: string;
}

export interface BastionHandlers {
  sign(options: RawSignOptions): Promise<void>;
  keys(options: RawKeysOptions): Promise<void>;
  readonly choria: ChoriaStart;
  /** The workstation's program has a doctor of its own, which knows more. */
  bastionDoctor(options: RawBastionDoctorOptions): Promise<void>;
}

/** The commands' own handlers; `words` is what stood after `--`, `ended` gets the exit status. */
export function bastionHandlers(words: Words, ended: (status: number) => void): BastionHandlers {
  const noCommand = (name: string): void => {
    if (words !== null) throw usage(`${name} takes no command`, "leave out -- and what follows");
  };
  return {
    async sign(options) {
      noCommand("sign");
      const { runSign } = await import("./sign/command.js");
      ended(await runSign(options));
    },
    async keys(options) {
      noCommand("keys");
      const { runKeys } = await import("./keys-command.js");
      ended(await runKeys(options));
    },
    choria: choriaStart(words, ended),
    async bastionDoctor(options) {
      noCommand("doctor");
      const { runBastionDoctor } = await import("./doctor/bastion-command.js");
      ended(await runBastionDoctor(options));
    },
  };
}

/** A program without commands. Parsing throws CommanderError instead of ending the process. */
export function newProgram(description: string, help: string): Command {
  return new Command("tokenfwd")
    .description(description)
    .version(version(), "--version", "print the version")
    .helpOption("-h, --help", "say what it does")
    .addHelpText("after", help)
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .showSuggestionAfterError(true);
}

/** Adds sign, keys and the group choria. */
export function addBastionCommands(program: Command, handlers: BastionHandlers): void {
  program
    .command("sign")
    .description("sign what stands on stdin with a key of the token; the signature goes to stdout")
    .usage("[options] < DATA > SIGNATURE")
    .option("--key <uri>", "the key, by pkcs11: URI")
    .option("--spki <hex>", "or by the SHA-256 of its DER SubjectPublicKeyInfo, as tokenfwd keys shows it")
    .option("--mechanism <name>", "CKM_ name or 0x number (default: the key's usual one)")
    .option("--digest", "stdin is the digest, not the document")
    .option("--der", "an ECDSA signature as DER, not as r and s one after the other")
    .option("--base64", "the signature as one line of base64")
    .option("--expect-cert <file>", "sign only if the key is the one of this certificate, PEM or DER")
    .option("--purpose <name>", "what is signed, shown at the workstation (default: data)")
    .option("--pin-source <source>", "where the PIN is wanted on this side: ask (default), file:PATH (mode 0600) or fd:N")
    .option("--socket <path>", "the socket (default: found by itself)")
    .option("--deadline <seconds>", "give up after so long (default: as long as the token takes)")
    .addHelpText("after", SIGN_HELP)
    .action((options: RawSignOptions) => handlers.sign(options));
  program
    .command("keys")
    .description("list the keys that can be used")
    .option("--json", "one JSON document on stdout")
    .option("--pin-source <source>", "where the PIN is wanted on this side: ask, file:PATH (mode 0600) or fd:N (default: no log-in)")
    .option("--socket <path>", "the socket (default: found by itself)")
    .addHelpText("after", KEYS_HELP)
    .action((options: RawKeysOptions) => handlers.keys(options));
  addChoriaCommands(program, handlers.choria);
}

/** The program of the bundle. */
export function createBastionProgram(handlers: BastionHandlers): Command {
  const program = newProgram("Use the hardware token in your workstation from this machine.", BASTION_HELP);
  addBastionCommands(program, handlers);
  program
    .command("doctor")
    .description("look at each thing between this machine's programs and the token, and say what mends it")
    .option("--json", "one JSON document on stdout")
    .option("--report <file>", "write what was found to a new file, for a bug report; no secret is in it")
    .option("--pin-source <source>", "make a signature, with the PIN from: ask, file:PATH (mode 0600) or fd:N (default: none is made)")
    .option("--socket <path>", "the socket (default: found by itself)")
    .addHelpText("after", BASTION_DOCTOR_HELP)
    .action((options: RawBastionDoctorOptions) => handlers.bastionDoctor(options));
  return program;
}
