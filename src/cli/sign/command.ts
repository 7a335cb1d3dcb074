/*
 * `tokenfwd sign`: a document or digest on stdin, its signature on stdout. Every option and all of stdin are looked at before
 * the token is asked for anything. It must never write a part of a signature, nor bytes to a terminal.
 */
import type { Readable, Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { deadlineError } from "../../bastion/client/errors.js";
import { type ConnectOptions, connectClient, type TokenfwdClient } from "../../bastion/client/index.js";
import { rawToDer } from "../../cryptoki/keys/ecdsa-der.js";
import type { SignResult } from "../../wire/rpc/messages.js";
import { createBastionPin, PIN_NOT_USED } from "../bastion-pin.js";
import type { RawSignOptions } from "../bastion-program.js";
import { createLifetime, type Lifetime, processSignals } from "../lifetime.js";
import { usage } from "../options.js";
import { createUi, type Ui } from "../ui.js";
import { interrupted, readSignInput, type SignInput } from "./input.js";
import { checkSignOptions, isEcdsa, type SignatureForm, type SignOptions } from "./options.js";
import { writeResult } from "./output.js";

/** What sign works with; tests hand in their own. */
export interface SignAround {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly ui: Ui;
  readonly lifetime: Lifetime;
  readonly env: NodeJS.ProcessEnv;
  connect(options: ConnectOptions): Promise<TokenfwdClient>;
}

/** Runs sign on the process's own streams. Throws whatever went wrong, with nothing on stdout. */
export async function runSign(raw: RawSignOptions): Promise<number> {
  const lifetime = createLifetime(processSignals);
  const ui = createUi(process.stderr);
  return sign(raw, { stdin: process.stdin, stdout: process.stdout, ui, lifetime, env: process.env, connect: connectClient });
}

/** Signs once and answers 0. Rejects with a TokenfwdError. */
export async function sign(raw: RawSignOptions, around: SignAround): Promise<number> {
  const { stdin, stdout, ui, lifetime } = around;
  const options = checkSignOptions(raw);
  if (stdout.isTTY === true && !options.form.base64)
    throw usage("a signature is bytes, and stdout is a terminal", "send it to a file with > FILE, or add --base64");
  if (stdin.isTTY === true) ui.line(`reading the ${options.isDigest ? "digest" : "document"} from the terminal, Ctrl-D ends it`);
  try {
    const input = await Promise.race([readSignInput(stdin, options), interrupted(lifetime.signal)]);
    const result = await ask(options, input, around);
    await writeResult(stdout, formed(result, options.form));
    return 0;
  } catch (thrown) {
    // What an interrupt brings down fails for many reasons; there is only one to tell.
    throw lifetime.signal.aborted ? lifetime.signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}

async function ask(options: SignOptions, input: SignInput, around: SignAround): Promise<SignResult> {
  const { lifetime, ui } = around;
  const { key, mechanism, purpose, expect, deadlineMs } = options;
  const pin = createBastionPin(options.pinSource ?? { kind: "ask" }, "tokenfwd sign");
  const begin = performance.now();
  const client = await connectWithin(deadlineMs, around, (signal) => ({
    ...(options.socket === null ? {} : { socket: options.socket }),
    env: around.env,
    pin: pin.provider,
    client: "tokenfwd sign",
    snapshot: false,
    signal,
  }));
  lifetime.defer(() => client.close());
  try {
    const request = { key, mechanism, parameter: null, data: input.data, isDigest: input.isDigest, purpose, expect };
    const left = deadlineMs === null ? {} : { deadlineMs: Math.max(1, Math.ceil(deadlineMs - (performance.now() - begin))) };
    const result = await client.signer.sign(request, { signal: lifetime.signal, ...left });
    if (options.pinSource !== null && !pin.wasUsed) ui.warning(PIN_NOT_USED);
    return result;
  } catch (thrown) {
    throw explained(thrown, options, input, pin.wasUsed);
  }
}

/** Connects, in the time that --deadline gives to all of it. */
async function connectWithin(
  deadlineMs: number | null,
  { lifetime, connect }: SignAround,
  options: (signal: AbortSignal) => ConnectOptions,
): Promise<TokenfwdClient> {
  if (deadlineMs === null) return await connect(options(lifetime.signal));
  const late = AbortSignal.timeout(deadlineMs);
  try {
    return await connect(options(AbortSignal.any([lifetime.signal, late])));
  } catch (thrown) {
    throw late.aborted ? deadlineError(thrown) : thrown;
  }
}

/** The same error, with the hint that only this command line can give. */
function explained(thrown: unknown, options: SignOptions, input: SignInput, gavePin: boolean): unknown {
  if (!(thrown instanceof TokenfwdError)) return thrown;
  const hint = hintFor(thrown, options, input, gavePin);
  return hint === undefined ? thrown : new TokenfwdError(thrown.code, thrown.message, { hint, cause: thrown });
}

function hintFor(error: TokenfwdError, options: SignOptions, input: SignInput, gavePin: boolean): string | undefined {
  if (error.code === "E_PIN_WRONG" && error.hint === undefined) {
    return gavePin
      ? "it was tried once and is not tried again; mend it before the token counts another wrong one"
      : "it was given at the workstation; run this again to be asked again";
  }
  if (error.code !== "E_MECHANISM") return undefined;
  if (options.form.der) {
    const own = "--der is for ECDSA keys, leave it out for another";
    return error.hint === undefined ? own : `${own}; ${error.hint}`;
  }
  return input.isDigest && !options.isDigest
    ? "a document this long is signed as its digest, which this key's mechanism does not take"
    : undefined;
}

function formed(result: SignResult, form: SignatureForm): Buffer {
  let signature: Buffer = result.signature;
  if (form.der) {
    if (!isEcdsa(result.mechanism)) throw usage("--der is for ECDSA signatures, and this one is not", "leave out --der");
    signature = asDer(signature);
  }
  return form.base64 ? Buffer.from(`${signature.toString("base64")}\n`) : signature;
}

function asDer(signature: Buffer): Buffer {
  try {
    return rawToDer(signature);
  } catch (cause) {
    throw new TokenfwdError("E_MODULE_FAULT", `a signature of ${signature.length} bytes is no ECDSA signature`, {
      cause,
      hint: "the module or the agent answers nonsense; nothing was written",
    });
  }
}
