/*
 * Answers of the tokenfwd RPC server as frames that the client's limits let through, and errors that are fit to be sent.
 * It must never let a text of a token, a module or a peer out unprinted.
 */
import { printable } from "../../base/printable.js";
import { CKR } from "../../cryptoki/rv.js";
import { encodeFrame, encodeMessage, HEADER_BYTES } from "./codec.js";
import {
  DEFAULT_RPC_LIMITS,
  type HelloRequest,
  type HelloResult,
  MAX_DEADLINE_MS,
  RpcError,
  type RpcLimits,
  type RpcRequests,
  type RpcRequestType,
  VERSIONS,
} from "./messages.js";
import { encodeError, encodeResult } from "./results.js";
import { scanMessage } from "./scan.js";

const MAX_HINT_CHARACTERS = 2_000;

/**
 * The frame that answers a request. An answer which is longer than a frame becomes CKR_DEVICE_MEMORY for a call, and for
 * a hello one without a snapshot: the client asks for what it needs. Throws RpcError `internal` for any other.
 */
export function encodeAnswer(
  type: RpcRequestType,
  id: number,
  request: RpcRequests[RpcRequestType]["request"],
  result: unknown,
  limits: RpcLimits,
): Buffer {
  const frame = encodeMessage({ type: "result", id }, encodeResult(type, result as never, request as never));
  if (type === "hello") {
    if (fits(frame, limits)) return frame;
    const bare = { ...(result as HelloResult), snapshot: null };
    return encodeMessage({ type: "result", id }, encodeResult("hello", bare, request as HelloRequest));
  }
  if (frame.length - HEADER_BYTES <= limits.maxFrameBytes) return frame;
  if (type === "call") return encodeFrame({ type: "result", id, rv: CKR.CKR_DEVICE_MEMORY, outs: {} });
  throw new RpcError("internal", "the answer is longer than a frame");
}

/** The frame of an error; `id` null where it is of the connection. */
export function encodeErrorFrame(id: number | null, error: RpcError): Buffer {
  return encodeMessage({ type: "error" }, encodeError(id, printableError(error)));
}

/** The error for whatever should not have been thrown: its text stays here. */
export function internalError(): RpcError {
  return new RpcError("internal", "internal error");
}

/** The deadline of a request. Throws RpcError `protocol`. */
export function readDeadline(value: unknown, type: string): number | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== "number" || value < 1 || value > MAX_DEADLINE_MS)
    throw new RpcError("protocol", `${type}.deadlineMs is not a number from 1 to ${MAX_DEADLINE_MS}`);
  return value;
}

/** The best version of both sides, or null. */
export function chooseVersion(offered: readonly number[]): number | null {
  const common = VERSIONS.filter((version) => offered.includes(version));
  return common.at(-1) ?? null;
}

function fits(frame: Buffer, limits: RpcLimits): boolean {
  if (frame.length - HEADER_BYTES > limits.maxFrameBytes) return false;
  try {
    scanMessage(frame.subarray(HEADER_BYTES), limits);
    return true;
  } catch {
    return false;
  }
}

/** An error whose texts are fit to be sent. */
function printableError(error: RpcError): RpcError {
  return new RpcError(error.code, printable(error.message), {
    ...(error.rv === null ? {} : { rv: error.rv }),
    ...(error.call === null ? {} : { call: printable(error.call) }),
    ...(error.hint === null ? {} : { hint: printableHint(error.hint) }),
  });
}

/** A hint may list keys to choose from, so it is given what room a text has; in one that is full of escapes less of it is shown. */
function printableHint(hint: string): string {
  const shown = printable(hint, MAX_HINT_CHARACTERS);
  return Buffer.byteLength(shown) <= DEFAULT_RPC_LIMITS.maxTextBytes ? shown : printable(hint);
}
