/*
 * `tokenfwd keys`: the keys that can be used, in one trip where our agent answers. It must never log in by itself: what a token
 * shows only after a log-in is listed when a PIN source was named, or when the agent has been unlocked.
 */
import type { Writable } from "node:stream";
import { type ConnectOptions, connectClient, type TokenfwdClient } from "../bastion/client/index.js";
import { createBastionPin, PIN_NOT_USED, parseBastionPinSource } from "./bastion-pin.js";
import type { RawKeysOptions } from "./bastion-program.js";
import { keysDocument, keysText, summarizeKey } from "./keys-output.js";
import { createLifetime, type Lifetime, processSignals } from "./lifetime.js";
import { checkSocket } from "./sign/options.js";
import { writeResult } from "./sign/output.js";
import { createUi, type Ui } from "./ui.js";

/** What keys works with; tests hand in their own. */
export interface KeysAround {
  readonly stdout: Writable;
  readonly ui: Ui;
  readonly lifetime: Lifetime;
  readonly env: NodeJS.ProcessEnv;
  /** Milliseconds since 1970. */
  now(): number;
  connect(options: ConnectOptions): Promise<TokenfwdClient>;
}

/** Runs keys on the process's own streams. Throws whatever went wrong, with nothing on stdout. */
export async function runKeys(raw: RawKeysOptions): Promise<number> {
  const lifetime = createLifetime(processSignals);
  const ui = createUi(process.stderr);
  return keys(raw, { stdout: process.stdout, ui, lifetime, env: process.env, now: Date.now, connect: connectClient });
}

/** Lists once and answers 0, also when there is no key. Rejects with a TokenfwdError. */
export async function keys(raw: RawKeysOptions, around: KeysAround): Promise<number> {
  const { stdout, ui, lifetime } = around;
  const socket = checkSocket(raw.socket);
  const source = raw.pinSource === undefined ? null : parseBastionPinSource(raw.pinSource);
  const pin = source === null ? null : createBastionPin(source, "tokenfwd keys");
  try {
    const client = await around.connect({
      ...(socket === null ? {} : { socket }),
      env: around.env,
      ...(pin === null ? {} : { pin: pin.provider }),
      client: "tokenfwd keys",
      snapshot: true,
      signal: lifetime.signal,
    });
    lifetime.defer(() => client.close());
    const found = (await client.keys({ signal: lifetime.signal })).map(summarizeKey);
    if (pin !== null && !pin.wasUsed) ui.warning(PIN_NOT_USED);
    await writeResult(stdout, raw.json === true ? keysDocument(found) : keysText(found, around.now()));
    if (found.length === 0) ui.warning("no key is visible; a token may show its keys only after a log-in");
    return 0;
  } catch (thrown) {
    throw lifetime.signal.aborted ? lifetime.signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}
