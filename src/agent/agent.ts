/*
 * The agent: attaches streams to a token. Each stream becomes a client with its own sessions, behind the policy of its
 * origin, and every private-key use is reported. It must never take anything about the origin from the stream itself.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../base/errors.js";
import { createEmitter, type Emitter } from "../base/events.js";
import { noteSignature } from "../base/heap.js";
import { localContext } from "../cryptoki/local-context.js";
import { CKR } from "../cryptoki/rv.js";
import type { CallContext, Origin } from "../cryptoki/types.js";
import { createTokenBroker } from "../token/broker.js";
import type { HostEvents, TokenHost, UnlockResult } from "../token/host/host.js";
import type { PinMode } from "../token/login.js";
import { createP11KitServer } from "../wire/p11kit/server.js";
import { MAGIC } from "../wire/rpc/messages.js";
import type { StreamTap } from "../wire/trace/records.js";
import { createAudit, type KeyUse } from "./audit.js";
import { createBeingSigned } from "./being-signed.js";
import { watchClient } from "./client-watch.js";
import type { DescribedPurposes } from "./described.js";
import { exposeKey } from "./exposure.js";
import { type Inspection, inspectToken } from "./inspect.js";
import { answerPing } from "./ping.js";
import { createPolicy, mayReadAttribute, type Profile, type Refusal } from "./policy.js";
import { createRpcSession } from "./rpc-session.js";
import { createSlotEvents } from "./slot-events.js";
import { createEpochClock } from "./snapshot-epoch.js";
import { type StreamLine, serveStream, type WireServer } from "./stream-server.js";
import { watchTokens } from "./token-watch.js";

export interface AgentOptions {
  readonly host: TokenHost;
  /** A label, a pkcs11: URI of a token, or null for every token of the module. */
  readonly token?: string | null;
  /** A pkcs11: URI of one key, `all`, or null for none. */
  readonly key: string | null;
  readonly profile: Profile;
  readonly allowRawRsa?: boolean;
  readonly pinMode: PinMode;
  /** What `inspectToken` found, where the caller has it already. */
  readonly inspection?: Inspection;
  readonly limits?: Partial<AgentLimits>;
  /** Purposes whose documents the agent reads before it signs, and says what they are. Default: none. */
  readonly describe?: DescribedPurposes;
  /** Makes what sees the bytes of a client as they pass, broken ones too. */
  tap?(about: { readonly client: string; readonly origin: Origin }): StreamTap;
}

export interface AgentLimits {
  /** Clients in all; one more is closed at once. */
  readonly maxClients: number;
  /** Clients of one bastion; programs on this workstation are not counted. */
  readonly maxClientsPerDestination: number;
  /** A client that has not sent its version byte by then is closed; one of tokenfwd RPC by then needs to have said hello. */
  readonly versionByteTimeoutMs: number;
  /** How long a client that has ended its side may take to read the answers it has coming. */
  readonly lingerMs: number;
}

const DEFAULT_LIMITS: AgentLimits = { maxClients: 256, maxClientsPerDestination: 64, versionByteTimeoutMs: 10_000, lingerMs: 10_000 };
const MAX_SLOTS = 1_024;

export interface Counters {
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface Attachment {
  readonly connectId: string;
  readonly client: string;
  readonly counters: Counters;
  /** Called once with the options bytes of the first frame, before it is answered. Set it before the stream is read. */
  onFirstFrameOptions(listener: (options: Buffer) => void): void;
  close(): void;
}

export interface AgentEvents {
  use: KeyUse;
  refused: { readonly client: string; readonly call: string; readonly rv: number; readonly why: string; readonly origin: Origin };
  prompt: {
    readonly kind: "pin" | "confirm" | "touch";
    readonly state: "open" | "closed";
    readonly token: string;
    readonly triesLeft: number | null;
    /** Of a touch: what is signed with it, where the agent has read that; printable. */
    readonly what?: string;
  };
  fault: { readonly reason: string };
  /** A client's log-in has come to nothing for a reason that lies at the workstation or in the token. */
  "unlock-failed": HostEvents["unlock-failed"];
  violation: { readonly client: string; readonly reason: string };
  /** A tokenfwd RPC client has said what it is; `name` is printable and its own word. */
  hello: { readonly client: string; readonly name: string; readonly origin: Origin };
}

export interface AgentPort {
  /** Serves a stream until it ends. The agent owns the stream from now on; the origin is frozen. */
  attach(stream: Duplex, origin: Omit<Origin, "connectId">, connectId?: string): Attachment;
  /** Unlocks the token for an origin without waiting for a client's C_Login. */
  unlock(origin: Omit<Origin, "connectId">, signal: AbortSignal): Promise<UnlockResult>;
  readonly events: Emitter<AgentEvents>;
  readonly inspection: Inspection;
  /** The slots a client sees with a token in them, as C_GetSlotList gives them. */
  slots(): Promise<readonly bigint[]>;
  readonly clients: number;
  /** Ends every stream and frees their sessions; the host stays with its owner. */
  close(): Promise<void>;
}

/**
 * The processes with the module. Where there are several, none may change what another has seen: nothing but the workstation's PIN
 * logs in, and nobody writes to the token. The command line says so better (cli/options.ts). Throws E_BUG.
 */
function poolOf({ host, profile, pinMode }: AgentOptions): readonly TokenHost[] {
  const { others = [] } = host;
  if (others.length > 0 && (profile === "full" || pinMode === "client"))
    throw new TokenfwdError("E_BUG", "a pool of hosts with PINs of clients, or with the profile full");
  return [host, ...others];
}

/** An agent over a token host. Throws what `inspectToken` and `exposeKey` throw. */
export async function createAgent(options: AgentOptions): Promise<AgentPort> {
  const { host, profile } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const selector = options.token ?? null;
  const inspection = options.inspection ?? (await inspectToken(host, selector));
  const exposure = exposeKey(options.key, inspection);
  const hosts = poolOf(options);
  const touches = createEmitter<Pick<HostEvents, "touch">>();
  const broker = createTokenBroker(host, options.pinMode);
  const events = createEmitter<AgentEvents>();
  const open = new Map<Attachment, { readonly destination: string; readonly done: Promise<void> }>();
  const stopping = new AbortController();
  const beingSigned = createBeingSigned();
  let nextClient = 0;

  // With every token of the module in play, slots come and go as the module says; else only the chosen ones exist.
  const everySlot = selector === null && options.key === "all";
  const watch = watchTokens(hosts, inspection.tokens, stopping.signal);
  const slotVisible = (slot: bigint) => everySlot || (exposure.slots.has(slot) && watch.isSame(slot));
  const visibility = {
    slot: slotVisible,
    object: exposure.object,
    attribute: (object: Parameters<typeof mayReadAttribute>[1], type: number) => mayReadAttribute(profile, object, type),
  };

  const clock = createEpochClock();
  const slotEvents = createSlotEvents({ host, watch, slots: everySlot ? null : exposure.slots });

  const stops = [
    slotEvents.close,
    watch.close,
    ...hosts.flatMap((one) => [
      one.events.on("epoch", clock.changed),
      one.events.on("token-gone", clock.changed),
      one.events.on("token-in", clock.changed),
      one.events.on("touch", (touch) => touches.emit("touch", touch)),
      one.events.on("prompt", ({ client, ...prompt }) => {
        const what = client === undefined ? null : beingSigned.of(client);
        events.emit("prompt", what === null ? prompt : { ...prompt, what });
      }),
      one.events.on("unlock-failed", (failed) => events.emit("unlock-failed", failed)),
      one.events.on("fault", (fault) => events.emit("fault", fault)),
    ]),
    // A slot opens again some time after its token came.
    watch.onSame(clock.changed),
  ];

  function attach(stream: Duplex, given: Omit<Origin, "connectId">, connectId = randomBytes(8).toString("hex")): Attachment {
    const origin: Origin = Object.freeze({ ...given, connectId });
    const client = `c${++nextClient}`;
    const destination = JSON.stringify([origin.kind, origin.destination]);
    const counters = { bytesIn: 0, bytesOut: 0 };
    let onOptions: ((options: Buffer) => void) | null = null;

    const attachment: Attachment = {
      connectId,
      client,
      counters,
      onFirstFrameOptions(listener) {
        onOptions = listener;
      },
      close: () => void stream.destroy(),
    };

    // A peer that resets its connection is an end like any other.
    stream.on("error", () => undefined);
    // A destination is a bastion: what runs on this workstation is held to the whole alone.
    const ofDestination = origin.kind === "local" ? 0 : [...open.values()].filter((other) => other.destination === destination).length;
    // One that has gone before it came would never say so again.
    if (stream.destroyed) return attachment;
    if (stopping.signal.aborted || open.size >= limits.maxClients || ofDestination >= limits.maxClientsPerDestination) {
      events.emit("violation", { client, reason: "too many clients" });
      stream.destroy();
      return attachment;
    }

    const epoch = clock.createClient();
    // Below the policy: what it refuses has changed nothing.
    const own = watchClient(broker.createClient(client, visibility), { onLogin: epoch.changed, onMutation: clock.changed });
    const refused = (refusal: Refusal): void => events.emit("refused", { client, ...refusal, origin });
    const policy = createPolicy(own, { profile, allowRawRsa: options.allowRawRsa ?? false, onRefused: refused });
    const cryptoki = createAudit(policy, (use) => {
      // A call that fails costs whoever makes it nothing, and must not change what the process does with its memory.
      if (use.ok) noteSignature();
      events.emit("use", use);
    });

    function serveP11Kit(line: StreamLine): WireServer {
      line.greeted();
      return createP11KitServer({
        cryptoki,
        client,
        origin,
        write: line.write,
        full: line.full,
        onFirstFrameOptions(bytes) {
          onOptions?.(bytes);
          // Who serves a socket is the business of this workstation alone.
          return origin.kind === "local" ? answerPing(bytes) : null;
        },
        onViolation: line.violate,
      });
    }

    const serveRpc = (line: StreamLine): WireServer =>
      createRpcSession({
        cryptoki,
        client,
        origin,
        profile,
        pinMode: options.pinMode,
        line,
        counters,
        loggedIn: own.loggedIn,
        epoch,
        slotEvents: slotEvents.events,
        touches,
        describe: options.describe ?? {},
        onRefused: refused,
        onSigning: (what) => beingSigned.begin(client, what),
        onHello: (name) => events.emit("hello", { client, name, origin }),
      });

    const done = serveStream({
      stream,
      serve: (firstByte, line) => (firstByte === MAGIC[0] ? serveRpc(line) : serveP11Kit(line)),
      counters,
      onViolation: (reason) => events.emit("violation", { client, reason }),
      greetingTimeoutMs: limits.versionByteTimeoutMs,
      lingerMs: limits.lingerMs,
      tap: options.tap?.({ client, origin }),
    }).then(async () => {
      await cryptoki.close();
      open.delete(attachment);
    });
    open.set(attachment, { destination, done });
    return attachment;
  }

  return {
    attach,
    events,
    inspection,
    get clients() {
      return open.size;
    },
    async slots() {
      // Asked as a client asks, for it is compared with what one sees.
      const looking = broker.createClient("agent", visibility);
      const { slots } = await looking.call("C_GetSlotList", { tokenPresent: 1, room: MAX_SLOTS }, localContext("agent", stopping.signal));
      await looking.close();
      return Array.isArray(slots) ? (slots as readonly bigint[]) : [];
    },
    async unlock(given, signal) {
      const origin: Origin = { ...given, connectId: "unlock" };
      const ctx: CallContext = { ...localContext("agent", signal), origin };
      const slot = inspection.tokens.map((token) => token.slot).find(slotVisible);
      // Nothing was unlocked, and that must not look like a success.
      if (slot === undefined) return { rv: CKR.CKR_TOKEN_NOT_PRESENT, asked: false };
      return broker.login.unlock(slot, ctx);
    },
    async close() {
      stopping.abort();
      const running = [...open.entries()];
      for (const [attachment] of running) attachment.close();
      await Promise.all(running.map(([, { done }]) => done));
      for (const stop of stops) stop();
    },
  };
}
