/*
 * `tokenfwd choria sign-request`: one request on stdin, the signed one on stdout. Options and all of stdin are looked at before
 * the token is asked for anything. It must never write a part of an answer.
 */
import type { Readable, Writable } from "node:stream";
import { connectClient } from "../../bastion/client/index.js";
import { MAX_REQUEST_BYTES } from "../../choria/documents/request.js";
import { createRequestSigner } from "../../choria/signer/request-signer.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { usage } from "../options.js";
import { collect, interrupted } from "../sign/input.js";
import { writeResult } from "../sign/output.js";
import { createUi } from "../ui.js";
import { parseMaxTtl } from "./max-ttl.js";
import type { RawSignRequestOptions } from "./sign-request-options.js";
import { type AccessAround, checkTokenAccess, openIdentity } from "./token-access.js";

/** What it works with; tests hand in their own. */
export interface SignRequestAround extends AccessAround {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable;
}

/** Runs it on the process's own streams. Throws whatever went wrong, with nothing on stdout. */
export async function runSignRequest(raw: RawSignRequestOptions): Promise<number> {
  const { stdin, stdout, stderr, env } = process;
  const lifetime = createLifetime(processSignals);
  return signRequest(raw, { stdin, stdout, ui: createUi(stderr), lifetime, env, connect: connectClient });
}

/** Signs once and answers 0. Rejects with a TokenfwdError. */
export async function signRequest(raw: RawSignRequestOptions, around: SignRequestAround): Promise<number> {
  const { stdin, stdout, ui, lifetime } = around;
  const { signal } = lifetime;
  const access = checkTokenAccess(raw);
  const maxTtlSeconds = parseMaxTtl(raw.maxTtl);
  if (stdin.isTTY === true) ui.line("reading the request from the terminal, Ctrl-D ends it");
  try {
    // One byte more than may be, so that the signer sees that there was more.
    const request = await Promise.race([collect(stdin, MAX_REQUEST_BYTES), interrupted(signal)]);
    if (request.length === 0) throw usage("stdin holds no request", "give it on stdin: tokenfwd choria sign-request < REQUEST");
    const { identity, signer, warnOfUnusedPin } = await openIdentity(access, "tokenfwd choria sign-request", around);
    const secure = await createRequestSigner({ identity, signer, maxTtlSeconds }).sign(request, { signal });
    warnOfUnusedPin();
    await writeResult(stdout, `${secure.toString()}\n`);
    return 0;
  } catch (thrown) {
    throw signal.aborted ? signal.reason : thrown;
  } finally {
    await lifetime.close();
  }
}
