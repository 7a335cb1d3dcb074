/*
 * What an agent gives to the tokenfwd RPC server, and what it gets: the handlers, the operations, the server's face.
 * Types only.
 */
import type {
  CallMessage,
  CallOutcome,
  HelloRequest,
  RpcEvent,
  RpcLimits,
  SignMessage,
  SignResult,
  Snapshot,
  StatusResult,
  SubscribeRequest,
} from "./messages.js";

/** What a handler knows of the request that it carries out. */
export interface RpcOperation {
  /**
   * Aborted when the request is cancelled, its deadline has passed or the stream has ended. It is the handler's until that ends,
   * and another request's afterwards: what a handler leaves behind may not listen to it.
   */
  readonly signal: AbortSignal;
  /** The time the asker gives the request, in milliseconds from its receipt; null: no limit. */
  readonly deadlineMs: number | null;
}

/**
 * What an agent does. Each may throw RpcError, of which `protocol` and `version` end the connection; anything else that is
 * thrown is answered `internal`. Byte strings of a request are views of what was received: what outlives the handler is to
 * be copied. The PINs in a call's arguments are overwritten when its handler has ended.
 */
export interface RpcHandlers {
  /** Called once, after a version was found; requests of the same flight do not wait for it. */
  hello(request: HelloRequest, op: RpcOperation): Promise<{ readonly agent: string; readonly snapshot: Snapshot | null }>;
  sign(request: SignMessage, op: RpcOperation): Promise<SignResult>;
  call(request: CallMessage, op: RpcOperation): Promise<CallOutcome>;
  status(op: RpcOperation): StatusResult | Promise<StatusResult>;
  subscribe(request: SubscribeRequest, op: RpcOperation): void | Promise<void>;
}

export interface RpcServerOptions {
  readonly handlers: RpcHandlers;
  /** Takes the magic, then one or more whole frames per call; the buffer is the taker's. */
  write(bytes: Buffer): void;
  /**
   * Asked before each request is taken up. A promise holds the server back until it resolves, which it must do when the
   * stream drains and when it closes; null lets it go on. Without it, a peer that asks and never reads fills our memory.
   */
  full?(): Promise<void> | null;
  /**
   * Called once when the server ends the conversation because the peer broke the protocol, after the error that says so
   * was written. The reason is printable. The attacher then ends the stream; the server writes nothing more.
   */
  onViolation?(reason: string): void;
  readonly limits?: Partial<RpcLimits>;
}

export interface RpcServer {
  /**
   * Takes the next bytes of the client in any fragmentation, the magic first. The chunk becomes the server's: requests
   * are views of it, and the bytes of a message that carries a PIN are overwritten in it.
   */
  push(chunk: Buffer): void;
  /** The peer has gone: aborts every operation and drops what waits. Safe to call twice. */
  end(): void;
  /**
   * Bytes of whole messages whose handlers have not ended, each with what it costs to hold it. A part of a message does not
   * count, so pausing cannot deadlock.
   */
  readonly pendingBytes: number;
  /** Requests whose handlers have not ended. */
  readonly inFlight: number;
  /** Resolves after end() or a violation, when no handler is running. */
  readonly idle: Promise<void>;
  /** Set by the attacher: called when pendingBytes has become less. */
  onDrain?: () => void;
  /** Sends an event if the client has subscribed to it. While the stream is full only the last of each event and slot is kept. */
  event(event: RpcEvent): void;
}
