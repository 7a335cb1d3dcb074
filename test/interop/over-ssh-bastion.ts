/*
 * One `tokenfwd connect` at a pseudo-terminal with a person in front of it, and programs in ssh sessions of the bastion's user
 * that use what it forwards. It must never give a program on the bastion anything of the workstation's: no module, no token
 * directory, no PIN, and no terminal. Everything it starts ends with `close`, by its own process.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { CallName } from "../../src/cryptoki/calls.js";
import { CKR } from "../../src/cryptoki/rv.js";
import { type PtyResult, spawnUnderPty } from "../support/pty.js";
import type { SoftHsm, SoftHsmKey } from "../support/softhsm.js";
import type { Sshd } from "../support/sshd.js";
import { type CliEvent, TOKENFWD } from "./cli-process.js";
import { type Outcome, runProgram } from "./programs.js";

export interface ForwardedOptions {
  readonly token: SoftHsm;
  readonly bastion: Sshd;
  /** What `--key` is given. */
  readonly key: string;
  /** Further options of connect. With `--unlock now` the PIN is typed before this answers. */
  readonly options?: readonly string[];
}

/** How a connect ended. */
export interface ForwardedEnd extends PtyResult {
  readonly events: readonly CliEvent[];
  /** What lies below the bastion's runtime directory afterwards. */
  readonly left: readonly string[];
}

export interface Forwarded {
  /** Waits until the workstation says, after all that was waited for before, that this call was refused with this code. */
  refused(call: CallName, rv: keyof typeof CKR): Promise<void>;
  /** Waits for the question on the terminal and types the token's PIN. */
  typePin(timeoutMs?: number): Promise<void>;
  /** Types Ctrl-C and waits for the end. Safe to call twice. */
  close(): Promise<ForwardedEnd>;
}

/** Starts a connect and waits until it is ready. */
export async function forwardToken({ token, bastion, key, options = [] }: ForwardedOptions): Promise<Forwarded> {
  const home = mkdtempSync(join(tmpdir(), "tfwd-over-ssh-"));
  const words = ["connect", "bastion", "-F", bastion.sshConfig, "--module", token.modulePath, "--key", key, "--json", ...options];
  const env = { ...token.env, XDG_STATE_HOME: join(home, "state"), TERM: "xterm" };
  const terminal = spawnUnderPty({ argv: [process.execPath, TOKENFWD, ...words], env });
  // A question stands on the terminal without a line's end, so an event may begin in the middle of a line.
  const events = (): CliEvent[] => [...terminal.output.matchAll(/\{"v":1,.*\}(?=\r?\n)/g)].map(([line]) => JSON.parse(line) as CliEvent);
  const typePin = async (timeoutMs?: number): Promise<void> => {
    await terminal.expect(/asks for the PIN of the token "[^"]*": /, timeoutMs);
    terminal.send(`${token.pin}\r`);
  };
  let ended: Promise<ForwardedEnd> | null = null;
  const end = async (): Promise<ForwardedEnd> => {
    terminal.send("\x03");
    try {
      const result = await terminal.exited;
      const left = readdirSync(bastion.runtimeDir, { recursive: true }).map(String).sort();
      return { ...result, events: events(), left };
    } finally {
      await terminal[Symbol.asyncDispose]();
      rmSync(home, { recursive: true, force: true });
    }
  };
  const close = (): Promise<ForwardedEnd> => {
    ended ??= end();
    return ended;
  };
  try {
    if (options.join(" ").includes("--unlock now")) await typePin();
    await terminal.expect(/"event":"ready".*\r?\n/, 20_000);
  } catch (error) {
    await close();
    throw error;
  }
  const refused = (call: CallName, rv: keyof typeof CKR) =>
    terminal.expect(new RegExp(`"event":"refused".*"call":"${call}","rv":${CKR[rv]},.*\\r?\\n`));
  return { refused, typePin, close };
}

/** One word of a POSIX shell's command line. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** Runs a program in a session of the stock ssh client, without a terminal, with what it needs in its environment. */
export function onBastion(
  bastion: Sshd,
  argv: readonly string[],
  options: { readonly input?: Buffer | string; readonly env?: Readonly<Record<string, string>>; readonly timeoutMs?: number } = {},
): Promise<Outcome> {
  const { input = "", env = {}, timeoutMs } = options;
  const words = [
    ...(Object.keys(env).length > 0 ? ["env", ...Object.entries(env).map(([name, value]) => `${name}=${value}`)] : []),
    ...argv,
  ];
  const { SOFTHSM2_CONF: _, P11_KIT_SERVER_ADDRESS: __, ...own } = process.env;
  return runProgram(
    { argv: ["ssh", "-F", bastion.sshConfig, "bastion", words.map(quoted).join(" ")], input: Buffer.from(input) },
    own,
    timeoutMs,
  );
}

/** All that a program printed, for a message or a pattern. */
export function said({ stdout, stderr }: Outcome): string {
  return `${stderr}${stdout.toString("latin1")}`;
}

/** A key of the token that has a certificate. */
export function certifiedKey(token: SoftHsm, name: "rsa" | "ec"): SoftHsmKey & { readonly certificateFile: string } {
  const key = token.keys[name];
  if (key === undefined || key.certificateFile === null) throw new Error(`the token has no ${name} key with a certificate`);
  return { ...key, certificateFile: key.certificateFile };
}

/** What every connect leaves: status 0 after Ctrl-C, nothing on the bastion, a terminal as it was, and no PIN on it. */
export function expectCleanEnd(end: ForwardedEnd, pin: string): void {
  expect(end.output).not.toContain(pin);
  expect(end).toMatchObject({ exitCode: 0, left: [], echo: true, lineEditing: true });
  expect(end.events.at(-1)).toMatchObject({ event: "closed", exitCode: 0 });
}
