/*
 * The program of the workstation: reads the command line and runs one command, whose code is loaded when it is called. What a
 * command writes and how it fails is its own; it must never start anything before the command line is known to be right.
 */
import type { TokenfwdError } from "../base/errors.js";
import { keepHeapSmall } from "../base/heap.js";
import { createFileLog, type Log, silentLog } from "../base/log.js";
import { bastionHandlers } from "./bastion-program.js";
import { reportAsText, runProcess } from "./command-process.js";
import { createEventStream } from "./event-stream.js";
import { usage } from "./options.js";
import { createProgram } from "./program.js";
import { splitArgv } from "./raw-argv.js";
import { traceHandlers } from "./trace/program.js";

/** What runs on a bastion too has statuses of its own for its failures, whatever stands after `--`. */
const ON_A_BASTION: ReadonlySet<string> = new Set(["doctor", "sign", "keys", "choria"]);
/** Their stdout is one document, or another program's. */
const WITHOUT_EVENTS: ReadonlySet<string> = new Set(["doctor", "keys", "token", "choria"]);

/** Runs the process's own command line and ends the process. */
export async function main(): Promise<void> {
  keepHeapSmall();
  const hasCommand = (argv: readonly string[]): boolean => argv.includes("--") && !ON_A_BASTION.has(argv[0] ?? "");
  await runProcess({ run: runCommandLine, hasCommand, report });
}

async function runCommandLine(argv: readonly string[]): Promise<number> {
  const { own, command } = splitArgv(argv);
  const path = process.env["TOKENFWD_LOG"];
  const log: Log = path ? createFileLog(path) : silentLog;
  let status = 0;
  const noCommand = (name: string): void => {
    if (command !== null) throw usage(`${name} takes no command`, "leave out -- and what follows");
  };
  const bastion = bastionHandlers(command, (ended) => {
    status = ended;
  });
  const program = createProgram({
    ...bastion,
    async connect(destination, options) {
      const { runConnect } = await import("./connect/command.js");
      status = await runConnect(destination, options, command, log);
    },
    async agentRun(options) {
      noCommand("agent run");
      const { runAgent } = await import("./agent-run-command.js");
      status = await runAgent(options, log);
    },
    async doctor(destination, options) {
      const { runDoctor } = await import("./doctor/command.js");
      status = await runDoctor(destination, options, log);
    },
    async tokenList(options) {
      noCommand("token list");
      const { runTokenList } = await import("./token-list-command.js");
      status = await runTokenList(options, log);
    },
    async exportByHand(options) {
      noCommand("export");
      const { runExport } = await import("./export/command.js");
      status = await runExport(options, log);
    },
    trace: traceHandlers(noCommand, (ended) => {
      status = ended;
    }),
  });
  await program.parseAsync(own, { from: "user" });
  return status;
}

/** As text, and as an event where events were asked for. */
function report(error: TokenfwdError, argv: readonly string[]): void {
  const end = argv.indexOf("--");
  const own = end < 0 ? argv : argv.slice(0, end);
  const { code, message, hint = null, reason = null, exitCode } = error;
  if (own.includes("--json") && !WITHOUT_EVENTS.has(own[0] ?? "")) {
    const stream = end < 0 ? process.stdout : process.stderr;
    createEventStream(stream).emit("error", { code, message, hint, cause: reason, exitCode });
    if (end >= 0) return;
  }
  reportAsText(error);
}
