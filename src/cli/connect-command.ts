/*
 * From the command line of `connect` to a running connect: checks every option first, then brings the real parts together. It must
 * never start a module, a socket or a connection before all options have been found good.
 */
import { createAgent } from "../agent/agent.js";
import { inspectToken } from "../agent/inspect.js";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { workstationId } from "../base/paths.js";
import { openForward } from "../forward/forward.js";
import { resolveSshSettings } from "../forward/ssh-settings.js";
import { createTokenHost } from "../token/host/host.js";
import { type ConnectOptions, connect } from "./connect.js";
import { createEventStream, noEvents } from "./event-stream.js";
import { createLifetime, processSignals } from "./lifetime.js";
import { checkFile, checkTokenOptions, parseNumber, usage } from "./options.js";
import type { RawConnectOptions } from "./program.js";
import { createTerminal } from "./terminal.js";
import { createUi, silentUi } from "./ui.js";

const SSH_OPTION = /^[A-Za-z]+[= ]/;

/** Checks the options of connect. Throws E_USAGE and E_FULL_OVER_FORWARD. */
export function checkConnectOptions(
  destination: string,
  raw: RawConnectOptions,
  command: readonly (string | Buffer)[] | null,
): ConnectOptions {
  if (destination === "" || destination.startsWith("-"))
    throw usage("the destination is not one", "write it as ssh takes it: user@host, or a Host of ssh_config");
  if (command !== null && command.length === 0)
    throw usage("-- stands there without a command", "leave it out, or put the command after it");
  if (raw.tty === true && command === null) throw usage("-t is for a command, and there is none", "put the command after --");
  const token = checkTokenOptions(raw);
  if (token.profile === "full" && raw.allowFullOverForward !== true) {
    throw new TokenfwdError("E_FULL_OVER_FORWARD", "--policy full lets the bastion change and delete keys", {
      hint: "use --policy sign, or add --allow-full-over-forward if that is what you want",
    });
  }
  const { unlock } = raw;
  if (unlock !== undefined && unlock !== "now" && unlock !== "later")
    throw usage("--unlock takes now or later", "now asks for the PIN before ready");
  if (raw.sshOption.some((option) => !SSH_OPTION.test(option)))
    throw usage("--ssh-option takes KEY=VALUE", "for example --ssh-option ConnectTimeout=10");
  return {
    ...token,
    destination,
    unlock: unlock ?? null,
    ssh: {
      sshOptions: raw.sshOption,
      ...(raw.config === undefined ? {} : { configFile: raw.config === "none" ? raw.config : checkFile(raw.config, "-F") }),
      ...(raw.port === undefined ? {} : { port: parseNumber(raw.port, "-p", 1, 65535) }),
      ...(raw.identity === undefined ? {} : { identity: checkFile(raw.identity, "-i") }),
    },
    pty: raw.tty === undefined ? "auto" : raw.tty ? "force" : "forbid",
    command,
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
  const json = raw.json === true;
  const lifetime = createLifetime(processSignals);
  const { stdin, stdout, stderr } = process;
  // Whoever read our events or CMD's output has gone: what is left to do is to clean up.
  stdout.on("error", () => lifetime.stop("SIGPIPE"));
  const around = {
    stdio: { stdin, stdout, stderr },
    terminal: createTerminal(),
    createUi: (isRaw: () => boolean) => {
      if (!json) return createUi(stderr, isRaw);
      if (command !== null) return silentUi;
      const ui = createUi(stderr, isRaw);
      return { ...silentUi, warning: ui.warning, error: ui.error };
    },
    events: json ? createEventStream(command === null ? stdout : stderr) : noEvents,
    log,
    lifetime,
    term: process.env["TERM"] ?? "dumb",
  };
  return connect(options, around, { createTokenHost, inspectToken, createAgent, resolveSshSettings, openForward, workstationId });
}
