/*
 * `tokenfwd choria ping`: which servers are there, asked with the token and without choria, through the same relay and signer as
 * everything of Choria's. It must never count an answer that was not looked at, and never sign more than one request.
 */
import { hostname } from "node:os";
import type { Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { createFileLog, type Log, silentLog } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import { connectClient } from "../../bastion/client/index.js";
import { clientHere, domainHere } from "../../choria/config/here.js";
import { dialTcp } from "../../choria/dial.js";
import type { RequestFilter } from "../../choria/documents/request.js";
import { MAX_SKEW_SECONDS } from "../../choria/limits.js";
import { listenLoopback } from "../../choria/loopback.js";
import { parseFilter } from "../../choria/ping/filter.js";
import { openNats } from "../../choria/ping/nats.js";
import { type PingResult, ping } from "../../choria/ping/ping.js";
import { createRequestSigner } from "../../choria/signer/request-signer.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { usage } from "../options.js";
import { writeResult } from "../sign/output.js";
import { createUi } from "../ui.js";
import { openBacking } from "./backing.js";
import { type OwnConfig, parseBrokers, readCaFile, readOwnConfig } from "./own-config.js";
import { createPinMemory, tokenOf } from "./pin-memory.js";
import type { RawPingOptions } from "./ping-options.js";
import { type AccessAround, checkTokenAccess, openIdentity, type TokenAccess } from "./token-access.js";

/** What servers wait for a request's seconds of life. */
const TTL_SECONDS = MAX_SKEW_SECONDS;
/** The relay is in this process: it answers at once, or not at all. */
const CONNECT_MS = 15_000;
const MAX_TIMEOUT_SECONDS = 600;
/** A part of a NATS subject. */
const COLLECTIVE = /^[\w.-]+$/;

/** What it works with; tests hand in their own. */
export interface PingAround extends AccessAround {
  readonly stdout: Writable;
  readonly log: Log;
}

interface Plan {
  readonly access: TokenAccess;
  readonly own: OwnConfig;
  readonly collective: string;
  readonly timeoutMs: number;
  readonly expected: number | null;
  readonly filter: RequestFilter;
  readonly json: boolean;
}

/** Runs it on the process's own streams. Throws whatever went wrong. */
export async function runPing(raw: RawPingOptions): Promise<number> {
  const { stdout, stderr, env } = process;
  const lifetime = createLifetime(processSignals);
  // Whoever read the answers has gone.
  stdout.on("error", () => lifetime.stop("SIGPIPE"));
  const path = env["TOKENFWD_LOG"];
  const log = path ? createFileLog(path) : silentLog;
  try {
    return await pingOnce(await prepare(raw), { stdout, ui: createUi(stderr), lifetime, env, log, connect: connectClient });
  } catch (thrown) {
    throw lifetime.signal.aborted ? lifetime.signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}

/** What can be found wrong before the token is asked for anything. Rejects with E_USAGE or E_CHORIA_CONFIG. */
async function prepare(raw: RawPingOptions): Promise<Plan> {
  const access = checkTokenAccess(raw);
  const expected = raw.expect === undefined ? null : wholeNumber(raw.expect, "--expect", 100_000);
  const timeout = raw.timeout === undefined ? null : wholeNumber(raw.timeout, "--timeout", MAX_TIMEOUT_SECONDS);
  const filter = parseFilter({ facts: raw.fact ?? [], classes: raw.class ?? [], agents: raw.agent ?? [], identities: raw.identity ?? [] });
  if (raw.collective !== undefined && !COLLECTIVE.test(raw.collective))
    throw usage("--collective takes the name of one", "such as mcollective");
  const own = await readOwnConfig({
    ...clientHere(process.env),
    ...(raw.choriaConfig === undefined ? {} : { choriaConfig: raw.choriaConfig }),
    caPem: raw.ca === undefined ? null : readCaFile(raw.ca),
    brokers: parseBrokers(raw.broker ?? []),
    domain: domainHere(),
    // With both named there is nothing that it must say.
    optional: raw.ca !== undefined && raw.broker !== undefined,
    overlaid: null,
  });
  if (own.config.federations.length > 0) {
    throw new TokenfwdError("E_CHORIA_CONFIG", "your configuration asks federations, and this command asks one network", {
      hint: "use choria itself: tokenfwd choria run -- ping",
    });
  }
  const collective = raw.collective ?? own.config.mainCollective;
  if (!COLLECTIVE.test(collective)) {
    throw new TokenfwdError("E_CHORIA_CONFIG", `main_collective is ${printable(collective, 100)}, which is no name of a collective`, {
      hint: "tokenfwd choria check says what is wrong with it; or name one with --collective",
    });
  }
  const timeoutMs = (timeout ?? Math.min(Math.max(own.config.discoveryTimeout, 1), MAX_TIMEOUT_SECONDS)) * 1000;
  return { access, own, collective, timeoutMs, expected, filter, json: raw.json === true };
}

function wholeNumber(text: string, option: string, most: number): number {
  if (/^[1-9]\d{0,6}$/.test(text) && Number(text) <= most) return Number(text);
  throw usage(`${option} takes a whole number from 1 to ${most}`, `for example ${option} 10`);
}

async function pingOnce(plan: Plan, around: PingAround): Promise<number> {
  const { lifetime, ui, stdout, log } = around;
  const { signal } = lifetime;
  using pins = createPinMemory();
  const opened = await openIdentity(plan.access, "tokenfwd choria ping", {
    ...around,
    connect: ({ pin, ...more }) => around.connect({ ...more, ...(pin === undefined ? {} : { pin: pins.once(pin) }) }),
  });
  const { identity, client } = opened;
  const backing = openBacking({
    ...opened,
    brokers: plan.own.brokers,
    dial: dialTcp,
    caPem: plan.own.caPem,
    address: p11KitAddress(client.socket),
    pin: (stop) => pins.once(opened.pin.provider)(tokenOf(identity.keyUri), stop),
    maxTtlSeconds: TTL_SECONDS,
    log,
  });
  lifetime.defer(() => backing.close());
  await backing.prewarm({ signal });
  const relay = await listenLoopback({ host: "127.0.0.1", port: 0 }, (stream) => backing.serveRelay(stream));
  lifetime.defer(() => relay.close());
  const caller = `choria=${identity.commonName}`;
  const link = await openNats({ ...relay, ...backing.login, name: caller, timeoutMs: CONNECT_MS });
  lifetime.defer(() => link.close());
  signal.throwIfAborted();
  const signer = createRequestSigner({ identity, signer: opened.signer, maxTtlSeconds: TTL_SECONDS });
  const result = await ping(
    {
      caller,
      sender: hostname(),
      collective: plan.collective,
      filter: plan.filter,
      ttl: TTL_SECONDS,
      timeoutMs: plan.timeoutMs,
      expected: plan.expected,
      link,
      sign: (request, options) => signer.sign(request, options),
      answered: plan.json ? () => {} : (reply) => stdout.write(replyLine(reply)),
    },
    { signal },
  );
  opened.warnOfUnusedPin();
  await writeResult(stdout, plan.json ? pingDocument(plan.collective, caller, result) : "");
  for (const text of remarks(result)) ui.warning(text);
  if (result.replies.length === 0) ui.line("nobody answered; tokenfwd choria check says whether servers would take your name");
  return result.replies.length >= (plan.expected ?? 1) ? 0 : 1;
}

const replyLine = ({ sender, ms }: PingResult["replies"][number]): string => `${printable(sender).padEnd(40)} ${ms.toFixed(0)} ms\n`;

/** The document of `choria ping --json`, with its line end. */
function pingDocument(collective: string, caller: string, { requestid, replies, refused }: PingResult): string {
  const shown = replies.map(({ sender, ms }) => ({ sender: printable(sender), ms: Math.round(ms * 10) / 10 }));
  return `${JSON.stringify({ v: 1, collective, caller, requestid, replies: shown, refused }, null, 2)}\n`;
}

function remarks({ refused }: PingResult): string[] {
  const say = (count: number, what: string) =>
    count === 0 ? [] : [`${count} ${count === 1 ? "answer" : "answers"} ${what}, and did not count`];
  return [
    ...say(refused.broken, "could not be read or had a wrong hash"),
    ...say(refused.foreign, "were for another request"),
    ...say(refused.again, "came from somebody who had answered"),
  ];
}
