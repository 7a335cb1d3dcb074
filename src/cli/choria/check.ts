/*
 * `tokenfwd choria check`: what is wrong in the client configuration of this machine, as lines for a person or as JSON (pinned,
 * version 1). It must never fail for the want of a token: then it says that the token was not looked at.
 */
import type { Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { type ConnectOptions, connectClient, type TokenfwdClient } from "../../bastion/client/index.js";
import { checkConfig } from "../../choria/config/check.js";
import { type ClientConfig, type ReadClientConfigOptions, readClientConfig } from "../../choria/config/client-config.js";
import type { CheckConfigInput, ConfigFinding, ConfigReport, Look } from "../../choria/config/finding.js";
import { clientHere, lookHere } from "../../choria/config/here.js";
import { createLifetime, type Lifetime, processSignals } from "../lifetime.js";
import { checkSocket } from "../sign/options.js";
import { writeResult } from "../sign/output.js";
import type { RawCheckOptions } from "./check-options.js";

/** An agent that does not answer in this time is one that is not there. */
const TOKEN_MS = 10_000;

/** What it works with; tests hand in their own. */
export interface CheckAround {
  readonly stdout: Writable;
  readonly lifetime: Lifetime;
  readonly env: NodeJS.ProcessEnv;
  readonly here: Omit<ReadClientConfigOptions, "choriaConfig">;
  readonly look: Look;
  /** Milliseconds since 1970. */
  now(): number;
  connect(options: ConnectOptions): Promise<TokenfwdClient>;
}

/** Runs it on the process's own streams. */
export async function runCheck(raw: RawCheckOptions): Promise<number> {
  const { stdout, env } = process;
  const lifetime = createLifetime(processSignals);
  return check(raw, { stdout, lifetime, env, here: clientHere(env), look: lookHere, now: Date.now, connect: connectClient });
}

/** Looks once; 1 when there is an error. Rejects with E_CHORIA_CONFIG when there is no configuration to look at. */
export async function check(raw: RawCheckOptions, around: CheckAround): Promise<number> {
  const { stdout, lifetime, here } = around;
  const socket = checkSocket(raw.socket);
  try {
    const config = await readClientConfig({ ...here, ...(raw.config === undefined ? {} : { choriaConfig: raw.config }) });
    const token = await lookAtToken(socket, around);
    const report = await checkConfig({ config, env: around.env, root: here.root ?? false, look: around.look, token, now: around.now() });
    await writeResult(stdout, raw.json === true ? checkDocument(config, report) : checkText(config, report));
    return report.findings.some(({ severity }) => severity === "error") ? 1 : 0;
  } catch (thrown) {
    throw lifetime.signal.aborted ? lifetime.signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}

async function lookAtToken(socket: string | null, { lifetime, env, connect }: CheckAround): Promise<CheckConfigInput["token"]> {
  const signal = AbortSignal.any([lifetime.signal, AbortSignal.timeout(TOKEN_MS)]);
  try {
    const client = await connect({ ...(socket === null ? {} : { socket }), env, client: "tokenfwd choria check", snapshot: true, signal });
    lifetime.defer(() => client.close());
    return { keys: await client.keys({ signal }) };
  } catch (error) {
    if (lifetime.signal.aborted) throw error;
    // What was named and cannot be used is a mistake on the command line; what is merely not there is not.
    if (socket !== null && error instanceof TokenfwdError) throw error;
    return { notLooked: signal.aborted ? `no answer in ${TOKEN_MS / 1000} s` : printable((error as Error).message) };
  }
}

/** The document of `choria check --json`, with its line end. */
function checkDocument(config: ClientConfig, { findings, notLooked }: ConfigReport): string {
  const document = {
    v: 1,
    config: printable(config.path, 4096),
    files: config.files.map(({ path, kind }) => ({ path: printable(path, 4096), kind })),
    findings: findings.map((finding) => ({ ...finding, file: finding.file === null ? null : printable(finding.file, 4096) })),
    notLooked,
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** For a person: the files, then a block for each finding, then the counts. */
export function checkText(config: ClientConfig, { findings, notLooked }: ConfigReport): string {
  const files = config.files.map(({ path, kind }) => `${kind === "main" ? "configuration" : "and over it  "}  ${printable(path, 4096)}`);
  const blocks = findings.map(block);
  const counts = (["error", "warning", "note"] as const).map((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return `${count} ${severity}${count === 1 ? "" : "s"}`;
  });
  const parts = [files.join("\n"), ...blocks, ...notLooked.map((text) => `not looked at: ${text}`), counts.join(", ")];
  return `${parts.join("\n\n")}\n`;
}

function block({ severity, text, mend, file, line, stockOnly }: ConfigFinding): string {
  const at = file === null ? "" : `${printable(file, 4096)}:${line}: `;
  return `${severity}: ${at}${text}${stockOnly ? " [choria by itself]" : ""}\n  mend: ${mend}`;
}
