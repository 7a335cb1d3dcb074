/*
 * One tokenfwd RPC client of the agent: what each of its requests does, over the same Cryptoki that a p11-kit client would
 * get (design, section 6). It must reach nothing else: no control message, no other client's state, no file, no module path.
 */
import type { Emitter } from "../base/events.js";
import { printable } from "../base/printable.js";
import { version } from "../base/version.js";
import { CKS, CKU } from "../cryptoki/constants.js";
import { KeyError, type KeyErrorReason } from "../cryptoki/keys/key-error.js";
import { createKeyRing, type KeyEntry, type KeyRing, type TokenEntry } from "../cryptoki/keys/key-ring.js";
import { hashOfMechanism } from "../cryptoki/keys/mechanism-choice.js";
import { CKM } from "../cryptoki/mechanisms.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallArgs, CallContext, Cryptoki, CryptokiEvents, Origin } from "../cryptoki/types.js";
import type { PinMode } from "../token/login.js";
import {
  type CallMessage,
  type CallOutcome,
  type KeyEntryMessage,
  RpcError,
  type RpcErrorCode,
  type RpcEvent,
  type SignMessage,
  type Snapshot,
  type TokenMessage,
} from "../wire/rpc/messages.js";
import { createRpcServer, type RpcHandlers, type RpcOperation } from "../wire/rpc/server.js";
import { createDescribed, type DescribedPurposes } from "./described.js";
import { createLargeAnswers } from "./large-answers.js";
import type { Profile, Refusal } from "./policy.js";
import { createSessionFence } from "./session-fence.js";
import type { SlotEvents } from "./slot-events.js";
import type { ClientEpoch } from "./snapshot-epoch.js";
import type { StreamLine, WireServer } from "./stream-server.js";

export interface RpcSessionOptions {
  /** This client's own, with policy and audit. It stays the caller's, who closes it when the session is idle. */
  readonly cryptoki: Cryptoki;
  readonly client: string;
  readonly origin: Origin;
  readonly profile: Profile;
  readonly pinMode: PinMode;
  readonly line: StreamLine;
  readonly counters: { readonly bytesIn: number; readonly bytesOut: number };
  /** Slots this client is logged in to. */
  loggedIn(): readonly bigint[];
  readonly epoch: ClientEpoch;
  readonly slotEvents: Pick<Emitter<SlotEvents>, "on">;
  /** Calls that wait for a touch, whoever's they are. */
  readonly touches: Pick<Emitter<Pick<CryptokiEvents, "touch">>, "on">;
  /** What the client calls itself: printable, and its own word. */
  onHello(name: string): void;
  readonly describe: DescribedPurposes;
  onRefused(refusal: Refusal): void;
  /** A document that was read is being signed; the answer is called when that is over. */
  onSigning(what: string): () => void;
}

const CODES: Readonly<Record<KeyErrorReason, RpcErrorCode>> = {
  "not-found": "key-not-found",
  ambiguous: "key-ambiguous",
  mismatch: "key-mismatch",
  mechanism: "mechanism",
  "bad-input": "bad-request",
  cryptoki: "cryptoki",
};

/** The error of the wire for one of the keys' own; anything else is left to the server, which says no more than `internal`. */
function rpcError(thrown: unknown): unknown {
  if (!(thrown instanceof KeyError)) return thrown;
  const { rv, call, hint } = thrown;
  return new RpcError(CODES[thrown.reason], thrown.message, {
    ...(rv === null ? {} : { rv }),
    ...(call === null ? {} : { call }),
    ...(hint === null ? {} : { hint }),
  });
}

const IN_USER: ReadonlySet<bigint> = new Set([CKS.CKS_RO_USER_FUNCTIONS, CKS.CKS_RW_USER_FUNCTIONS]);

/** The keys of this client. Where PINs are its own business, it has logged in before by a call, or it is not logged in. */
function keyRing(cryptoki: Cryptoki, pinMode: PinMode): KeyRing {
  if (pinMode === "ask") {
    const login = async (_slot: bigint, session: bigint, ctx: CallContext): Promise<number> =>
      (await cryptoki.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, ctx)).rv;
    return createKeyRing({ cryptoki, login });
  }
  return createKeyRing({
    cryptoki,
    async login(_slot, session, ctx) {
      const { rv, state } = await cryptoki.call("C_GetSessionInfo", { session }, ctx);
      if (rv !== CKR.CKR_OK) return rv;
      return state !== undefined && IN_USER.has(state) ? CKR.CKR_USER_ALREADY_LOGGED_IN : CKR.CKR_USER_NOT_LOGGED_IN;
    },
    loginForOperation: async () => CKR.CKR_USER_NOT_LOGGED_IN,
  });
}

/** Passes on what this client may be told; the server keeps back what it has not subscribed to. Answers how to stop. */
function tellEvents({ client, epoch, slotEvents, touches }: RpcSessionOptions, tell: (event: RpcEvent) => void): () => void {
  const stops = [
    ...(["token-in", "token-gone", "locked"] as const).map((event) => slotEvents.on(event, ({ slot }) => tell({ event, slot }))),
    touches.on("touch", (touch) => {
      if (touch.client === client) tell({ event: "touch", slot: touch.slot, waiting: touch.waiting });
    }),
    epoch.onChange((value) => tell({ event: "epoch", slot: null, epoch: value })),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

/**
 * What is told of the bytes that a client handed over: `document` only where they are hashed for certain, here or by the
 * token, for raw mechanisms take anything. null where nobody here can say.
 */
function inputOf({ isDigest, mechanism, parameter }: SignMessage): NonNullable<CallContext["input"]> | null {
  if (isDigest) return "digest";
  // CKM_RSA_PKCS_PSS is given no document without the parameter that names its hash; one of CKM_EDDSA may say that the data is hashed.
  const isHashed =
    mechanism === null ||
    hashOfMechanism(mechanism) !== null ||
    mechanism === CKM.CKM_RSA_PKCS_PSS ||
    (mechanism === CKM.CKM_EDDSA && parameter === null);
  return isHashed ? "document" : null;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/** The snapshot of what this client sees now. */
function snapshotOf(tokens: readonly TokenEntry[], epoch: number): Snapshot {
  const keyOf = ({ slot: _slot, ...key }: KeyEntry): KeyEntryMessage => key;
  return { epoch, tokens: tokens.map((token): TokenMessage => ({ ...token, keys: token.keys.map(keyOf) })) };
}

/** A server for one RPC client, waiting for its magic. */
export function createRpcSession(options: RpcSessionOptions): WireServer {
  const { client, origin, line, counters, epoch, pinMode } = options;
  const fence = createSessionFence(options.cryptoki);
  const ring = keyRing(fence.own, pinMode);
  const context = ({ signal, deadlineMs }: RpcOperation): CallContext => ({
    client,
    origin,
    signal,
    ...(deadlineMs === null ? {} : { deadlineMs }),
  });

  /** For cleaning up, which must not stop because the client has gone. */
  const detached = (): CallContext => ({ client, origin, signal: new AbortController().signal });

  const inTurn = createLargeAnswers(line.full);
  const described = createDescribed(options.describe, options.onRefused);

  async function call({ name, args }: CallMessage, op: RpcOperation): Promise<CallOutcome> {
    // The agent has initialised the module once for all; a client that begins again has its sessions closed, not the module.
    const { rv, ...outs } = (await fence.client.call(name, args as CallArgs, context(op))) as AnyResult;
    return { rv, outs: outs as AnyArgs };
  }

  const handlers: RpcHandlers = {
    async hello(request, op) {
      line.greeted();
      options.onHello(printable(request.client));
      const agent = `tokenfwd ${version()}`;
      if (!request.snapshot) return { agent, snapshot: null };
      // The number first: what changes while we look makes the snapshot old, not wrong.
      const { value } = epoch;
      // Looks with a session of its own, closed again: one that stayed would keep a log-in alive that the client thinks is over.
      const looking = keyRing(fence.own, pinMode);
      // A module that cannot say now is no reason to turn a client away; whoever asks by a call learns why.
      const tokens = await looking.tokens(context(op)).catch((thrown: unknown) => {
        if (thrown instanceof KeyError) return null;
        throw thrown;
      });
      await looking.close(detached());
      return { agent, snapshot: tokens === null ? null : snapshotOf(tokens, value) };
    },
    async sign(request, op) {
      const { signal, deadlineMs } = op;
      const ctx: Writable<CallContext> = { client, origin, signal, purpose: request.purpose };
      const input = inputOf(request);
      if (input !== null) ctx.input = input;
      if (deadlineMs !== null) ctx.deadlineMs = deadlineMs;
      // Nothing of the token is looked at for a document that will not be signed.
      const read = described(request);
      const over = read === null ? null : options.onSigning(read.what);
      try {
        if (read !== null) ctx.what = read.what;
        const { signature, mechanism, key } = await ring.sign(read?.request ?? request, ctx);
        return { signature, mechanism, uri: key.uri, spki: key.spki };
      } catch (thrown) {
        throw rpcError(thrown);
      } finally {
        over?.();
      }
    },
    call: (request, op) => inTurn(request, () => call(request, op)),
    status: () => ({
      client,
      origin: { kind: origin.kind, destination: origin.destination },
      connectId: origin.connectId,
      policy: options.profile,
      pin: pinMode,
      loggedIn: options.loggedIn(),
      bytesIn: counters.bytesIn,
      bytesOut: counters.bytesOut,
      inFlight: server.inFlight,
    }),
    // The server knows who has subscribed to what.
    subscribe: () => undefined,
  };

  const server = createRpcServer({
    handlers,
    write: line.write,
    full: line.full,
    onViolation: (reason) => line.violate(reason, { afterWrites: true }),
  });
  const stopTelling = tellEvents(options, (event) => server.event(event));
  const stopForgetting = epoch.onChange((_value, whose) => {
    if (whose === "shared") ring.tokenChanged();
  });
  const idle = server.idle.then(async () => {
    stopForgetting();
    stopTelling();
    await ring.close(detached());
  });

  return {
    push: (chunk) => server.push(chunk),
    end: () => server.end(),
    get pendingBytes() {
      return server.pendingBytes;
    },
    idle,
    set onDrain(listener: () => void) {
      server.onDrain = listener;
    },
  };
}
