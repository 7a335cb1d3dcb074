/*
 * The client for a bastion: finds the socket, keeps one connection, and makes another after a loss. It must never send a
 * request twice that an agent may have understood, and never hold a connection that nobody asked for.
 */

import { setMaxListeners } from "node:events";
import { TokenfwdError } from "../../base/errors.js";
import { createEmitter, type Emitter } from "../../base/events.js";
import { printable } from "../../base/printable.js";
import { createSingleFlight } from "../../base/single-flight.js";
import type { CallName } from "../../cryptoki/calls.js";
import { CKF } from "../../cryptoki/constants.js";
import { KeyError } from "../../cryptoki/keys/key-error.js";
import type { KeyEntry } from "../../cryptoki/keys/types.js";
import { localContext } from "../../cryptoki/local-context.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallArgs, CallContext, CallResult, Cryptoki, CryptokiEvents } from "../../cryptoki/types.js";
import { RPC_EVENTS, RpcError, type SignMessage, type SignResult, type StatusResult } from "../../wire/rpc/messages.js";
import { clientError, deadlineError, lostError } from "./errors.js";
import type { AgentLink, Link, LinkSettings, LinkTimes } from "./link-types.js";
import { openFirst } from "./search.js";
import { openStockLink } from "./stock-link.js";
import { createPinTries } from "./stock-login.js";
import type { ConnectOptions, TokenfwdClient } from "./types.js";

/** What the client works with besides its options; tests hand in their own. */
export interface ClientSurroundings {
  readonly uid: number;
  readonly times: LinkTimes;
}

const TIMES: LinkTimes = { connectMs: 10_000, firstByteMs: 10_000, snapshotMs: 120_000 };
/** An agent keeps the deadline itself; a dead link keeps none. */
const DEADLINE_GRACE_MS = 2_000;
const NEVER = new AbortController().signal;
// Every request in flight listens to its signal, and many may share one: that is no leak.
setMaxListeners(0, NEVER);

/**
 * A client on the first socket that can be used. Rejects with E_AGENT_NOT_FOUND (nothing anywhere; the text says where it
 * looked), E_AGENT_SOCKET (what was named cannot be used), or with the signal's reason.
 */
export async function connectClient(options: ConnectOptions = {}, surroundings: Partial<ClientSurroundings> = {}): Promise<TokenfwdClient> {
  const client = new Client(options, { uid: process.geteuid?.() ?? 0, times: TIMES, ...surroundings });
  await client.open(options.signal ?? NEVER);
  return client;
}

type RequestOptions = { readonly signal?: AbortSignal; readonly deadlineMs?: number };

class Client implements TokenfwdClient {
  readonly cryptoki: Cryptoki;
  readonly signer: TokenfwdClient["signer"];
  readonly events: Emitter<CryptokiEvents>;
  readonly #options: ConnectOptions;
  readonly #surroundings: ClientSurroundings;
  readonly #emitter = createEmitter<CryptokiEvents>();
  readonly #opening = createSingleFlight<Link>(() => lostError(false));
  readonly #name: string;
  // The client's and not a connection's: a PIN that was refused stays refused after a loss.
  readonly #tries = createPinTries();
  #link: Link | null = null;
  /** What came with hello and was not asked for yet. */
  #fresh: AgentLink | null = null;
  #connections = 0;
  #hasListeners = false;
  #closed = false;

  constructor(options: ConnectOptions, surroundings: ClientSurroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
    this.#name = printable(options.client ?? "tokenfwd/client", 64);
    this.signer = { sign: (request, more = {}) => this.#sign(request, more) };
    this.events = {
      on: (name, listener) => {
        if (!this.#hasListeners && this.#link !== null) this.#subscribe(this.#link);
        this.#hasListeners = true;
        return this.#emitter.on(name, listener);
      },
      emit: (name, event) => this.#emitter.emit(name, event),
    };
    this.cryptoki = { events: this.events, call: (name, args, ctx) => this.#call(name, args, ctx), close: async () => {} };
  }

  get protocol(): "tokenfwd" | "p11-kit" {
    return this.#link?.protocol ?? "tokenfwd";
  }

  get socket(): string {
    return this.#link?.path ?? "";
  }

  #usable(): Link | null {
    return this.#link === null || this.#link.isGone() ? null : this.#link;
  }

  async open(signal: AbortSignal): Promise<Link> {
    const link = this.#usable();
    if (link !== null) return link;
    if (this.#closed) throw new TokenfwdError("E_AGENT_LOST", "the client was closed");
    return await this.#opening.run(signal, async () => {
      const settings = this.#settings(this.#connections === 0 && this.#options.snapshot !== false);
      const { socket, env = process.env } = this.#options;
      const made = await openFirst({ ...(socket === undefined ? {} : { socket }), env, uid: this.#surroundings.uid }, settings, signal);
      this.#adopt(made, settings.snapshot);
      return made;
    });
  }

  #settings(snapshot: boolean): LinkSettings {
    return { client: this.#name, snapshot, pin: this.#options.pin, tries: this.#tries, times: this.#surroundings.times };
  }

  #adopt(link: Link, withSnapshot: boolean): void {
    if (this.#closed) {
      link.close();
      throw new TokenfwdError("E_AGENT_LOST", "the client was closed");
    }
    this.#link = link;
    this.#fresh = withSnapshot && link.protocol === "tokenfwd" ? link : null;
    this.#connections += 1;
    if (this.#hasListeners) this.#subscribe(link);
    if (this.#connections > 1) this.#emitter.emit("epoch", { epoch: this.#connections });
  }

  /** A link of which it is known what it is. */
  async #settled(signal: AbortSignal): Promise<Link> {
    const link = await this.open(signal);
    if (link.protocol === "p11-kit" || (await link.isAgent)) return link;
    return await this.#instead(link, signal);
  }

  /** The other end of an eager link was no agent: a stock server is opened in its place. */
  async #instead(link: AgentLink, signal: AbortSignal): Promise<Link> {
    if (this.#link !== link) return await this.#settled(signal);
    return await this.#opening.run(signal, async () => {
      if (this.#link !== link && this.#link !== null) return this.#link;
      const stock = await openStockLink(link.path, this.#settings(false), signal);
      // Nothing was done over the first one: this is no loss, and no handle is void.
      this.#connections -= 1;
      this.#adopt(stock, false);
      return stock;
    });
  }

  #subscribe(link: Link): void {
    if (link.protocol === "p11-kit") return;
    for (const name of RPC_EVENTS) link.cryptoki.events.on(name, (event) => this.#emitter.emit(name, event));
    link.rpc.request("subscribe", { events: RPC_EVENTS }).catch(() => {});
  }

  async #call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>> {
    let link: Link;
    try {
      link = await this.#settled(ctx.signal);
    } catch {
      return { rv: ctx.signal.aborted ? CKR.CKR_FUNCTION_CANCELED : CKR.CKR_DEVICE_REMOVED } as CallResult<N>;
    }
    return await link.cryptoki.call(name, args, ctx);
  }

  async #sign(request: SignMessage, { signal = NEVER, deadlineMs }: RequestOptions): Promise<SignResult> {
    signal.throwIfAborted();
    if (signal !== NEVER) setMaxListeners(0, signal);
    try {
      // One time for all of it: finding the socket, what the agent needs, and what may have to be done instead.
      const left = timeLeft(deadlineMs);
      let link = this.#usable() ?? (await timed(signal, left(), (inner) => this.open(inner)));
      signal.throwIfAborted();
      if (link.protocol === "tokenfwd") {
        const ms = left();
        const time = ms === undefined ? {} : { deadlineMs: ms };
        try {
          const { rpc } = link;
          const most = ms === undefined ? undefined : ms + DEADLINE_GRACE_MS;
          return await timed(signal, most, (inner) => rpc.request("sign", request, { signal: inner, ...time }));
        } catch (thrown) {
          if (signal.aborted || thrown instanceof TokenfwdError) throw thrown;
          const isAgent = await link.isAgent;
          if (isAgent && !this.#wantsPin(thrown)) throw thrown;
          // Either it has answered in another protocol, or hung up at ours, and cannot have understood a request; or it is
          // an agent that takes the client's PIN, and has signed nothing for want of it.
          const agent = link;
          if (!isAgent) link = await timed(signal, left(), (inner) => this.#instead(agent, inner));
        }
        signal.throwIfAborted();
      }
      const stock = link;
      return await timed(signal, left(), (inner) => stockSign(stock, request, localContext(this.#name, inner)));
    } catch (thrown) {
      signal.throwIfAborted();
      throw clientError(thrown);
    }
  }

  #wantsPin(thrown: unknown): boolean {
    return thrown instanceof RpcError && thrown.rv === CKR.CKR_USER_NOT_LOGGED_IN && this.#options.pin !== undefined;
  }

  /** A token that shows no key and takes the PIN from this side, where there is one. Whoever asks elsewhere is not asked for a list. */
  readonly #wantsPinForList = (token: { readonly flags: bigint; readonly keys: readonly unknown[] }): boolean =>
    this.#options.pin !== undefined && token.keys.length === 0 && (token.flags & CKF.CKF_PROTECTED_AUTHENTICATION_PATH) === 0n;

  async keys({ signal = NEVER }: RequestOptions = {}): Promise<readonly KeyEntry[]> {
    signal.throwIfAborted();
    try {
      const link = await this.#settled(signal);
      if (link.protocol === "tokenfwd" && link === this.#fresh) {
        this.#fresh = null;
        const { snapshot } = await link.rpc.ready;
        if (snapshot !== null && !snapshot.tokens.some(this.#wantsPinForList))
          return snapshot.tokens.flatMap(({ slot, keys }) => keys.map((key) => ({ ...key, slot })));
      }
      link.ring.forget();
      const tokens = await link.ring.tokens(localContext(this.#name, signal), { loginWhereEmpty: this.#wantsPinForList });
      return tokens.flatMap(({ keys }) => keys);
    } catch (thrown) {
      signal.throwIfAborted();
      throw clientError(thrown);
    }
  }

  async status(): Promise<StatusResult | null> {
    try {
      const link = await this.#settled(NEVER);
      return link.protocol === "tokenfwd" ? await link.rpc.request("status", {}) : null;
    } catch (thrown) {
      throw clientError(thrown);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#link?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Answers how much is left of a time that begins now, in milliseconds, at least 1; undefined where there is no end. */
function timeLeft(ms: number | undefined): () => number | undefined {
  const begin = performance.now();
  return () => (ms === undefined ? undefined : Math.max(1, Math.ceil(ms - (performance.now() - begin))));
}

/** Runs with a signal that is also aborted when the time is over; then rejects with E_AGENT_LOST. */
async function timed<T>(signal: AbortSignal, ms: number | undefined, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  if (ms === undefined) return await run(signal);
  const stop = new AbortController();
  const aborted = (): void => stop.abort(signal.reason);
  signal.addEventListener("abort", aborted, { once: true });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    stop.abort();
  }, ms);
  try {
    return await run(stop.signal);
  } catch (thrown) {
    throw isLate ? deadlineError(thrown) : thrown;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", aborted);
  }
}

/** A signature by way of the key ring. */
async function stockSign(link: Link, request: SignMessage, ctx: CallContext): Promise<SignResult> {
  try {
    const { signature, mechanism, key } = await link.ring.sign(request, ctx);
    return { signature, mechanism, uri: key.uri, spki: key.spki };
  } catch (thrown) {
    if (link.isGone() && !ctx.signal.aborted) throw lostError(thrown instanceof KeyError && thrown.call === "C_Sign", thrown);
    throw thrown;
  }
}
