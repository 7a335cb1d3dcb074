/*
 * `tokenfwd choria relay`: the broker relay on this machine, with the token that the agent shows. Every option is looked at before
 * the token is asked for anything, and nobody is listened to before a broker has accepted the key.
 */
import { resolveSrv } from "node:dns/promises";
import type { Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { createFileLog, type Log, silentLog } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import { connectClient } from "../../bastion/client/index.js";
import { type Broker, type ResolveSrv, srvBrokers } from "../../choria/config/brokers.js";
import { dialTcp } from "../../choria/dial.js";
import { hostPort, listenLoopback } from "../../choria/loopback.js";
import { readOrMakeLogin } from "../../choria/relay/login.js";
import { createBrokerRelay } from "../../choria/relay/relay.js";
import { findEngine } from "../../choria/tls/engine.js";
import { createTlsClient } from "../../choria/tls/tls-client.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { checkFile, usage } from "../options.js";
import { createUi, type Ui } from "../ui.js";
import { parseListen } from "./listen-option.js";
import { parseBrokers, readCaFile } from "./own-config.js";
import { createPinMemory, tokenOf } from "./pin-memory.js";
import type { RawRelayOptions } from "./relay-options.js";
import { relayReporter } from "./relay-report.js";
import { handshakeProgram } from "./tls-handshake.js";
import { type AccessAround, checkTokenAccess, openIdentity, type TokenAccess } from "./token-access.js";
import { watchToken } from "./watch-token.js";

/** What the relay works with; tests hand in their own. */
export interface RelayAround extends AccessAround {
  readonly resolveSrv: ResolveSrv;
  readonly stdout: Writable;
  readonly log: Log;
}

export interface RelayOptions {
  readonly access: TokenAccess;
  readonly brokers: readonly Broker[];
  /** Where the brokers are looked up when none is named. */
  readonly srvDomain: string | null;
  readonly caPem: string;
  readonly loginFile: string;
  readonly listen: { readonly host: string; readonly port: number };
}

/** Checks the options. Throws E_USAGE. */
export function checkRelayOptions(raw: RawRelayOptions): RelayOptions {
  const { srv } = raw;
  const words = (raw.broker ?? []).flatMap((word) => word.split(",")).filter((word) => word.trim() !== "");
  if (words.length === 0 && srv === undefined)
    throw usage("a broker is missing", "name it with --broker HOST:PORT; choria's own configuration calls it middleware_hosts");
  if (words.length > 0 && srv !== undefined) throw usage("--broker and --srv exclude each other", "leave one of them out");
  if (srv !== undefined && !/^[\w-]+(\.[\w-]+)*$/.test(srv))
    throw usage(`--srv takes a domain, and ${printable(srv, 100)} is none`, "for example --srv example.net");
  const brokers = parseBrokers(words);
  if (raw.ca === undefined) throw usage("the CA is missing", "name its PEM file with --ca FILE: it says which broker is the right one");
  if (raw.loginFile === undefined || raw.loginFile === "") {
    throw usage("the login file is missing", "name it with --login-file FILE; it is made when it is not there");
  }
  const listen = parseListen(raw.listen);
  const access = checkTokenAccess(raw);
  return { access, brokers, srvDomain: srv ?? null, caPem: readCaFile(checkFile(raw.ca, "--ca")), loginFile: raw.loginFile, listen };
}

/** Runs it on the process's own streams until a signal. Throws whatever went wrong before that. */
export async function runRelay(raw: RawRelayOptions): Promise<number> {
  const options = checkRelayOptions(raw);
  const { stdout, stderr, env } = process;
  const lifetime = createLifetime(processSignals);
  stdout.on("error", () => lifetime.stop("SIGPIPE"));
  const path = env["TOKENFWD_LOG"];
  const log = path ? createFileLog(path) : silentLog;
  return await relay(options, { stdout, ui: createUi(stderr), lifetime, env, log, connect: connectClient, resolveSrv });
}

/** Serves until the lifetime is stopped and answers 0. Rejects with a TokenfwdError. */
export async function relay(options: RelayOptions, around: RelayAround): Promise<number> {
  const { lifetime, log, ui, stdout } = around;
  const { signal } = lifetime;
  let isReady = false;
  using pins = createPinMemory();
  try {
    const engine = findEngine();
    const brokers = await brokersFor(options, around.resolveSrv);
    const login = readOrMakeLogin(options.loginFile);
    const connect: AccessAround["connect"] = ({ pin, ...more }) =>
      around.connect({ ...more, ...(pin === undefined ? {} : { pin: pins.once(pin) }) });
    const opened = await openIdentity(options.access, "tokenfwd choria relay", { ...around, connect });
    const { identity, client, warnOfUnusedPin } = opened;
    const tls = createTlsClient({
      certificatePem: identity.certificatePem,
      keyUri: identity.keyUri,
      caPem: options.caPem,
      address: p11KitAddress(client.socket),
      program: handshakeProgram(),
      pin: (asking) => pins.once(opened.pin.provider)(tokenOf(identity.keyUri), asking),
      engine,
      log,
    });
    lifetime.defer(() => tls.close());
    const broker = createBrokerRelay({ login, brokers, dial: dialTcp, tls, log });
    lifetime.defer(() => broker.close());
    const report = relayReporter(ui);
    report.watch(broker, tls);
    lifetime.defer(watchToken(client, (why) => forget(why, tls.dropSessions, ui)));
    await broker.prewarm({ signal });
    report.ready();
    warnOfUnusedPin();
    const listening = await listenLoopback(options.listen, (stream) => broker.serve(stream));
    lifetime.defer(() => listening.close());
    signal.throwIfAborted();
    isReady = true;
    stdout.write(`${JSON.stringify({ v: 1, listen: hostPort(listening), user: login.user })}\n`);
    ui.line(`relay for ${identity.commonName} on ${hostPort(listening)}`);
    await lifetime.stopped;
    return 0;
  } catch (thrown) {
    if (isReady && signal.aborted) return 0;
    throw signal.aborted ? signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}

async function brokersFor({ brokers, srvDomain }: RelayOptions, resolve: ResolveSrv): Promise<readonly Broker[]> {
  if (srvDomain === null) return brokers;
  const found = await srvBrokers(srvDomain, resolve);
  if (found.length > 0) return found;
  throw new TokenfwdError("E_CHORIA_BROKER", `the domain ${srvDomain} has no SRV record of a broker`, {
    hint: `dig SRV _mcollective-server._tcp.${srvDomain} shows what is there; or name the broker with --broker HOST:PORT`,
  });
}

function forget(why: string, dropSessions: () => void, ui: Ui): void {
  dropSessions();
  ui.line(`${why}: the next connection to a broker needs the token again`);
}
