/*
 * The command line as commander sees it: names, options and help of every command. What a command does is loaded when it is
 * called. It must never start anything itself.
 */
import { type Command, Option } from "commander";
import { addBastionCommands, type BastionHandlers, newProgram } from "./bastion-program.js";
import type { RawExportOptions } from "./export/command.js";
import { AGENT_RUN_HELP, CONNECT_HELP, DOCTOR_HELP, EXPORT_HELP, PROGRAM_HELP, TOKEN_LIST_HELP } from "./help.js";
import type { RawTokenOptions } from "./options.js";
import type { RawTokenListOptions } from "./token-list-command.js";
import { addTraceCommands, type TraceHandlers } from "./trace/program.js";

/** The options that say how to reach a destination, as commander hands them over. */
export interface RawSshOptions {
  readonly sshOption: readonly string[];
  readonly config?: string;
  readonly port?: string;
  readonly identity?: string;
  readonly jump?: string;
}

/** The options of doctor as commander hands them over. */
export interface RawDoctorOptions extends RawTokenOptions, RawSshOptions {
  readonly allowFullOverForward?: boolean;
  readonly json?: boolean;
  readonly report?: string;
  readonly socket?: string;
}

/** The options of connect as commander hands them over. */
export interface RawConnectOptions extends RawTokenOptions, RawSshOptions {
  readonly unlock?: string;
  readonly allowFullOverForward?: boolean;
  /** -t true, -T false, the last one wins. */
  readonly tty?: boolean;
  readonly shell?: boolean;
  readonly tools?: boolean;
  readonly stock?: boolean;
  readonly trace?: string;
  readonly choria?: boolean;
  readonly choriaConfig?: string;
  readonly maxTtl?: string;
  readonly ca?: string;
  readonly broker?: readonly string[];
  readonly json?: boolean;
}

/** The options of agent run as commander hands them over. */
export interface RawAgentRunOptions extends RawTokenOptions {
  readonly socket?: string;
  readonly trace?: string;
  readonly json?: boolean;
}

/** What the commands do. Each answers the exit status. */
export interface Handlers extends BastionHandlers {
  connect(destination: string, options: RawConnectOptions): Promise<void>;
  agentRun(options: RawAgentRunOptions): Promise<void>;
  doctor(destination: string | undefined, options: RawDoctorOptions): Promise<void>;
  tokenList(options: RawTokenListOptions): Promise<void>;
  exportByHand(options: RawExportOptions): Promise<void>;
  readonly trace: TraceHandlers;
}

function withTokenOptions(command: Command): Command {
  return command
    .option("--module <path>", "the PKCS#11 module of the token (default: the one module here that shows a token)")
    .option("--token <label|uri>", "the token, by label or pkcs11: URI, when the module has several")
    .option("--key <uri|all>", "expose one key with its certificate, or all")
    .option("--pin-source <source>", "ask (default), file:PATH (mode 0600), fd:N, or client: the PIN that a client sends is used")
    .option("--policy <profile>", "read, sign (default) or full")
    .option("--allow-raw-rsa", "allow CKM_RSA_X_509, which is decryption by another name")
    .option("--hold <seconds>", "release a token that nobody uses after so long, or forever: keep it (default: 60)");
}

function withHosts(command: Command): Command {
  return command.option("--hosts <n>", "processes with the module, for modules that work in parallel: HSMs, software tokens (default: 1)");
}

function withSshOptions(command: Command): Command {
  return command
    .option("--ssh-option <key=value>", "an ssh_config option, repeatable", collected, [])
    .option("-F, --config <file>", "the ssh configuration file")
    .option("-p, --port <port>", "the SSH port")
    .option("-i, --identity <file>", "the SSH key file")
    .option("-J, --jump <host>", "the jump host to go through, as [user@]host[:port]");
}

/** Of an option that may be given more than once. */
const collected = (value: string, all: readonly string[]): string[] => [...all, value];

/** Builds the program. Parsing throws CommanderError instead of ending the process. */
export function createProgram(handlers: Handlers): Command {
  const program = newProgram("Use the hardware token in your workstation from a bastion.", PROGRAM_HELP);

  const connect = withSshOptions(
    withHosts(withTokenOptions(program.command("connect").description("put the token on a bastion, until Ctrl-C or the end of CMD"))),
  )
    .argument("<destination>", "as ssh takes it: a Host of ssh_config, host or user@host")
    .usage("[options] <destination> [-- CMD...]")
    .option("--unlock <when>", "now: ask the PIN before ready; later: when a program first needs it (default: now with CMD or --shell)")
    .option("--allow-full-over-forward", "let --policy full be used from the bastion")
    .option("-t, --tty", "give CMD a terminal, or fail")
    .option("-T, --no-tty", "give CMD no terminal")
    .option("--shell", "open a login shell there, with both variables set, and end with it")
    .option("--tools", "put tokenfwd itself on CMD's PATH on the bastion while connected (Node 20 or newer there)")
    .option("--stock", "serve it with stock p11-kit server in place of our agent: no policy, and the PIN crosses the connection")
    .option("--trace <file>", "write down every call from the bastion, secrets left out; read it with trace show")
    .option("--choria", "let choria there use the token: nothing of ours runs there, and no key, certificate or CA needs to be there")
    .option("--choria-config <file>", "with --choria: a client configuration of this workstation (default: yours on the bastion)")
    .option("--ca <file>", "with --choria: the CA that the broker is checked against (default: the configuration's)")
    .option("--max-ttl <seconds>", "with --choria: the longest ttl of a request that is signed (default 300)")
    .option(
      "--broker <host:port>",
      "with --choria: a broker as the bastion reaches it, repeatable (default: the configuration's)",
      collected,
      [],
    )
    .option("--json", "events as JSON lines on stdout (on stderr with CMD)")
    .addHelpText("after", CONNECT_HELP);
  connect.action((destination: string, options: RawConnectOptions) => handlers.connect(destination, options));

  const agent = program.command("agent").description("serve the token on a socket of this workstation");
  const run = withHosts(withTokenOptions(agent.command("run").description("serve it in the foreground")))
    .option("--socket <path>", "the socket (default: $XDG_RUNTIME_DIR/tokenfwd/agent.sock)")
    .option("--trace <file>", "write down every call, secrets left out; read it with trace show")
    .option("--json", "events as JSON lines on stdout")
    .addHelpText("after", AGENT_RUN_HELP);
  run.action((options: RawAgentRunOptions) => handlers.agentRun(options));

  const token = program.command("token").description("the PKCS#11 modules and tokens of this workstation");
  const list = token
    .command("list")
    .description("list modules, slots, tokens and public objects, and what is wrong with each")
    .option("--module <path>", "look at this module and no other")
    .option("--json", "one JSON document on stdout")
    .addHelpText("after", TOKEN_LIST_HELP);
  list.action((options: RawTokenListOptions) => handlers.tokenList(options));

  const doctor = withSshOptions(
    withTokenOptions(program.command("doctor").description("look at each thing between the key and the program, and say what mends it")),
  )
    .argument("[destination]", "the bastion, as connect takes it (default: this workstation alone)")
    .usage("[options] [destination] [-- CMD...]")
    .option("--allow-full-over-forward", "let --policy full be used from the bastion")
    .option("--socket <path>", "on a bastion: look at that side, through this socket")
    .option("--json", "one JSON document on stdout")
    .option("--report <file>", "write what was found to a new file, for a bug report; no secret is in it")
    .addHelpText("after", DOCTOR_HELP);
  // What says how connect runs changes nothing here, and may stay where somebody wrote doctor in the place of connect.
  for (const { flags, long, description } of connect.options)
    if (!doctor.options.some((own) => own.long === long)) doctor.addOption(new Option(flags, description).hideHelp());
  doctor.action((destination: string | undefined, options: RawDoctorOptions) => handlers.doctor(destination, options));

  const byHand = program
    .command("export")
    .description("print how to do it by hand, with stock p11-kit and ssh")
    .option("--ssh-config <destination>", "for this destination: a Host block, and the lines to type")
    .option("--module <path>", "the PKCS#11 module of the token (default: the one module here that shows a token)")
    .option("--token <label|uri>", "the token, by label or pkcs11: URI, when the module has several")
    .option("-F, --config <file>", "the ssh configuration file")
    .addHelpText("after", EXPORT_HELP);
  byHand.action((options: RawExportOptions) => handlers.exportByHand(options));

  addTraceCommands(program, handlers.trace);
  addBastionCommands(program, handlers);
  return program;
}
