/*
 * A process that runs one command line: an error becomes text and an exit status (design 11), and the process ends once all
 * that was written has left. It must never let an exception reach Node's own printer, which would show a stack.
 */
import { CommanderError } from "commander";
import { TokenfwdError } from "../base/errors.js";
import { COMMAND_FAILURE } from "./lifetime.js";
import { createUi } from "./ui.js";

/** What differs between the program of the workstation and that of the bastion. */
export interface CommandProcess {
  /** Runs the command line (without node and script) and answers the exit status. Rejects with whatever went wrong. */
  run(argv: readonly string[]): Promise<number>;
  /** Whether a command to run stands behind `--`: then a failure of ours is 255, as ssh has it. */
  hasCommand(argv: readonly string[]): boolean;
  /** Says an error that no command could report itself. */
  report(error: TokenfwdError, argv: readonly string[]): void;
}

/** Runs the process's own command line and ends the process. */
export async function runProcess({ run, hasCommand, report }: CommandProcess): Promise<void> {
  const argv = process.argv.slice(2);
  const crash = (thrown: unknown): void => {
    report(TokenfwdError.from(thrown), argv);
    process.exit(hasCommand(argv) ? COMMAND_FAILURE : 70);
  };
  process.on("uncaughtException", crash);
  process.on("unhandledRejection", crash);
  // A reader that has gone, as in `--help | head`, is no bug; the commands listen too and stop.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  let status: number;
  try {
    status = await run(argv);
  } catch (thrown) {
    const error = thrown instanceof CommanderError ? fromCommander(thrown) : TokenfwdError.from(thrown);
    if (error === null) status = 0;
    else {
      report(error, argv);
      status = hasCommand(argv) ? COMMAND_FAILURE : error.exitCode;
    }
  }
  await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))));
  process.exit(status);
}

/** Commander's complaint as one of ours; null when it only showed help or the version. A value after `=` is not repeated. */
export function fromCommander(thrown: CommanderError): TokenfwdError | null {
  if (thrown.exitCode === 0) return null;
  const help = "tokenfwd --help, or tokenfwd COMMAND --help";
  if (thrown.code === "commander.help") return new TokenfwdError("E_USAGE", "a command is missing", { hint: help });
  const [first = "", ...more] = thrown.message.replace(/^error: /, "").split("\n");
  const suggestion = more.join(" ").trim();
  const message = first
    .replace(/=[^']*'/, "=...'")
    .replace(/\.$/, "")
    .replace(/\. E/, ": e");
  const excess = /'(sign|keys|sign-request|signer)'/.test(first)
    ? "these commands take options only; what is to be signed comes on stdin, as in tokenfwd sign ... < FILE"
    : "put -- before the command to run on the bastion";
  const hint = thrown.code === "commander.excessArguments" ? excess : suggestion;
  return new TokenfwdError("E_USAGE", message, { hint: hint === "" ? help : hint });
}

/** Says an error as text on stderr. */
export function reportAsText(error: TokenfwdError): void {
  createUi(process.stderr).error(error);
}
