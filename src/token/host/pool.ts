/*
 * Several processes with one module, for modules that work in parallel. The first asks for the PIN and keeps it; another logs in only with
 * what the first saw accepted, and never asks. They start one after the other, because modules are not made for a rush on one
 * token. It must never let a wrong PIN be tried once for each process: see docs/adr/0008.
 */
import { TokenfwdError } from "../../base/errors.js";
import { listSlots, readTokenFacts } from "../../cryptoki/keys/token-reader.js";
import { localContext } from "../../cryptoki/local-context.js";
import { createTokenHost, startTokenHost, type TokenHost, type TokenHostOptions } from "./host.js";

/** More than that many processors does no signer's workstation have to spare. */
export const MAX_HOSTS = 8;

const LOST_PIN = "was ended, for the process that held the PIN is gone";

/** What a host sees: the same in each, or a slot's number would mean another token. */
async function tokensOf(host: TokenHost): Promise<string> {
  const ctx = localContext("pool", new AbortController().signal);
  const seen: string[] = [];
  for (const slot of await listSlots(host.cryptoki, ctx))
    seen.push(`${slot} ${(await readTokenFacts(host.cryptoki, slot, ctx))?.uri ?? ""}`);
  return seen.join("\n");
}

function notInParallel(cause: unknown): TokenfwdError {
  return new TokenfwdError("E_MODULE_FAULT", "the module does not work in a second process as it does in the first", {
    cause,
    hint: "leave --hosts out: smart cards and many vendors' modules are for one process",
  });
}

/**
 * So many processes with the module; the answer is the first, with `others`. Rejects as createTokenHost does, and with
 * E_MODULE_FAULT where another process of the module fails or sees other tokens; then nothing is left.
 */
export async function createHostPool(options: TokenHostOptions, hosts: number): Promise<TokenHost> {
  if (hosts === 1) return createTokenHost(options);
  const { host: first, supervisor } = await startTokenHost(options, { first: null });
  const others: TokenHost[] = [];
  const close = async () => void (await Promise.all([...others, first].map((host) => host.close())));
  try {
    const expected = await tokensOf(first);
    while (others.length < hosts - 1) {
      const other = await startTokenHost(options, { first: supervisor });
      others.push(other.host);
      // Its log-in was made with a PIN that nobody has any more, and its pipe leads to nobody.
      first.events.on("fault", () => other.supervisor.restart(LOST_PIN));
      if ((await tokensOf(other.host)) !== expected) throw notInParallel(undefined);
    }
  } catch (thrown) {
    await close();
    options.signal?.throwIfAborted();
    throw others.length === 0 && !(thrown instanceof TokenfwdError) ? thrown : notInParallel(thrown);
  }
  return {
    ...first,
    get epoch() {
      return first.epoch;
    },
    get pid() {
      return first.pid;
    },
    others,
    close,
    [Symbol.asyncDispose]: close,
  };
}
