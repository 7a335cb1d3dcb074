/*
 * What the checks of the bastion's side look at, for a doctor that runs there: the socket by the client's own search, and what answers
 * on it. It must never log in by itself, and never need what the bundle does not have.
 */
import type { TokenfwdClient } from "../../bastion/client/index.js";
import { listSlots, readTokenFacts } from "../../cryptoki/keys/token-reader.js";
import type { KeyEntry, TokenEntry } from "../../cryptoki/keys/types.js";
import { localContext } from "../../cryptoki/local-context.js";
import { type ChoriaFound, findChoriaHere } from "../choria/found.js";
import { type Fact, held, lazily } from "../lazy.js";

/** What the command line hands in. */
export interface BastionSurroundings {
  /** Ends the walk. */
  readonly signal: AbortSignal;
  readonly env: NodeJS.ProcessEnv;
  readonly uid: number;
  /** `--socket`. */
  readonly socket: string | null;
  /** True where somebody said that a PIN may be asked for, so that a signature may be made. */
  readonly mayAsk: boolean;
  defer(close: () => Promise<void> | void): void;
  /** A client on the first socket that can be used. Rejects as connectClient. */
  connect(): Promise<TokenfwdClient>;
}

export interface BastionContext extends BastionSurroundings {
  readonly client: Fact<TokenfwdClient>;
  /** The tokens that answer there. */
  readonly tokens: Fact<readonly Omit<TokenEntry, "keys">[]>;
  readonly keys: Fact<readonly KeyEntry[]>;
  readonly choria: Fact<ChoriaFound | null>;
}

/** A context in which nothing has been looked at yet. */
export function createBastionContext(surroundings: BastionSurroundings): BastionContext {
  const { signal, env, defer } = surroundings;
  const client = lazily(() => held(defer, surroundings.connect(), (connected) => connected.close()));
  const tokens = lazily(async () => {
    const { cryptoki } = await client();
    const ctx = localContext("doctor", signal);
    const found: Omit<TokenEntry, "keys">[] = [];
    for (const slot of await listSlots(cryptoki, ctx)) {
      const token = await readTokenFacts(cryptoki, slot, ctx);
      if (token !== null) found.push(token);
    }
    return found;
  });
  const keys = lazily(async () => (await client()).keys({ signal }));
  return { ...surroundings, client, tokens, keys, choria: lazily(() => findChoriaHere(env)) };
}
