/*
 * The commands of trace as commander sees them, with what their --help says. It must never start anything itself.
 */
import type { Command } from "commander";
import { STATUS } from "../help.js";
import type { RawTraceShowOptions } from "./show-command.js";
import type { RawTraceOptions } from "./trace-command.js";

/** What the commands do. */
export interface TraceHandlers {
  trace(options: RawTraceOptions): Promise<void>;
  show(file: string, options: RawTraceShowOptions): Promise<void>;
}

/** The commands' own handlers; `ended` gets the exit status. */
export function traceHandlers(noCommand: (name: string) => void, ended: (status: number) => void): TraceHandlers {
  return {
    async trace(options) {
      noCommand("trace");
      const { runTrace } = await import("./trace-command.js");
      ended(await runTrace(options));
    },
    async show(file, options) {
      noCommand("trace show");
      const { runTraceShow } = await import("./show-command.js");
      ended(runTraceShow(file, options));
    },
  };
}

/** Adds `trace` and `trace show`. */
export function addTraceCommands(program: Command, handlers: TraceHandlers): void {
  const trace = program
    .command("trace")
    .description("write down what passes between a PKCS#11 client and its server, without its secrets")
    .option("--socket <path>", "the server's socket: of our agent, or of p11-kit server")
    .option("--listen <path>", "the socket to make, which clients are given in its place")
    .option("--data", "write down what is signed, encrypted and answered too (never a PIN)")
    .option("-o, --output <file>", "a file to make, for trace show (default: text on stdout)")
    .addHelpText("after", TRACE_HELP);
  trace.action((options: RawTraceOptions) => handlers.trace(options));
  const show = trace
    .command("show")
    .description("show a trace that was written to a file")
    .argument("<file>", "of trace -o, connect --trace or agent run --trace")
    .option("--format <format>", "text (default) or jsonl")
    .option("--html <file>", "make one page for a browser instead")
    .option("--summary", "the summary alone")
    .option("--connection <n>", "of this connection alone")
    .option("--call <names>", "these calls alone, with commas, * for any characters")
    .option("--failed", "what failed alone")
    .option("--slower <ms>", "calls that took so long or longer")
    .addHelpText("after", TRACE_SHOW_HELP);
  show.action((file: string, options: RawTraceShowOptions) => handlers.show(file, options));
}

const TRACE_HELP = `
What happens:
  A socket is made at --listen (mode 0600) that leads to --socket: our agent, or stock p11-kit server.
  What passes is passed on at once and unchanged, and written down: each call with its arguments by
  name, its result, how long it took, and for which connection. Without -o it is printed as it comes;
  with -o it goes to a file (0600, made new) that trace show reads. Ctrl-C ends it, with a summary.

  No PIN is ever written down, nor how long one is. Keys, what is signed and what comes out stand there
  by their length; --data writes them too.

Examples:
  tokenfwd trace --socket $XDG_RUNTIME_DIR/p11-kit/pkcs11 --listen /run/user/1000/t/s
  tokenfwd trace --socket S --listen L -o sign.trace
  tokenfwd connect bastion --trace sign.trace
      the same for everything that comes from the bastion, with no socket in between
  tokenfwd trace show sign.trace --html sign.html

${STATUS}
`;

const TRACE_SHOW_HELP = `
Examples:
  tokenfwd trace show sign.trace
  tokenfwd trace show sign.trace --summary
  tokenfwd trace show sign.trace --failed
  tokenfwd trace show sign.trace --call 'C_Sign*' --slower 20
  tokenfwd trace show sign.trace --format jsonl | jq -r 'select(.kind == "call") | .call'
  tokenfwd trace show sign.trace --html sign.html

The page of --html is one file that needs no network. Exit status: 0 ok   1 other   2 usage, or no trace
`;
