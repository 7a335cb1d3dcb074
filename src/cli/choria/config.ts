/*
 * `tokenfwd choria config`: prints what a stock choria needs for one of three set-ups, filled in from the configuration and the
 * token that are here. It must never fail because one of the two is not, and never writes a file.
 */
import { isAbsolute, resolve } from "node:path";
import type { Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { type ConnectOptions, connectClient, type TokenfwdClient } from "../../bastion/client/index.js";
import { parseBroker } from "../../choria/config/brokers.js";
import { type ClientConfig, type ReadClientConfigOptions, readClientConfig } from "../../choria/config/client-config.js";
import { findClientModule } from "../../choria/config/client-module.js";
import type { Look } from "../../choria/config/finding.js";
import { clientHere, lookHere } from "../../choria/config/here.js";
import { SETUPS, type Setup, setupText } from "../../choria/config/setup-text.js";
import { hostPort } from "../../choria/loopback.js";
import { createLifetime, type Lifetime, processSignals } from "../lifetime.js";
import { usage } from "../options.js";
import { checkSocket } from "../sign/options.js";
import { writeResult } from "../sign/output.js";
import { createUi, type Ui } from "../ui.js";
import type { RawConfigOptions } from "./config-options.js";
import { findIdentity } from "./identity.js";

/** An agent that does not answer in this time is one that is not there. */
const TOKEN_MS = 10_000;

/** What it works with; tests hand in their own. */
export interface ConfigAround {
  readonly stdout: Writable;
  readonly ui: Ui;
  readonly lifetime: Lifetime;
  readonly env: NodeJS.ProcessEnv;
  readonly here: Omit<ReadClientConfigOptions, "choriaConfig">;
  readonly look: Look;
  connect(options: ConnectOptions): Promise<TokenfwdClient>;
}

/** Runs it on the process's own streams. */
export async function runConfig(raw: RawConfigOptions): Promise<number> {
  const { stdout, stderr, env } = process;
  const lifetime = createLifetime(processSignals);
  return config(raw, { stdout, ui: createUi(stderr), lifetime, env, here: clientHere(env), look: lookHere, connect: connectClient });
}

/** Prints once and answers 0. Rejects with E_USAGE. */
export async function config(raw: RawConfigOptions, around: ConfigAround): Promise<number> {
  const { stdout, lifetime, ui, here } = around;
  const setup = parseSetup(raw.mode ?? "relay");
  const brokers = (raw.broker ?? []).map(checkBroker);
  if (raw.name !== undefined && !/^[\w.-]+$/.test(raw.name)) {
    throw usage("--name takes the CN of a certificate that servers take: letters, digits, _ . and -", "for example --name ptittle");
  }
  const ca = raw.ca === undefined ? null : checkPath(raw.ca, here.cwd);
  const socket = checkSocket(raw.socket);
  try {
    const own = await ownConfig(around);
    const name = raw.name ?? (await nameOnToken(socket, around));
    const text = setupText(setup, {
      name,
      brokers: brokers.length > 0 ? brokers : brokersIn(own),
      ca: ca ?? (own?.ca && PLAIN_PATH.test(own.ca) ? own.ca : null),
      collectives: own?.collectives.map((one) => printable(one)) ?? ["mcollective"],
      mainCollective: printable(own?.mainCollective ?? "mcollective"),
      module: await findClientModule(around.look),
    });
    await writeResult(stdout, text);
    if (name === null) ui.warning("no certificate of a token can be seen here: write your name in the place of YOUR-NAME, or give --name");
    return 0;
  } catch (thrown) {
    throw lifetime.signal.aborted ? lifetime.signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}

function parseSetup(word: string): Setup {
  const found = SETUPS.find((one) => one === word);
  if (found !== undefined) return found;
  throw usage(`--mode takes ${SETUPS.join(", ")}, and not ${printable(word, 100)}`, "tokenfwd choria config --help says what each is");
}

function checkBroker(word: string): string {
  const broker = parseBroker(word);
  if (broker === null)
    throw usage(`--broker takes HOST:PORT, and ${printable(word, 100)} is none`, "for example --broker broker.example.net:4222");
  return hostPort(broker);
}

/** One that a shell takes as it stands, without quotes: the text has a command line to copy. */
const PLAIN_PATH = /^[\w@%+=:,./~-]+$/;

/** A path that can stand in a line of the configuration and of a shell. */
function checkPath(path: string, cwd: string): string {
  if (path === "" || /[\s#"'\p{Cc}]/u.test(path)) throw usage("--ca takes a path without blanks, quotes and #", "choria strips no quotes");
  return path.startsWith("~/") || isAbsolute(path) ? path : resolve(cwd, path);
}

/** The configuration that is here, null when there is none or it cannot be read. */
async function ownConfig({ here }: ConfigAround): Promise<ClientConfig | null> {
  try {
    return await readClientConfig(here);
  } catch (error) {
    if (error instanceof TokenfwdError) return null;
    throw error;
  }
}

/** Those that are named, a relay of ours aside: SRV records change, and are not looked up. */
function brokersIn(own: ClientConfig | null): string[] {
  return (own?.middlewareHosts ?? []).flatMap((word) => {
    const broker = parseBroker(word);
    return broker === null || broker.host.startsWith("127.") || broker.host === "::1" ? [] : [hostPort(broker)];
  });
}

async function nameOnToken(socket: string | null, { lifetime, env, connect }: ConfigAround): Promise<string | null> {
  const signal = AbortSignal.any([lifetime.signal, AbortSignal.timeout(TOKEN_MS)]);
  try {
    const client = await connect({ ...(socket === null ? {} : { socket }), env, client: "tokenfwd choria config", snapshot: true, signal });
    lifetime.defer(() => client.close());
    return (await findIdentity(client, { signal })).identity.commonName;
  } catch (error) {
    if (lifetime.signal.aborted || (socket !== null && error instanceof TokenfwdError)) throw error;
    return null;
  }
}
