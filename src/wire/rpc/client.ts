/*
 * The tokenfwd RPC client: requests over any byte stream, many in flight, one trip each. It must never touch a socket,
 * write anything once the other end has shown to be no agent of ours, or take an answer that does not fit its request.
 * See protocol/tokenfwd-rpc.md.
 */
import { printable } from "../../base/printable.js";
import type { Cryptoki } from "../../cryptoki/types.js";
import { createAbortWatch } from "../abort-watch.js";
import { carriesSecret } from "./call-values.js";
import { type ClientCryptoki, createClientCryptoki } from "./client-cryptoki.js";
import type { RpcClient, RpcClientOptions, RpcRequestOptions } from "./client-types.js";
import { decodeBodyCopied, encodeFrame, encodeMessage, type Fields, HEADER_BYTES } from "./codec.js";
import { createFrameDecoder, type Frame, type FrameDecoder } from "./frame.js";
import {
  type CallMessage,
  DEFAULT_RPC_LIMITS,
  type HelloRequest,
  type HelloResult,
  MAGIC,
  MAX_DEADLINE_MS,
  RpcError,
  type RpcLimits,
  type RpcRequests,
  type RpcRequestType,
  VERSIONS,
} from "./messages.js";
import { createOutbox, type Outbox } from "./outbox.js";
import { encodeRequest } from "./requests.js";
import { decodeError, decodeEvent, decodeResult } from "./results.js";
import { scanMessage } from "./scan.js";

export type { RpcClient, RpcClientOptions, RpcRequestOptions } from "./client-types.js";

/** The message of every error that says that the connection has ended. */
export const CONNECTION_ENDED = "the connection has ended";

/** A client that writes its magic in this turn of the event loop, and in an eager flight its hello and what is asked for meanwhile. */
export function createRpcClient(options: RpcClientOptions): RpcClient {
  return new Client(options);
}

interface Pending {
  readonly type: RpcRequestType;
  readonly request: unknown;
  readonly deadlineMs: number | undefined;
  readonly resolve: (result: never) => void;
  readonly reject: (reason: RpcError) => void;
  readonly signal: AbortSignal | undefined;
  id: number;
}

const NOT_OURS = "the other end does not speak tokenfwd RPC";

class Client implements RpcClient {
  readonly isTokenfwd: Promise<boolean>;
  readonly ready: Promise<HelloResult>;
  readonly #options: RpcClientOptions;
  readonly #limits: RpcLimits;
  readonly #decoder: FrameDecoder;
  readonly #outbox: Outbox;
  readonly #cryptoki: ClientCryptoki;
  /** Requests that the agent has not answered, those taken back (null) included. */
  readonly #pending = new Map<number, Pending | null>();
  readonly #queue: Pending[] = [];
  readonly #aborts = createAbortWatch<Pending>((pending) => this.#cancel(pending));
  #settleMagic: (ours: boolean) => void = () => {};
  #magicSeen = 0;
  #mayWrite: boolean;
  #gone: RpcError | null = null;
  #nextId = 1;

  constructor(options: RpcClientOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_RPC_LIMITS, ...options.limits };
    this.#outbox = createOutbox((bytes) => options.write(bytes));
    this.#decoder = createFrameDecoder({ maxFrameBytes: this.#limits.maxFrameBytes, onFrame: (frame) => this.#receive(frame) });
    this.#cryptoki = createClientCryptoki(this);
    this.isTokenfwd = new Promise((resolve) => {
      this.#settleMagic = resolve;
    });
    this.#mayWrite = options.flight !== "careful";
    const hello: HelloRequest = { versions: VERSIONS, client: printable(options.client ?? ""), snapshot: options.snapshot ?? true };
    // What is asked for in this turn leaves with them in one write: two would meet Nagle's algorithm on the way.
    if (this.#mayWrite) this.#outbox.add(Buffer.from(MAGIC));
    else options.write(Buffer.from(MAGIC));
    this.ready = this.request("hello", hello);
    // Whoever waits for it sees the rejection; a client that nobody asked for its hello must not end the process.
    this.ready.catch(() => {});
  }

  get cryptoki(): Cryptoki {
    return this.#cryptoki;
  }

  get gone(): boolean {
    return this.#gone !== null;
  }

  get inFlight(): number {
    return this.#pending.size + this.#queue.length;
  }

  push(chunk: Buffer): void {
    if (this.#gone !== null) return;
    try {
      const frames = this.#magicSeen < MAGIC.length ? this.#takeMagic(chunk) : chunk;
      if (frames.length > 0) this.#decoder.push(frames);
    } catch (thrown) {
      this.#fail(
        thrown instanceof RpcError ? thrown : new RpcError("protocol", thrown instanceof Error ? thrown.message : CONNECTION_ENDED),
      );
    }
  }

  closed(reason?: Error): void {
    this.#end(new RpcError("internal", CONNECTION_ENDED, reason === undefined ? {} : { hint: printable(reason.message) }));
  }

  async close(): Promise<void> {
    // What was asked for last must still leave: a close may follow a request at once.
    this.#outbox.flush();
    this.#fail(new RpcError("internal", CONNECTION_ENDED));
  }

  request<T extends RpcRequestType>(
    type: T,
    request: RpcRequests[T]["request"],
    options: RpcRequestOptions = {},
  ): Promise<RpcRequests[T]["result"]> {
    return new Promise((resolve, reject) => {
      const { signal, deadlineMs } = options;
      if (this.#gone !== null) return reject(this.#gone);
      if (signal?.aborted === true) return reject(cancelled());
      const pending: Pending = { type, request, deadlineMs, signal, resolve, reject, id: 0 };
      if (signal !== undefined) this.#aborts.add(signal, pending);
      if (this.#mayWrite && this.#queue.length === 0 && this.#pending.size < this.#limits.maxInFlight) this.#send(pending);
      else this.#queue.push(pending);
    });
  }

  #takeMagic(chunk: Buffer): Buffer {
    let at = 0;
    while (at < chunk.length && this.#magicSeen < MAGIC.length) {
      if (chunk[at] !== MAGIC[this.#magicSeen]) throw new RpcError("internal", NOT_OURS);
      at++;
      this.#magicSeen++;
    }
    if (this.#magicSeen === MAGIC.length) {
      this.#settleMagic(true);
      this.#mayWrite = true;
      this.#pump();
    }
    return chunk.subarray(at);
  }

  /** Sends what waits, as far as the limit allows. */
  #pump(): void {
    while (this.#queue.length > 0 && this.#pending.size < this.#limits.maxInFlight) {
      const next = this.#queue.shift();
      if (next !== undefined) this.#send(next);
    }
  }

  #send(pending: Pending): void {
    const { type, request, deadlineMs } = pending;
    const id = this.#takeId();
    let frame: Buffer;
    try {
      // Not left to the agent, which would end the connection and with it every other request.
      if (deadlineMs !== undefined && !isDeadline(deadlineMs))
        throw new RpcError("bad-request", `the deadline is not a whole number of milliseconds up to ${MAX_DEADLINE_MS}`);
      const head = deadlineMs === undefined ? { type, id } : { type, id, deadlineMs };
      frame = encodeMessage(head, encodeRequest(type, request as never));
      if (frame.length - HEADER_BYTES > this.#limits.maxFrameBytes) throw new RpcError("bad-request", "the request is longer than a frame");
    } catch (thrown) {
      this.#release(pending);
      pending.reject(thrown instanceof RpcError ? thrown : new RpcError("bad-request", "the request cannot be written"));
      return;
    }
    pending.id = id;
    this.#pending.set(id, pending);
    if (type !== "call" || !carriesSecret((request as CallMessage).name)) this.#outbox.add(frame);
    else {
      this.#outbox.flush();
      this.#options.write(frame, () => frame.fill(0));
    }
  }

  #release(pending: Pending): void {
    if (pending.signal !== undefined) this.#aborts.remove(pending.signal, pending);
  }

  #takeId(): number {
    while (this.#pending.has(this.#nextId)) this.#nextId = (this.#nextId + 1) >>> 0;
    const id = this.#nextId;
    this.#nextId = (id + 1) >>> 0;
    return id;
  }

  #cancel(pending: Pending): void {
    const at = this.#queue.indexOf(pending);
    if (at >= 0) this.#queue.splice(at, 1);
    else if (this.#pending.get(pending.id) === pending) {
      // Its id stays taken until the agent has answered.
      this.#pending.set(pending.id, null);
      this.#outbox.add(encodeFrame({ type: "cancel", id: pending.id }));
    }
    pending.reject(cancelled());
  }

  /** Throws RpcError or DecodeError for what ends the connection. */
  #receive(frame: Frame): void {
    if (this.#gone !== null) return;
    scanMessage(frame.body, this.#limits);
    const fields = decodeBodyCopied(frame.body);
    switch (fields["type"]) {
      case "result":
      case "error":
        this.#answer(fields);
        break;
      case "event": {
        const event = decodeEvent(fields);
        if (event !== null) this.#cryptoki.emit(event);
        break;
      }
    }
  }

  #answer(fields: Fields): void {
    const { type, id } = fields;
    if (type === "error" && (id === null || id === undefined)) throw decodeError(fields);
    const pending = typeof id === "number" ? this.#pending.get(id) : undefined;
    if (pending === undefined) throw new RpcError("protocol", "an answer to no request of ours");
    this.#pending.delete(id as number);
    this.#pump();
    if (pending === null) return;
    this.#release(pending);
    try {
      if (type === "error") throw decodeError(fields);
      pending.resolve(this.#result(pending, fields) as never);
    } catch (thrown) {
      const error = thrown instanceof RpcError ? thrown : new RpcError("protocol", "an answer that does not fit its request");
      pending.reject(error);
      // Nothing else will be understood either.
      if (pending.type === "hello" && error.code === "version") this.#fail(error);
    }
  }

  #result({ type, request }: Pending, fields: Fields): unknown {
    const result = decodeResult(type, fields, request as never);
    if (type === "hello" && !VERSIONS.includes((result as HelloResult).version))
      throw new RpcError("version", "the agent chose a version that was not offered");
    return result;
  }

  /** Nothing that follows can be understood, or nobody wants it. */
  #fail(reason: RpcError): void {
    if (this.#gone !== null) return;
    this.#end(reason);
    this.#options.end();
  }

  #end(reason: RpcError): void {
    if (this.#gone !== null) return;
    this.#gone = reason;
    this.#outbox.discard();
    this.#settleMagic(false);
    for (const pending of [...this.#pending.values(), ...this.#queue.splice(0)]) {
      if (pending === null) continue;
      this.#release(pending);
      pending.reject(reason);
    }
    this.#pending.clear();
    this.#aborts.end();
  }
}

function isDeadline(ms: number): boolean {
  return Number.isInteger(ms) && ms >= 1 && ms <= MAX_DEADLINE_MS;
}

function cancelled(): RpcError {
  return new RpcError("cancelled", "the request was taken back");
}
