/*
 * The p11-kit RPC client: a Cryptoki over any byte stream, with many calls in flight. It speaks to every release of
 * `p11-kit server` and to ours. It must never touch a socket, and never take an answer that does not fit its call.
 * See protocol/p11kit-rpc.md, "Client".
 */
import { createEmitter, type Emitter } from "../../base/events.js";
import { type AnyCall, type CallName, callByName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallArgs, CallContext, CallResult, Cryptoki, CryptokiEvents } from "../../cryptoki/types.js";
import { type AbortWatch, createAbortWatch } from "../abort-watch.js";
import { createFrameDecoder, encodeFrame, type Frame, type FrameDecoder } from "./frame.js";
import { DEFAULT_LIMITS, type P11KitLimits, Refusal } from "./limits.js";
import { dialectOfVersion } from "./mechanisms.js";
import { carriesSecret, encodeRequest } from "./requests.js";
import { decodeResponse } from "./responses.js";

export interface P11KitClientOptions {
  /**
   * Takes the version byte, then one whole message per call; the buffer is the taker's. `written` is given with a message
   * that carries a PIN: called when the bytes are no longer needed, it overwrites them.
   */
  write(bytes: Buffer, written?: () => void): void;
  /** Asked once to end the stream: at close(), or when the server broke the protocol. */
  end(): void;
  /** The version byte to offer, default 2. A server before 0.24.1 closes at anything but 0: connect again with 0. */
  readonly offerVersion?: 0 | 1 | 2;
  /** Options of every request frame, default `client` as the stock client sends. */
  readonly frameOptions?: Buffer;
  /** The longest answer that is read, default 4 MiB. */
  readonly maxFrameBytes?: number;
}

/**
 * A Cryptoki over a stream that somebody else owns. Calls wait for the server's version byte. A call whose signal is
 * aborted answers CKR_FUNCTION_CANCELED at once, and its late answer is dropped. When the stream has gone every call
 * answers CKR_DEVICE_REMOVED; an answer that does not fit its call is CKR_DEVICE_ERROR for that call.
 */
export interface P11KitClient extends Cryptoki {
  /** Takes the next bytes of the server in any fragmentation. */
  push(chunk: Buffer): void;
  /** The stream has gone: answers every call in flight. Safe to call twice. */
  closed(reason?: Error): void;
  /** The version byte the server answered. Rejects when the stream goes before that. */
  readonly negotiated: Promise<number>;
  /** The options of the last answer; null before the first. */
  readonly lastReplyOptions: Buffer | null;
}

const DEFAULT_MAX_FRAME_BYTES = 4 * 1024 * 1024;
/** Where stock clients start counting; 0 is no call code. */
const FIRST_CODE = 0x10;
const STOCK_OPTIONS = Buffer.from("client");

/** A client that offers its version at once. */
export function createP11KitClient(options: P11KitClientOptions): P11KitClient {
  return new Client(options);
}

interface Pending {
  readonly call: AnyCall;
  readonly args: AnyArgs;
  readonly resolve: (result: AnyResult) => void;
  readonly reject: (reason: unknown) => void;
  readonly signal: AbortSignal;
}

class Client implements P11KitClient {
  readonly events: Emitter<CryptokiEvents> = createEmitter<CryptokiEvents>();
  readonly negotiated: Promise<number>;
  readonly #options: P11KitClientOptions;
  readonly #limits: P11KitLimits;
  readonly #decoder: FrameDecoder;
  /** Calls made before the version is known, which decides how they are written. */
  readonly #waiting: Pending[] = [];
  readonly #pending = new Map<number, Pending>();
  readonly #aborts: AbortWatch<Pending> = createAbortWatch((pending) => pending.resolve({ rv: CKR.CKR_FUNCTION_CANCELED }));
  #lastReplyOptions: Buffer | null = null;
  #version: number | null = null;
  #nextCode = FIRST_CODE;
  #gone = false;
  readonly #settleVersion: { resolve: (version: number) => void; reject: (reason: Error) => void };

  constructor(options: P11KitClientOptions) {
    this.#options = options;
    const maxFrameBytes = options.maxFrameBytes ?? DEFAULT_MAX_FRAME_BYTES;
    this.#limits = { ...DEFAULT_LIMITS, maxFrameBytes };
    this.#decoder = createFrameDecoder({ ...this.#limits, onFrame: (frame) => this.#receive(frame) });
    const { promise, resolve, reject } = withResolvers<number>();
    this.negotiated = promise;
    this.#settleVersion = { resolve, reject };
    // Whoever waits for it sees the rejection; a client that nobody asked for its version must not end the process.
    promise.catch(() => {});
    options.write(Buffer.from([options.offerVersion ?? 2]));
  }

  get lastReplyOptions(): Buffer | null {
    return this.#lastReplyOptions;
  }

  push(chunk: Buffer): void {
    if (this.#gone || chunk.length === 0) return;
    let frames = chunk;
    if (this.#version === null) {
      const version = chunk.readUInt8(0);
      this.#version = version;
      this.#settleVersion.resolve(version);
      for (const pending of this.#waiting.splice(0)) this.#send(pending, version);
      frames = chunk.subarray(1);
    }
    try {
      this.#decoder.push(frames);
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  closed(reason: Error = new Error("the stream has ended")): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#settleVersion.reject(reason);
    const pending = [...this.#waiting.splice(0), ...this.#pending.values()];
    this.#pending.clear();
    for (const { resolve } of pending) resolve({ rv: CKR.CKR_DEVICE_REMOVED });
    this.#aborts.end();
  }

  async call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>> {
    return (await this.#call(callByName(name), args as AnyArgs, ctx.signal)) as CallResult<N>;
  }

  async close(): Promise<void> {
    if (this.#gone) return;
    this.closed(new Error("the client was closed"));
    this.#options.end();
  }

  async #call(call: AnyCall, args: AnyArgs, signal: AbortSignal): Promise<AnyResult> {
    if (signal.aborted) return { rv: CKR.CKR_FUNCTION_CANCELED };
    if (this.#gone) return { rv: CKR.CKR_DEVICE_REMOVED };
    const { promise, resolve, reject } = withResolvers<AnyResult>();
    const pending: Pending = { call, args, resolve, reject, signal };
    this.#aborts.add(signal, pending);
    if (this.#version === null) this.#waiting.push(pending);
    else this.#send(pending, this.#version);
    try {
      return await promise;
    } finally {
      this.#aborts.remove(signal, pending);
    }
  }

  #send(pending: Pending, version: number): void {
    const { call, args } = pending;
    if (pending.signal.aborted) return;
    const form = { dialect: dialectOfVersion(version), emptyRooms: version > 0, nestedQueries: version > 0 };
    let body: Buffer;
    try {
      body = encodeRequest(call, args, form);
    } catch (thrown) {
      if (thrown instanceof Refusal) pending.resolve({ rv: thrown.rv });
      else pending.reject(thrown);
      return;
    }
    const code = this.#takeCode();
    this.#pending.set(code, pending);
    const frame = encodeFrame(code, this.#options.frameOptions ?? STOCK_OPTIONS, body);
    if (!carriesSecret(call)) {
      this.#options.write(frame);
      return;
    }
    body.fill(0);
    this.#options.write(frame, () => frame.fill(0));
  }

  #takeCode(): number {
    while (this.#nextCode === 0 || this.#pending.has(this.#nextCode)) this.#nextCode = (this.#nextCode + 1) >>> 0;
    const code = this.#nextCode;
    this.#nextCode = (code + 1) >>> 0;
    return code;
  }

  #receive(frame: Frame): void {
    const pending = this.#pending.get(frame.code);
    if (pending === undefined) throw new Error("an answer to no call of ours");
    this.#pending.delete(frame.code);
    this.#lastReplyOptions = Buffer.from(frame.options);
    let result: AnyResult;
    try {
      result = decodeResponse(frame.body, pending.call, pending.args, this.#limits);
    } catch {
      result = { rv: CKR.CKR_DEVICE_ERROR };
    }
    pending.resolve(result);
  }

  /** The server broke the framing: nothing that follows can be understood. */
  #fail(thrown: unknown): void {
    this.closed(thrown instanceof Error ? thrown : new Error("the server broke the protocol"));
    this.#options.end();
  }
}

interface Resolvers<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
}

/** Promise.withResolvers, which Node 20 does not have. */
function withResolvers<T>(): Resolvers<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<T>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  return { promise, resolve, reject };
}
