/*
 * `tokenfwd trace`: a socket that leads to another one and writes down what passes. It must never let a client wait for the trace,
 * and never listen where somebody else lives.
 */
import { connect } from "node:net";
import { resolve } from "node:path";
import { listenOn } from "../../agent/listen.js";
import { TokenfwdError } from "../../base/errors.js";
import { lstatOrNull } from "../../base/paths.js";
import { printable, shellWord } from "../../base/printable.js";
import { joinTapped } from "../../trace/join.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";
import { createLifetime, type Lifetime, processSignals } from "../lifetime.js";
import { usage } from "../options.js";
import { createUi, type Ui } from "../ui.js";
import { takeTrace } from "./take.js";

/** The options of trace as commander hands them over. */
export interface RawTraceOptions {
  readonly socket?: string;
  readonly listen?: string;
  readonly data?: boolean;
  readonly output?: string;
}

/** Runs until it is told to stop. Answers 0. Throws E_USAGE, E_AGENT_SOCKET, E_SOCKET_PATH and E_AGENT_LIVE before it listens. */
export async function runTrace(raw: RawTraceOptions): Promise<number> {
  const target = checkSocket(raw.socket, "--socket", "the server's socket");
  const listen = checkSocket(raw.listen, "--listen", "the socket to make, which clients are given in its place");
  if (target === listen) throw usage("--socket and --listen name one path", "let --listen name another one");
  checkTarget(target);
  const lifetime = createLifetime(processSignals);
  const ui = createUi(process.stderr);
  const { stdout } = process;
  stdout.on("error", () => lifetime.stop("SIGPIPE"));
  try {
    const of = { socket: printable(target), listen: printable(listen) };
    const onText = (text: string): void => void stdout.write(text);
    const tracing = takeTrace({ path: raw.output ?? null, data: raw.data === true, of, onText }, lifetime, ui);
    const refused = createRefusals(target, ui);
    const listening = await listenOn({
      path: listen,
      onStream(client) {
        const server = connect({ path: target, allowHalfOpen: true });
        const onRefused = (error: NodeJS.ErrnoException): void => {
          refused(error);
          client.destroy();
        };
        server.once("error", onRefused);
        client.once("close", () => server.destroySoon());
        server.once("connect", () => {
          server.off("error", onRefused);
          // Never rejects.
          void joinTapped(client, server, tracing.tap({ kind: "local" }));
        });
      },
    });
    lifetime.defer(() => listening.close());
    ui.line(`tracing ${printable(target)} on ${printable(listening.path)} until Ctrl-C`);
    ui.hint(`for the client: export P11_KIT_SERVER_ADDRESS=${shellWord(p11KitAddress(listening.path))}`);
    await stopped(lifetime);
    return 0;
  } finally {
    await lifetime.close();
  }
}

async function stopped(lifetime: Lifetime): Promise<void> {
  await lifetime.stopped;
}

function checkSocket(path: string | undefined, option: string, what: string): string {
  if (path === undefined || path === "") throw usage(`${option} is missing`, `${option} PATH names ${what}`);
  return resolve(path);
}

function checkTarget(path: string): void {
  if (lstatOrNull(path)?.isSocket() === true || lstatOrNull(path)?.isSymbolicLink() === true) return;
  throw new TokenfwdError("E_AGENT_SOCKET", `there is no socket at ${printable(path)}`, {
    hint: "start the server first: tokenfwd agent run, or p11-kit server, both of which print where they listen",
  });
}

/** Says each reason once. */
function createRefusals(target: string, ui: Ui): (error: NodeJS.ErrnoException) => void {
  const said = new Set<string>();
  return ({ code = "unknown reason" }) => {
    if (said.has(code)) return;
    said.add(code);
    ui.warning(`${printable(target)} takes no connection: ${code}`);
  };
}
