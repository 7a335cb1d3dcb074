/*
 * `tokenfwd choria run`: signer and relay in this process, choria as its child, and everything gone when it ends. It must never
 * start choria before a broker has taken the token's key, and never leave a secret behind.
 */
import { TokenfwdError } from "../../base/errors.js";
import { createFileLog, type Log, silentLog } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import { type ConnectOptions, connectClient } from "../../bastion/client/index.js";
import { overlayPlaces } from "../../choria/config/client-config.js";
import { clientHere, domainHere, readHere } from "../../choria/config/here.js";
import { dialTcp } from "../../choria/dial.js";
import { hostPort, listenLoopback } from "../../choria/loopback.js";
import { childEnvironment } from "../../choria/run/child-environment.js";
import { findProgram } from "../../choria/run/find-program.js";
import { createPrivateDirectory, type PrivateDirectory } from "../../choria/run/private-directory.js";
import { superviseChoria } from "../../choria/run/supervise.js";
import { patientTimeout, throwawayConfig } from "../../choria/run/throwaway.js";
import { namesConfig, withConfig } from "../../choria/run/words.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";
import { createLifetime, type Lifetime, signalStatus } from "../lifetime.js";
import { usage } from "../options.js";
import { createUi, type Ui } from "../ui.js";
import { whenAgentIsGone } from "./agent-watch.js";
import { type Backing, brokerNames, openBacking, tellOfToken } from "./backing.js";
import { parseMaxTtl } from "./max-ttl.js";
import { type OwnConfig, parseBrokers, readCaFile, readOwnConfig } from "./own-config.js";
import { createPinMemory, tokenOf } from "./pin-memory.js";
import type { Words } from "./program.js";
import type { RawRunOptions } from "./run-options.js";
import { checkTokenAccess, openIdentity, type TokenAccess } from "./token-access.js";

/** The status of every failure of ours but that of a wrong command line. */
const OURS = 50;

interface Plan {
  readonly access: TokenAccess;
  readonly words: readonly (string | Buffer)[];
  readonly maxTtlSeconds: number;
  readonly program: string;
  readonly own: OwnConfig;
  readonly ownDir: boolean;
  readonly directory: PrivateDirectory;
}

/** Runs it on the process's own streams and answers the exit status. Throws E_USAGE; everything else has been said. */
export async function runChoria(raw: RawRunOptions, words: Words): Promise<number> {
  const ui = createUi(process.stderr);
  const signals = passedOn();
  const lifetime = createLifetime(signals.source);
  const path = process.env["TOKENFWD_LOG"];
  const log = path ? createFileLog(path) : silentLog;
  try {
    const plan = await prepare(raw, words, lifetime);
    return await run(plan, { lifetime, ui, log, signals });
  } catch (thrown) {
    const error =
      lifetime.stoppedBy === null ? TokenfwdError.from(thrown) : new TokenfwdError("E_INTERRUPTED", "interrupted before choria ran");
    if (error.code === "E_USAGE") throw error;
    log.error("choria run failed", { code: error.code, message: error.message, cause: error.cause });
    ui.error(error);
    return error.code === "E_INTERRUPTED" ? error.exitCode : OURS;
  } finally {
    await lifetime.close();
  }
}

/** What can be found wrong before the token is asked for anything. */
async function prepare(raw: RawRunOptions, words: Words, lifetime: Lifetime): Promise<Plan> {
  if (words === null || words.length === 0)
    throw usage("nothing to run", "put choria's words behind --: tokenfwd choria run -- req rpcutil ping");
  if (namesConfig(words)) {
    throw usage("--config of choria would lead around the token", "give your configuration to this command: --choria-config FILE");
  }
  if (withConfig(words, "") === null)
    throw usage(`${printable(words.join(" "), 100)} of choria has no use for the token`, "run it without this command");
  // Node passes on text alone, and a changed word is not what was asked for.
  if (words.some((word) => typeof word !== "string" && !Buffer.from(word.toString("utf8")).equals(word)))
    throw usage("an argument of choria's is not UTF-8", "run it without this command, by connect --choria");
  const access = checkTokenAccess(raw);
  const maxTtlSeconds = parseMaxTtl(raw.maxTtl);
  const brokers = parseBrokers(raw.broker);
  const caPem = raw.ca === undefined ? null : readCaFile(raw.ca);
  const program = findProgram("choria", process.env["PATH"]);
  if (program === null) {
    throw new TokenfwdError("E_CHORIA", "there is no choria on the PATH", { hint: "install it, or let PATH lead to it" });
  }
  const directory = createPrivateDirectory();
  lifetime.defer(() => directory.remove());
  const ownDir = raw.ownDir === true;
  const here = clientHere(process.env);
  const own = await readOwnConfig({
    ...here,
    ...(ownDir ? { cwd: directory.path } : {}),
    ...(raw.choriaConfig === undefined ? {} : { choriaConfig: raw.choriaConfig }),
    caPem,
    brokers,
    domain: domainHere(),
    overlaid,
  });
  return { access, words, maxTtlSeconds, program, own, ownDir, directory };
}

function overlaid(path: string): TokenfwdError {
  return new TokenfwdError("E_CHORIA_CONFIG", `${path} would override the configuration of this run, as it overrides every other`, {
    hint: "run it in another directory, or in one of its own: --own-dir",
  });
}

/** Looked at before; but a touch may have taken minutes, and above the user's directory there may be one where anybody can write. */
async function stillNoneOver(cwd: string): Promise<void> {
  // One that cannot be read would be the end of choria too.
  for (const path of overlayPlaces(cwd)) if ((await readHere(path).catch(() => "")) !== null) throw overlaid(printable(path));
}

interface Around {
  readonly lifetime: Lifetime;
  readonly ui: Ui;
  readonly log: Log;
  readonly signals: ReturnType<typeof passedOn>;
}

async function run(plan: Plan, { lifetime, ui, log, signals }: Around): Promise<number> {
  const { own, directory, words, program, ownDir } = plan;
  const { signal } = lifetime;
  using pins = createPinMemory();
  const ending = new AbortController();
  lifetime.defer(() => ending.abort());
  const once = ({ pin, ...more }: ConnectOptions) => connectClient({ ...more, ...(pin === undefined ? {} : { pin: pins.once(pin) }) });
  const opened = await openIdentity(plan.access, "tokenfwd choria run", { lifetime, ui, env: process.env, connect: once });
  const { identity, client } = opened;
  const backing = openBacking({
    ...opened,
    brokers: own.brokers,
    dial: dialTcp,
    caPem: own.caPem,
    address: p11KitAddress(client.socket),
    pin: (stop) => pins.once(opened.pin.provider)(tokenOf(identity.keyUri), stop),
    maxTtlSeconds: plan.maxTtlSeconds,
    log,
  });
  lifetime.defer(() => backing.close());
  tellOfToken(backing, client);
  const waitedSeconds = await backing.prewarm({ signal });
  const discoveryTimeout = patientTimeout(own.config, waitedSeconds);
  const loopback = { host: "127.0.0.1", port: 0 };
  const signer = await listenLoopback(loopback, (stream) => backing.serveSigner(stream));
  lifetime.defer(() => signer.close());
  const relay = await listenLoopback(loopback, (stream) => backing.serveRelay(stream));
  lifetime.defer(() => relay.close());
  const file = writeFiles(directory, own, backing, { signer: hostPort(signer), relay: hostPort(relay), discoveryTimeout });
  await stillNoneOver(ownDir ? directory.path : clientHere(process.env).cwd);
  signal.throwIfAborted();

  ui.line(
    `choria runs as choria=${printable(identity.commonName)}: TLS to ${printable(brokerNames(own.brokers))} is made here with the token's key`,
  );
  if (discoveryTimeout !== null)
    ui.line(`the token was waited for: answers are waited for ${discoveryTimeout} s where choria takes its time from the configuration`);
  const end = await superviseChoria({
    program,
    args: (withConfig(words, file) ?? []).map(String),
    env: childEnvironment(process.env, { commonName: identity.commonName, ...backing.login }),
    cwd: ownDir ? directory.path : process.cwd(),
    directory: directory.path,
    stderr: process.stderr,
    gone: Promise.race([backing.gone, whenAgentIsGone(client, ending.signal)]),
    onSignal: (pass) => signals.passTo(pass),
  });
  opened.warnOfUnusedPin();
  return end.code ?? signalStatus(end.signal ?? "SIGKILL");
}

interface Places {
  readonly signer: string;
  readonly relay: string;
  readonly discoveryTimeout: number | null;
}

/** The configuration and the secrets of this run; answers the path of the first. */
function writeFiles(directory: PrivateDirectory, own: OwnConfig, backing: Backing, places: Places): string {
  const tokenFile = directory.write("signer.token", backing.secrets.token);
  const seedFile = directory.write("signer.seed", backing.secrets.seed);
  const { relay, discoveryTimeout } = places;
  const signerUrl = backing.signerAt(places.signer);
  return directory.write("client.conf", throwawayConfig(own.config, { relay, signerUrl, tokenFile, seedFile, discoveryTimeout }));
}

const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];

/** The signals of the process: the first ends what is being prepared, and once choria runs all go to it. */
function passedOn() {
  let pass: ((signal: NodeJS.Signals) => void) | null = null;
  return {
    source(listener: (signal: NodeJS.Signals) => void) {
      const onSignal = (signal: NodeJS.Signals): void => (pass ?? listener)(signal);
      for (const name of SIGNALS) process.on(name, onSignal);
      return () => {
        for (const name of SIGNALS) process.off(name, onSignal);
      };
    },
    passTo(to: (signal: NodeJS.Signals) => void) {
      pass = to;
      return () => {
        pass = null;
      };
    },
  };
}
