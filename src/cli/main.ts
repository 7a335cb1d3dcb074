/*
 * The program: reads the command line, runs one command, and ends with its exit status (design 11). It must never let an
 * exception reach Node's own printer, which would show a stack, and never end before what was written has left.
 */
import { CommanderError } from "commander";
import { TokenfwdError } from "../base/errors.js";
import { keepHeapSmall } from "../base/heap.js";
import { createFileLog, type Log, silentLog } from "../base/log.js";
import { createEventStream } from "./event-stream.js";
import { COMMAND_FAILURE } from "./lifetime.js";
import { createProgram } from "./program.js";
import { splitArgv } from "./raw-argv.js";
import { createUi } from "./ui.js";

/** Runs the process's own command line and ends the process. */
export async function main(): Promise<void> {
  keepHeapSmall();
  const argv = process.argv.slice(2);
  const crash = (thrown: unknown): void => {
    report(TokenfwdError.from(thrown), argv);
    process.exit(argv.includes("--") ? COMMAND_FAILURE : 70);
  };
  process.on("uncaughtException", crash);
  process.on("unhandledRejection", crash);
  // A reader that has gone, as in `--help | head`, is no bug; the commands listen too and stop.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  let status: number;
  try {
    status = await runCommandLine(argv);
  } catch (thrown) {
    const error = thrown instanceof CommanderError ? fromCommander(thrown) : TokenfwdError.from(thrown);
    if (error === null) status = 0;
    else {
      report(error, argv);
      status = argv.includes("--") ? COMMAND_FAILURE : error.exitCode;
    }
  }
  await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))));
  process.exit(status);
}

async function runCommandLine(argv: readonly string[]): Promise<number> {
  const { own, command } = splitArgv(argv);
  const path = process.env["TOKENFWD_LOG"];
  const log: Log = path ? createFileLog(path) : silentLog;
  let status = 0;
  const program = createProgram({
    async connect(destination, options) {
      const { runConnect } = await import("./connect-command.js");
      status = await runConnect(destination, options, command, log);
    },
    async agentRun(options) {
      if (command !== null) throw new TokenfwdError("E_USAGE", "agent run takes no command", { hint: "leave out -- and what follows" });
      const { runAgent } = await import("./agent-run-command.js");
      status = await runAgent(options, log);
    },
  });
  await program.parseAsync(own, { from: "user" });
  return status;
}

/** Commander's complaint as one of ours; null when it only showed help or the version. A value after `=` is not repeated. */
export function fromCommander(thrown: CommanderError): TokenfwdError | null {
  if (thrown.exitCode === 0) return null;
  const help = "tokenfwd --help, or tokenfwd connect --help";
  if (thrown.code === "commander.help") return new TokenfwdError("E_USAGE", "a command is missing", { hint: help });
  const [first = "", ...more] = thrown.message.replace(/^error: /, "").split("\n");
  const suggestion = more.join(" ").trim();
  const message = first
    .replace(/=[^']*'/, "=...'")
    .replace(/\.$/, "")
    .replace(/\. E/, ": e");
  const hint = thrown.code === "commander.excessArguments" ? "put -- before the command to run on the bastion" : suggestion;
  return new TokenfwdError("E_USAGE", message, { hint: hint === "" ? help : hint });
}

/** Says an error that no command could report: as text, and as an event where events were asked for. */
function report(error: TokenfwdError, argv: readonly string[]): void {
  const end = argv.indexOf("--");
  const own = end < 0 ? argv : argv.slice(0, end);
  const { code, message, hint = null, exitCode } = error;
  if (own.includes("--json")) {
    const stream = end < 0 ? process.stdout : process.stderr;
    createEventStream(stream).emit("error", { code, message, hint, exitCode });
    if (end >= 0) return;
  }
  createUi(process.stderr).error(error);
}
