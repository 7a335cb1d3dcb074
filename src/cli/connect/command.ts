/*
 * From the command line of `connect` to a running connect: checks every option first, then brings the real parts together. It must
 * never start a module, a socket or a connection before all options have been found good.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createAgent } from "../../agent/agent.js";
import { inspectToken } from "../../agent/inspect.js";
import { openStock } from "../../agent/stock.js";
import { TokenfwdError } from "../../base/errors.js";
import type { Log } from "../../base/log.js";
import { workstationId } from "../../base/paths.js";
import { printable } from "../../base/printable.js";
import { run } from "../../base/run.js";
import { connectBastion } from "../../forward/forward.js";
import { resolveSshSettings } from "../../forward/ssh-settings.js";
import { findModule } from "../../token/discovery/discover.js";
import { checkModuleFile } from "../../token/host/module-file.js";
import type { Tracing } from "../../trace/tracing.js";
import { createEventStream, noEvents } from "../event-stream.js";
import { createLifetime, type Lifetime, processSignals } from "../lifetime.js";
import { openModule } from "../open-module.js";
import { checkFile, checkTokenOptions, parseNumber, usage } from "../options.js";
import type { RawConnectOptions, RawSshOptions } from "../program.js";
import { createTerminal } from "../terminal.js";
import { createTouchNotice } from "../touch-notice.js";
import { agentTap, takeTrace } from "../trace/take.js";
import { createUi, silentUi } from "../ui.js";
import { checkChoriaOptions } from "./choria-options.js";
import { type ConnectOptions, connect } from "./connect.js";
import { checkStockOptions } from "./stock.js";

const SSH_OPTION = /^[A-Za-z]+[= ]/;

/** What --tools sends: it lies beside this package's code. */
const BUNDLE = fileURLToPath(new URL("../../tokenfwd-bastion.cjs", import.meta.url));

/** Reads the file that --tools sends. Throws E_TOOLS. */
export function readBundle(path = BUNDLE): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TokenfwdError("E_TOOLS", `--tools: ${path} of this installation cannot be read`, {
      hint: "install tokenfwd again (in a checkout: npm run build)",
      cause: error,
    });
  }
}

/** Throws E_USAGE. */
export function checkDestination(destination: string): void {
  if (destination === "" || destination.startsWith("-"))
    throw usage("the destination is not one", "write it as ssh takes it: user@host, or a Host of ssh_config");
}

/** What ssh is told, from the options. Throws E_USAGE. */
export function checkSshOptions(raw: RawSshOptions): ConnectOptions["ssh"] {
  if (raw.sshOption.some((option) => !SSH_OPTION.test(option)))
    throw usage("--ssh-option takes KEY=VALUE", "for example --ssh-option ConnectTimeout=10");
  if (raw.jump !== undefined && !/^[^\s-]\S*$/.test(raw.jump)) throw usage("-J takes a host", "for example -J ops@gate.example:2222");
  return {
    // The first value counts for ssh.
    sshOptions: raw.jump === undefined ? raw.sshOption : [`ProxyJump=${raw.jump}`, ...raw.sshOption],
    ...(raw.config === undefined ? {} : { configFile: raw.config === "none" ? raw.config : checkFile(raw.config, "-F") }),
    ...(raw.port === undefined ? {} : { port: parseNumber(raw.port, "-p", 1, 65535) }),
    ...(raw.identity === undefined ? {} : { identity: checkFile(raw.identity, "-i") }),
  };
}

/** Checks the options of connect. Throws E_USAGE, E_FULL_OVER_FORWARD and E_TOOLS. */
export function checkConnectOptions(
  destination: string,
  raw: RawConnectOptions,
  command: readonly (string | Buffer)[] | null,
): ConnectOptions {
  checkDestination(destination);
  if (command !== null && command.length === 0)
    throw usage("-- stands there without a command", "leave it out, or put the command after it");
  if (raw.tty === true && command === null && raw.shell !== true)
    throw usage("-t is for a command, and there is none", "put the command after --");
  const choria = checkChoriaOptions(raw);
  if (raw.stock === true) checkStockOptions(raw);
  if (raw.shell === true && command !== null) throw usage("--shell and a command exclude each other", "leave one of them out");
  if (raw.shell === true && raw.tty === false) throw usage("--shell needs a terminal, and -T gives none", "leave out -T");
  const token = checkTokenOptions(raw);
  if (token.profile === "full" && raw.allowFullOverForward !== true) {
    throw new TokenfwdError("E_FULL_OVER_FORWARD", "--policy full lets the bastion change and delete keys", {
      hint: "use --policy sign, or add --allow-full-over-forward if that is what you want",
    });
  }
  const { unlock } = raw;
  if (unlock !== undefined && unlock !== "now" && unlock !== "later")
    throw usage("--unlock takes now or later", "now asks for the PIN before ready");
  return {
    ...token,
    destination,
    unlock: unlock ?? null,
    ssh: checkSshOptions(raw),
    pty: raw.tty === true || raw.shell === true ? "force" : raw.tty === undefined ? "auto" : "forbid",
    command: raw.shell === true ? "shell" : command,
    tools: raw.tools === true ? readBundle() : null,
    stock: raw.stock === true,
    choria,
  };
}

/** Runs connect on the process's own streams. Throws the errors of checkConnectOptions; everything later is reported. */
export async function runConnect(
  destination: string,
  raw: RawConnectOptions,
  command: readonly (string | Buffer)[] | null,
  log: Log,
): Promise<number> {
  if (process.env["TOKENFWD_NESTED"] === "1")
    throw usage("called from within ssh -G", "a Match exec in ssh_config must not run tokenfwd connect");
  const options = checkConnectOptions(destination, raw, command);
  const work = options.command;
  const json = raw.json === true;
  const lifetime = createLifetime(processSignals);
  const { stdin, stdout, stderr } = process;
  if (work === "shell" && (stdin.isTTY !== true || stdout.isTTY !== true))
    throw usage("--shell needs a terminal on stdin and stdout", "for a script, put a command after --");
  // Whoever read our events or CMD's output has gone: what is left to do is to clean up.
  stdout.on("error", () => lifetime.stop("SIGPIPE"));
  const around = {
    stdio: { stdin, stdout, stderr },
    terminal: createTerminal(),
    createUi: (isRaw: () => boolean) => {
      if (!json) return createUi(stderr, isRaw);
      if (work !== null) return silentUi;
      const ui = createUi(stderr, isRaw);
      return { ...silentUi, warning: ui.warning, error: ui.error };
    },
    events: json ? createEventStream(work === null ? stdout : stderr) : noEvents,
    log,
    lifetime,
    term: process.env["TERM"] ?? "dumb",
    onTouch: createTouchNotice({ terminal: stderr, env: process.env, run }),
  };
  const tracing = traceOf(options, raw, lifetime);
  return connect(options, around, {
    openModule,
    inspectToken,
    createAgent: tracing === null ? createAgent : (given) => createAgent({ ...given, tap: agentTap(tracing) }),
    findModule,
    openStock:
      tracing === null
        ? openStock
        : (given) => openStock({ ...given, tap: () => tracing.tap({ kind: "forward", destination: printable(destination) }) }),
    resolveSshSettings,
    checkModule: checkModuleFile,
    connectBastion,
    workstationId,
    planChoria: async (...given) => (await import("./choria.js")).planChoria(...given),
  });
}

/** The trace of `--trace`, null without. Its lines end so that they read right on a terminal in raw mode too, and are none of the events. */
function traceOf({ destination, command }: ConnectOptions, { trace, json }: RawConnectOptions, lifetime: Lifetime): Tracing | null {
  if (trace === undefined) return null;
  const ui = createUi(process.stderr, () => process.stderr.isTTY === true);
  const quiet = command === null ? { ...silentUi, warning: ui.warning } : silentUi;
  return takeTrace({ path: trace, data: false, of: { destination: printable(destination) } }, lifetime, json === true ? quiet : ui);
}
