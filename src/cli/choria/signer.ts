/*
 * `tokenfwd choria signer`: the remote signer on a loopback port, until it is told to stop. Options are looked at and the token's
 * certificate is found good before it listens. It must never write more than its one line to stdout.
 */
import type { Writable } from "node:stream";
import { createFileLog, type Log, silentLog } from "../../base/log.js";
import { connectClient } from "../../bastion/client/index.js";
import { hostPort, listenLoopback } from "../../choria/loopback.js";
import { createRequestSigner } from "../../choria/signer/request-signer.js";
import { publicKeyOf, readSecrets, writeSecrets } from "../../choria/signer/secrets.js";
import { createSignerService, type SignerService } from "../../choria/signer/service.js";
import { SIGNING_PATH } from "../../choria/signer/signing-call.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { usage } from "../options.js";
import { writeResult } from "../sign/output.js";
import { createUi, type Ui } from "../ui.js";
import { createUseLines } from "../use-lines.js";
import { parseListen } from "./listen-option.js";
import { parseMaxTtl } from "./max-ttl.js";
import type { RawSignerOptions } from "./signer-options.js";
import { type AccessAround, checkTokenAccess, openIdentity } from "./token-access.js";

/** What it works with; tests hand in their own. */
export interface SignerAround extends AccessAround {
  readonly stdout: Writable;
  readonly log: Log;
}

/** Runs it on the process's own streams. Throws whatever kept it from listening. */
export async function runSigner(raw: RawSignerOptions): Promise<number> {
  const { stdout, stderr, env } = process;
  const lifetime = createLifetime(processSignals);
  const path = env["TOKENFWD_LOG"];
  const log = path ? createFileLog(path) : silentLog;
  return signer(raw, { stdout, ui: createUi(stderr), lifetime, env, log, connect: connectClient });
}

/** Serves until the first signal and answers 0. Rejects with a TokenfwdError. */
export async function signer(raw: RawSignerOptions, around: SignerAround): Promise<number> {
  const { stdout, ui, lifetime, log } = around;
  const access = checkTokenAccess(raw);
  const maxTtlSeconds = parseMaxTtl(raw.maxTtl);
  const listen = parseListen(raw.listen);
  if (!raw.secrets) throw usage("choria signer needs --secrets", "name a directory of your own that others cannot read, or one to be made");
  const dir = raw.secrets;
  try {
    const { identity, signer: key } = await openIdentity(access, "tokenfwd choria signer", around);
    const { tokenFile, seedFile, ...secrets } = readSecrets(dir) ?? writeSecrets(dir);
    const requestSigner = createRequestSigner({ identity, signer: key, maxTtlSeconds });
    const service = createSignerService({ requestSigner, token: secrets.token, publicKey: publicKeyOf(secrets), log });
    lifetime.defer(() => service.close());
    const loopback = await listenLoopback(listen, service.serve);
    lifetime.defer(() => loopback.close());
    lifetime.defer(sayWhatHappens(service, ui));
    const address = hostPort(loopback);
    service.hosts = [address];
    lifetime.signal.throwIfAborted();
    ui.line(`signing Choria requests as choria=${identity.commonName} on ${address}, until Ctrl-C`);
    await writeResult(stdout, `${JSON.stringify({ v: 1, url: `http://${address}${SIGNING_PATH}`, tokenFile, seedFile })}\n`);
    await lifetime.stopped;
    return 0;
  } catch (thrown) {
    throw lifetime.signal.aborted ? lifetime.signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}

const MAX_REASONS = 20;

/** A line for each request; of strangers the first of each kind, for they can come as often as they like. */
export function sayWhatHappens(service: Pick<SignerService, "events">, ui: Ui): () => void {
  const signed = createUseLines(ui.line, "requests");
  const refused = createUseLines(ui.line, "refused requests");
  const said = new Set<string>();
  const stops = [
    service.events.on("signed", ({ what }) => signed.add("choria", () => `signed: ${what}`)),
    service.events.on("refused", ({ code, message }) => refused.add("choria", () => `${message} [${code}]`)),
    service.events.on("stranger", ({ reason }) => {
      if (said.has(reason) || said.size >= MAX_REASONS) return;
      said.add(reason);
      ui.warning(`turned away somebody at the signer's port: ${reason}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    signed.flush();
    refused.flush();
  };
}
