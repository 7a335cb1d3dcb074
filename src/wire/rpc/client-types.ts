/*
 * What a tokenfwd RPC client is given, and what it gives: its options and its face. Types only.
 */
import type { Cryptoki } from "../../cryptoki/types.js";
import type { HelloResult, RpcLimits, RpcRequests, RpcRequestType } from "./messages.js";

export interface RpcClientOptions {
  /**
   * Takes the magic and whole frames, one or more per call; the buffer is the taker's. `written` is given with a frame
   * that carries a PIN: called when the bytes are no longer needed, it overwrites them.
   */
  write(bytes: Buffer, written?: () => void): void;
  /** Asked once to end the stream: at close(), when the agent broke the protocol, or when it is none. */
  end(): void;
  /** What this side calls itself in the workstation's log, printable. */
  readonly client?: string;
  /** Whether hello asks for the snapshot. Default true. */
  readonly snapshot?: boolean;
  readonly limits?: Partial<RpcLimits>;
  /** `eager` (default) writes magic, hello and requests in one flight; `careful` the magic alone until the agent's has come. */
  readonly flight?: "eager" | "careful";
}

export interface RpcRequestOptions {
  readonly signal?: AbortSignal;
  /** The time the agent may take from receipt, 1 to 600000 ms. */
  readonly deadlineMs?: number;
}

export interface RpcClient {
  /** Takes the next bytes of the agent in any fragmentation. The chunk is read, what results hold of it are copies. */
  push(chunk: Buffer): void;
  /** The stream has gone: every request in flight rejects with RpcError `internal`, CONNECTION_ENDED, the reason as its hint. Safe to call twice. */
  closed(reason?: Error): void;
  /** True at the agent's magic; false when the other end answered something else or closed first. Never rejects. */
  readonly isTokenfwd: Promise<boolean>;
  /** What the agent answered to hello. Rejects RpcError when it said no or the stream went first. */
  readonly ready: Promise<HelloResult>;
  /**
   * Sends a request, or keeps it until fewer than `maxInFlight` are unanswered. Rejects RpcError: the agent's; `cancelled`
   * when the signal is aborted, which also takes the request back; `internal` when the connection has ended.
   */
  request<T extends RpcRequestType>(
    type: T,
    request: RpcRequests[T]["request"],
    options?: RpcRequestOptions,
  ): Promise<RpcRequests[T]["result"]>;
  /**
   * `call` as a Cryptoki. A lost connection is CKR_DEVICE_REMOVED, a call taken back CKR_FUNCTION_CANCELED, an answer that
   * does not fit CKR_DEVICE_ERROR. Its events are those of `subscribe`.
   */
  readonly cryptoki: Cryptoki;
  /** Requests without an answer, those that wait to be sent included. */
  readonly inFlight: number;
  /** True once the connection has ended, from whichever side. */
  readonly gone: boolean;
  /** Ends the stream; what is in flight rejects. Safe to call twice. */
  close(): Promise<void>;
}
