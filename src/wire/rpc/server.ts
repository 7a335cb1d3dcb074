/*
 * The tokenfwd RPC server: bytes of one client in, handlers, bytes out. Requests overlap, answers leave as they become
 * ready. It must never touch a socket, take anything before a hello, act on a message that it has not checked whole, or
 * write a PIN anywhere. See protocol/tokenfwd-rpc.md.
 */
import { DecodeError } from "../../base/bytes.js";
import { printable } from "../../base/printable.js";
import { Refusal } from "../p11kit/limits.js";
import { wipeSecrets } from "../p11kit/requests.js";
import { chooseVersion, encodeAnswer, encodeErrorFrame, internalError, readDeadline } from "./answers.js";
import { carriesSecret } from "./call-values.js";
import { decodeBody, encodeMessage, type Fields } from "./codec.js";
import { createEventQueue, type EventQueue } from "./event-queue.js";
import { createFrameDecoder, type Frame, type FrameDecoder } from "./frame.js";
import { createIntake, type Intake } from "./intake.js";
import {
  type CallMessage,
  DEFAULT_RPC_LIMITS,
  type HelloRequest,
  type HelloResult,
  MAGIC,
  RpcError,
  type RpcEvent,
  type RpcLimits,
  type RpcRequests,
  type RpcRequestType,
  type SignMessage,
  type SubscribeRequest,
  VERSIONS,
} from "./messages.js";
import { createOperations, type Operation } from "./operation.js";
import { createOutbox, type Outbox } from "./outbox.js";
import { decodeRequest, isRequestType } from "./requests.js";
import { scanMessage } from "./scan.js";
import type { RpcServer, RpcServerOptions } from "./server-types.js";

export type { RpcHandlers, RpcOperation, RpcServer, RpcServerOptions } from "./server-types.js";

/** A server for one client, waiting for its magic. */
export function createRpcServer(options: RpcServerOptions): RpcServer {
  return new Server(options);
}

const MAX_ID = 0xffffffff;

type AnyRequest = RpcRequests[RpcRequestType]["request"];

class Server implements RpcServer {
  onDrain?: () => void;
  readonly idle: Promise<void>;
  readonly #options: RpcServerOptions;
  readonly #limits: RpcLimits;
  readonly #decoder: FrameDecoder;
  readonly #outbox: Outbox;
  readonly #events: EventQueue;
  readonly #intake: Intake;
  readonly #operations = createOperations();
  readonly #running = new Map<number, Operation>();
  #magicSeen = 0;
  #helloSeen = false;
  #ended = false;
  #inFlight = 0;
  #resolveIdle: () => void = () => {};

  constructor(options: RpcServerOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_RPC_LIMITS, ...options.limits };
    this.#outbox = createOutbox((bytes) => options.write(bytes));
    const full = () => options.full?.() ?? null;
    this.#events = createEventQueue({ send: (fields) => this.#send("event", fields), full });
    this.#intake = createIntake({ full, take: (frame) => this.#take(frame) });
    this.idle = new Promise((resolve) => {
      this.#resolveIdle = resolve;
    });
    this.#decoder = createFrameDecoder({ maxFrameBytes: this.#limits.maxFrameBytes, onFrame: (frame) => this.#receive(frame) });
  }

  get pendingBytes(): number {
    return this.#intake.pendingBytes;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  push(chunk: Buffer): void {
    if (this.#ended) return;
    const frames = this.#magicSeen < MAGIC.length ? this.#takeMagic(chunk) : chunk;
    if (frames === null || frames.length === 0) return;
    try {
      this.#decoder.push(frames);
    } catch (thrown) {
      this.#violate(thrown instanceof DecodeError ? new RpcError("protocol", thrown.message) : internalError());
    }
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#outbox.discard();
    this.#events.end();
    for (const operation of this.#running.values()) {
      operation.answered = true;
      operation.settle();
      operation.abort();
    }
    this.#running.clear();
    this.#decoder.end();
    this.#intake.end();
    if (this.#inFlight === 0) this.#resolveIdle();
  }

  event(event: RpcEvent): void {
    if (!this.#ended) this.#events.add(event);
  }

  /** What follows the magic in this chunk, or null when it is not whole or not ours. */
  #takeMagic(chunk: Buffer): Buffer | null {
    for (let at = 0; at < chunk.length; at++) {
      const last = this.#magicSeen === MAGIC.length - 1;
      if (chunk[at] !== MAGIC[this.#magicSeen]) {
        // Another framing: whoever offers it learns which one we have.
        if (last) this.#options.write(Buffer.from(MAGIC));
        this.end();
        this.#options.onViolation?.(last ? "another version of the framing" : "no magic of tokenfwd RPC");
        return null;
      }
      this.#magicSeen++;
      if (last) {
        this.#options.write(Buffer.from(MAGIC));
        return chunk.subarray(at + 1);
      }
    }
    return null;
  }

  #receive(frame: Frame): void {
    if (this.#ended) frame.wipe();
    else this.#intake.add(frame);
  }

  /** Acts on one frame. Its bytes are settled here, unless a handler goes on with them. */
  #take(frame: Frame): void {
    let goesOn = false;
    try {
      scanMessage(frame.body, this.#limits);
      goesOn = this.#dispatch(decodeBody(frame.body), frame);
    } catch (thrown) {
      frame.wipe();
      if (thrown instanceof DecodeError) this.#violate(new RpcError("protocol", thrown.message));
      else this.#violate(thrown instanceof RpcError ? thrown : internalError());
    }
    if (!goesOn) this.#settle(frame);
  }

  /** True when a handler was started. Throws RpcError `protocol` for what ends the connection. */
  #dispatch(fields: Fields, frame: Frame): boolean {
    const { type, id } = fields;
    if (typeof type !== "string") throw new RpcError("protocol", "a message without a type");
    if (!this.#helloSeen && type !== "hello") throw new RpcError("protocol", "the first message is no hello");
    if (typeof id !== "number" || id > MAX_ID) {
      if (type === "cancel" || isRequestType(type)) throw new RpcError("protocol", `${type}.id is not a number of 32 bits`);
      frame.wipe();
      return false;
    }
    if (type === "cancel") {
      this.#cancel(id, new RpcError("cancelled", "the request was taken back"));
      return false;
    }
    if (this.#running.has(id)) throw new RpcError("protocol", "an id that is in use");
    if (!isRequestType(type)) {
      // Of a type that we do not know, so it may hold anything.
      frame.wipe();
      this.#sendError(id, new RpcError("unknown-request", "no such request"));
      return false;
    }
    const deadlineMs = readDeadline(fields["deadlineMs"], type);
    return this.#start(type, id, deadlineMs, fields, frame);
  }

  #start(type: RpcRequestType, id: number, deadlineMs: number | null, fields: Fields, frame: Frame): boolean {
    let request: AnyRequest;
    try {
      if (this.#inFlight >= this.#limits.maxInFlight) throw new RpcError("busy", `${this.#inFlight} requests are running`);
      request = decodeRequest(type, fields);
    } catch (thrown) {
      frame.wipe();
      if (thrown instanceof Refusal) this.#send("result", { id, rv: thrown.rv, outs: {} });
      else if (thrown instanceof RpcError && thrown.code !== "protocol") this.#sendError(id, thrown);
      else throw thrown;
      return false;
    }
    if (type === "hello") this.#agreeOnVersion(id, request as HelloRequest);
    if (this.#ended) return false;
    if (type === "ping") {
      this.#send("result", { id });
      return false;
    }
    const operation = this.#operations.create(id, deadlineMs, () => this.#cancel(id, new RpcError("deadline", "the deadline has passed")));
    this.#running.set(id, operation);
    this.#inFlight++;
    void this.#run(type, request, operation, frame);
    return true;
  }

  #agreeOnVersion(id: number, { versions }: HelloRequest): void {
    if (this.#helloSeen) throw new RpcError("protocol", "a second hello");
    this.#helloSeen = true;
    if (chooseVersion(versions) === null)
      this.#violate(new RpcError("version", `no version in common: this side has ${VERSIONS.join(", ")}`), id);
  }

  /** Runs a handler and answers. Never rejects. */
  async #run(type: RpcRequestType, request: AnyRequest, operation: Operation, frame: Frame): Promise<void> {
    const secret = type === "call" && carriesSecret((request as CallMessage).name);
    if (secret) frame.wipe();
    try {
      const result = await this.#handle(type, request, operation);
      if (!operation.answered) this.#answer(operation, encodeAnswer(type, operation.id, request, result, this.#limits));
    } catch (thrown) {
      const error = thrown instanceof RpcError ? thrown : internalError();
      if (error.code === "protocol" || error.code === "version") this.#violate(error);
      else if (!operation.answered) this.#answer(operation, encodeErrorFrame(operation.id, error));
    } finally {
      operation.end();
      if (secret) wipeSecrets((request as CallMessage).args);
      this.#inFlight--;
      this.#settle(frame);
      if (this.#ended && this.#inFlight === 0) this.#resolveIdle();
    }
  }

  #handle(type: RpcRequestType, request: AnyRequest, operation: Operation): unknown {
    const { handlers } = this.#options;
    switch (type) {
      case "sign":
        return handlers.sign(request as SignMessage, operation);
      case "call":
        return handlers.call(request as CallMessage, operation);
      case "hello":
        return this.#hello(request as HelloRequest, operation);
      case "status":
        return handlers.status(operation);
      case "subscribe":
        return this.#subscribe(request as SubscribeRequest, operation);
      case "ping":
        return {};
    }
  }

  async #hello(request: HelloRequest, operation: Operation): Promise<HelloResult> {
    const version = chooseVersion(request.versions) ?? 0;
    const { agent, snapshot } = await this.#options.handlers.hello(request, operation);
    return { version, agent, snapshot };
  }

  async #subscribe(request: SubscribeRequest, operation: Operation): Promise<Record<never, never>> {
    await this.#options.handlers.subscribe(request, operation);
    if (!operation.answered) this.#events.subscribe(request.events);
    return {};
  }

  /** Answers a running request with an error and aborts it; without such a request it does nothing. */
  #cancel(id: number, error: RpcError): void {
    const operation = this.#running.get(id);
    if (operation === undefined) return;
    this.#answer(operation, encodeErrorFrame(id, error));
    operation.abort();
  }

  #answer(operation: Operation, frame: Buffer): void {
    operation.answered = true;
    operation.settle();
    this.#running.delete(operation.id);
    this.#outbox.add(frame);
  }

  #send(type: string, fields: Fields): void {
    this.#outbox.add(encodeMessage({ type }, fields));
  }

  #sendError(id: number | null, error: RpcError): void {
    this.#outbox.add(encodeErrorFrame(id, error));
  }

  #settle(frame: Frame): void {
    this.#intake.settle(frame);
    this.onDrain?.();
  }

  /** Writes the last error and ends the conversation. */
  #violate(error: RpcError, id: number | null = null): void {
    if (this.#ended) return;
    this.#sendError(id, error);
    this.#outbox.flush();
    this.end();
    this.#options.onViolation?.(printable(error.message));
  }
}
