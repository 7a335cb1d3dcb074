/*
 * The p11-kit RPC server: bytes of one client in, calls on a Cryptoki, bytes out. One call at a time, answers in order,
 * each message in one write. It must never touch a socket, wait for a peer, write a PIN anywhere, or answer more than
 * was asked for. See protocol/p11kit-rpc.md, "Server".
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { DecodeError } from "../../base/bytes.js";
import { printable } from "../../base/printable.js";
import type { CallName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallArgs, CallContext, Cryptoki, Origin } from "../../cryptoki/types.js";
import { createFrameDecoder, encodeFrame, type Frame, type FrameDecoder } from "./frame.js";
import { DEFAULT_LIMITS, type P11KitLimits } from "./limits.js";
import { type Dialect, dialectOfVersion } from "./mechanisms.js";
import { type DecodedRequest, decodeRequest, HANDSHAKE, wipeSecrets } from "./requests.js";
import { encodeError, encodeResponse } from "./responses.js";

export type { P11KitLimits } from "./limits.js";

export interface P11KitServerOptions {
  /** This client's own; the server initialises and finalises it, and never closes it. */
  readonly cryptoki: Cryptoki;
  /** Go into every CallContext. */
  readonly client: string;
  readonly origin: Origin;
  /** Takes one whole message (or the version byte) per call; the buffer is the taker's. */
  write(bytes: Buffer): void;
  /**
   * Asked before each request is taken up. A promise holds the server back until it resolves, which it must do when the
   * stream drains and when it closes; null lets it go on. Without it, a peer that asks and never reads fills our memory.
   */
  full?(): Promise<void> | null;
  /**
   * Called once with the options of the first frame (a copy), before that frame is answered. What it returns, if not
   * null, goes into the options of that answer; stock clients ignore them.
   */
  onFirstFrameOptions?(options: Buffer): Buffer | null;
  /**
   * Called once when the server ends the conversation because the peer broke the protocol, after everything before that
   * was answered. The reason is printable. The attacher then ends the stream; the server writes nothing more.
   */
  onViolation?(reason: string): void;
  readonly limits?: Partial<P11KitLimits>;
}

export interface P11KitServer {
  /**
   * Takes the next bytes of the client in any fragmentation, the version byte first. The chunk becomes the server's: the
   * bytes of a message that carries a PIN are overwritten in it.
   */
  push(chunk: Buffer): void;
  /** The peer has gone: aborts the signal of the running call, drops what waits, and finalises the Cryptoki. Safe to call twice. */
  end(): void;
  /** What whole messages received and not yet answered cost to hold, in bytes. A part of a message does not count, so pausing cannot deadlock. */
  readonly pendingBytes: number;
  /** Resolves after end() or a violation, when no call is running and the Cryptoki is finalised. */
  readonly idle: Promise<void>;
  /** Set by the attacher: called after each answer, when pendingBytes has become less. */
  onDrain?: () => void;
}

/** The highest version byte we answer. */
const MAX_VERSION = 2;
const NO_BYTES = Buffer.alloc(0);
/** Added to a frame's bytes: what it takes to hold it, which for the smallest is most of it. */
const FRAME_COST_BYTES = 256;
/** Taken up one after the other; a client that has sent more shares the event loop with the others. */
const MAX_IN_A_ROW = 256;

const costOf = (frame: Frame): number => frame.size + FRAME_COST_BYTES;

type CallRequest = Extract<DecodedRequest, { kind: "call" }>;

/** A server for one client, waiting for its version byte. */
export function createP11KitServer(options: P11KitServerOptions): P11KitServer {
  return new Server(options);
}

class Server implements P11KitServer {
  onDrain?: () => void;
  readonly idle: Promise<void>;
  readonly #options: P11KitServerOptions;
  readonly #limits: P11KitLimits;
  readonly #decoder: FrameDecoder;
  readonly #abort = new AbortController();
  readonly #ctx: CallContext;
  #dialect: Dialect | null = null;
  /** Frames in order; a string is the violation that follows them. */
  #queue: (Frame | string)[] = [];
  /** So many of the queue have been taken up: they leave it together, for to shift a long array moves it whole each time. */
  #taken = 0;
  #inARow = 0;
  #pendingBytes = 0;
  #working = false;
  #ended = false;
  #firstFrameSeen = false;
  /** C_Initialize calls not yet finalised: repeated ones are counted, as the proxy module of stock servers does. */
  #initialized = 0;
  #resolveIdle: () => void = () => {};

  constructor(options: P11KitServerOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#ctx = { client: options.client, origin: options.origin, signal: this.#abort.signal };
    this.idle = new Promise((resolve) => {
      this.#resolveIdle = resolve;
    });
    this.#decoder = createFrameDecoder({
      ...this.#limits,
      onFrame: (frame) => {
        this.#pendingBytes += costOf(frame);
        this.#queue.push(frame);
      },
    });
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  push(chunk: Buffer): void {
    if (this.#ended || chunk.length === 0 || typeof this.#queue.at(-1) === "string") return;
    let frames = chunk;
    if (this.#dialect === null) {
      const offered = chunk.readUInt8(0);
      this.#dialect = dialectOfVersion(offered);
      this.#options.write(Buffer.from([Math.min(offered, MAX_VERSION)]));
      frames = chunk.subarray(1);
    }
    try {
      this.#decoder.push(frames);
    } catch (thrown) {
      this.#queue.push(thrown instanceof DecodeError ? thrown.message : "internal error while reading a frame");
    }
    this.#work();
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#abort.abort();
    this.#decoder.end();
    const left = this.#queue.slice(this.#taken);
    this.#queue = [];
    this.#taken = 0;
    for (const item of left) {
      if (typeof item === "string") continue;
      // Never read, so it may hold a PIN.
      item.wipe();
      this.#settle(item);
    }
    this.#work();
  }

  /** Starts working through the queue unless that is already under way. */
  #work(): void {
    if (this.#working) return;
    this.#working = true;
    this.#run();
  }

  /** Goes on until something has to be waited for, and then when that is over. No async function: each call passes here. */
  readonly #run = (): void => {
    while (this.#taken < this.#queue.length) {
      const hold = this.#options.full?.() ?? (this.#inARow >= MAX_IN_A_ROW ? nextTurn() : null);
      if (hold !== null) {
        this.#inARow = 0;
        return void hold.then(this.#run);
      }
      const item = this.#take();
      if (typeof item === "string") this.#violate(item);
      else if (item !== undefined) {
        const serving = this.#serve(item);
        if (serving !== null) return void serving.then(this.#run);
      }
    }
    this.#working = false;
    this.#inARow = 0;
    if (this.#ended) void this.#finalize().then(this.#resolveIdle);
  };

  #take(): Frame | string | undefined {
    const item = this.#queue[this.#taken];
    if (item === undefined) return undefined;
    this.#inARow++;
    this.#taken++;
    if (this.#taken === MAX_IN_A_ROW || this.#taken === this.#queue.length) {
      this.#queue.splice(0, this.#taken);
      this.#taken = 0;
    }
    return item;
  }

  /** Null when it has been served; a promise, which never rejects, until then. */
  #serve(frame: Frame): Promise<void> | null {
    try {
      const options = this.#takeOptions(frame);
      const request = decodeRequest(frame.body, this.#dialect ?? "legacy", this.#limits);
      // What is not a call was read no further than needed, so it may hold a PIN too.
      if (request.kind !== "call" || request.secret) frame.wipe();
      if (request.kind === "call") return this.#answer(request, frame, options);
      this.#reply(frame, options, encodeError(request.kind === "unknown" ? CKR.CKR_FUNCTION_NOT_SUPPORTED : request.rv));
    } catch (thrown) {
      frame.wipe();
      this.#violate(thrown instanceof DecodeError ? thrown.message : "internal error while answering");
      this.#settle(frame);
    }
    return null;
  }

  #reply(frame: Frame, options: Buffer, body: Buffer): void {
    try {
      if (!this.#ended) this.#options.write(encodeFrame(frame.code, options, body));
    } catch {
      this.#violate("internal error while answering");
    }
    this.#settle(frame);
  }

  #takeOptions(frame: Frame): Buffer {
    if (this.#firstFrameSeen) return NO_BYTES;
    this.#firstFrameSeen = true;
    return this.#options.onFirstFrameOptions?.(Buffer.from(frame.options)) ?? NO_BYTES;
  }

  #settle(frame: Frame): void {
    this.#pendingBytes -= costOf(frame);
    this.onDrain?.();
  }

  #violate(reason: string): void {
    if (this.#ended) return;
    this.end();
    this.#options.onViolation?.(printable(reason));
  }

  #answer(request: CallRequest, frame: Frame, options: Buffer): Promise<void> {
    return this.#dispatch(request.call.name, request.args).then(
      (result) => this.#finish(request, frame, options, result),
      // A rejection is a bug below or an instance that is closed; the client learns no more than that it failed.
      () => this.#finish(request, frame, options, { rv: CKR.CKR_GENERAL_ERROR }),
    );
  }

  #finish({ call, args, secret }: CallRequest, frame: Frame, options: Buffer, result: AnyResult): void {
    let body: Buffer;
    try {
      body = encodeResponse(call, args, result);
    } catch {
      body = encodeError(CKR.CKR_GENERAL_ERROR);
    }
    if (secret) wipeSecrets(args);
    this.#reply(frame, options, body);
  }

  #dispatch(name: CallName, args: AnyArgs): Promise<AnyResult> {
    if (name === "C_Initialize") return this.#initialize(args as CallArgs<"C_Initialize">);
    if (this.#initialized === 0) return Promise.resolve({ rv: CKR.CKR_CRYPTOKI_NOT_INITIALIZED });
    if (name === "C_Finalize") {
      if (this.#initialized > 1) {
        this.#initialized--;
        return Promise.resolve({ rv: CKR.CKR_OK });
      }
      return this.#finalize();
    }
    try {
      return this.#options.cryptoki.call(name, args as CallArgs, this.#ctx);
    } catch (thrown) {
      return Promise.reject(thrown);
    }
  }

  async #initialize(args: CallArgs<"C_Initialize">): Promise<AnyResult> {
    if (args.handshake === null || !HANDSHAKE.equals(args.handshake)) return { rv: CKR.CKR_GENERAL_ERROR };
    if (this.#initialized === 0) {
      const result = await this.#options.cryptoki.call("C_Initialize", args, this.#ctx);
      if (result.rv !== CKR.CKR_OK) return result;
    }
    this.#initialized++;
    return { rv: CKR.CKR_OK };
  }

  /** Finalises the Cryptoki if it is initialised. The signal is a fresh one: cleaning up must not be cancelled. */
  async #finalize(): Promise<AnyResult> {
    if (this.#initialized === 0) return { rv: CKR.CKR_OK };
    this.#initialized = 0;
    try {
      return await this.#options.cryptoki.call("C_Finalize", {}, { ...this.#ctx, signal: new AbortController().signal });
    } catch {
      return { rv: CKR.CKR_GENERAL_ERROR };
    }
  }
}
