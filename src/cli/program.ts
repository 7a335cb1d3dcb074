/*
 * The command line as commander sees it: names, options and help of every command. What a command does is loaded when it is
 * called. It must never start anything itself.
 */
import { Command } from "commander";
import { version } from "../base/version.js";
import { AGENT_RUN_HELP, CONNECT_HELP, PROGRAM_HELP } from "./help.js";
import type { RawTokenOptions } from "./options.js";

/** The options of connect as commander hands them over. */
export interface RawConnectOptions extends RawTokenOptions {
  readonly unlock?: string;
  readonly allowFullOverForward?: boolean;
  readonly sshOption: readonly string[];
  readonly config?: string;
  readonly port?: string;
  readonly identity?: string;
  /** -t true, -T false, the last one wins. */
  readonly tty?: boolean;
  readonly json?: boolean;
}

/** The options of agent run as commander hands them over. */
export interface RawAgentRunOptions extends RawTokenOptions {
  readonly socket?: string;
  readonly json?: boolean;
}

/** What the commands do. Each answers the exit status. */
export interface Handlers {
  connect(destination: string, options: RawConnectOptions): Promise<void>;
  agentRun(options: RawAgentRunOptions): Promise<void>;
}

function withTokenOptions(command: Command): Command {
  return command
    .option("--module <path>", "the PKCS#11 module of the token")
    .option("--token <label|uri>", "the token, by label or pkcs11: URI, when the module has several")
    .option("--key <uri|all>", "expose one key with its certificate, or all")
    .option("--pin-source <source>", "ask (default), file:PATH (mode 0600), fd:N, or client: the PIN that a client sends is used")
    .option("--policy <profile>", "read, sign (default) or full")
    .option("--allow-raw-rsa", "allow CKM_RSA_X_509, which is decryption by another name");
}

/** Builds the program. Parsing throws CommanderError instead of ending the process. */
export function createProgram(handlers: Handlers): Command {
  const program = new Command("tokenfwd")
    .description("Use the hardware token in your workstation from a bastion.")
    .version(version(), "--version", "print the version")
    .helpOption("-h, --help", "say what it does")
    .addHelpText("after", PROGRAM_HELP)
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .showSuggestionAfterError(true);

  const connect = withTokenOptions(program.command("connect").description("put the token on a bastion, until Ctrl-C or the end of CMD"))
    .argument("<destination>", "as ssh takes it: a Host of ssh_config, host or user@host")
    .usage("[options] <destination> [-- CMD...]")
    .option("--unlock <when>", "now: ask the PIN before ready; later: when a program first needs it (default: now with CMD)")
    .option("--allow-full-over-forward", "let --policy full be used from the bastion")
    .option("--ssh-option <key=value>", "an ssh_config option, repeatable", (value: string, all: string[]) => [...all, value], [])
    .option("-F, --config <file>", "the ssh configuration file")
    .option("-p, --port <port>", "the SSH port")
    .option("-i, --identity <file>", "the SSH key file")
    .option("-t, --tty", "give CMD a terminal, or fail")
    .option("-T, --no-tty", "give CMD no terminal")
    .option("--json", "events as JSON lines on stdout (on stderr with CMD)")
    .addHelpText("after", CONNECT_HELP);
  connect.action((destination: string, options: RawConnectOptions) => handlers.connect(destination, options));

  const agent = program.command("agent").description("serve the token on a socket of this workstation");
  const run = withTokenOptions(agent.command("run").description("serve it in the foreground"))
    .option("--socket <path>", "the socket (default: $XDG_RUNTIME_DIR/tokenfwd/agent.sock)")
    .option("--json", "events as JSON lines on stdout")
    .addHelpText("after", AGENT_RUN_HELP);
  run.action((options: RawAgentRunOptions) => handlers.agentRun(options));
  return program;
}
