/*
 * A Cryptoki over the `call` request of a tokenfwd RPC client: whatever goes wrong on the way is a CK_RV, as everywhere
 * in these layers. It must never reject for an error of the agent or the connection.
 */
import { createEmitter } from "../../base/events.js";
import type { CallName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyArgs, CallArgs, CallContext, CallResult, Cryptoki, CryptokiEvents } from "../../cryptoki/types.js";
import type { RpcClient } from "./client-types.js";
import { MAX_DEADLINE_MS, RpcError, type RpcErrorCode, type RpcEvent } from "./messages.js";

export interface ClientCryptoki extends Cryptoki {
  /** Tells the listeners of an event that the agent sent. */
  emit(event: RpcEvent): void;
}

/** The CK_RV of a failed `call`. A connection that has ended is told apart. */
const RVS: Readonly<Partial<Record<RpcErrorCode, number>>> = {
  cancelled: CKR.CKR_FUNCTION_CANCELED,
  deadline: CKR.CKR_FUNCTION_CANCELED,
  busy: CKR.CKR_DEVICE_MEMORY,
  "bad-request": CKR.CKR_ARGUMENTS_BAD,
  "unknown-request": CKR.CKR_FUNCTION_NOT_SUPPORTED,
  protocol: CKR.CKR_DEVICE_ERROR,
};

/** Closing this closes nothing. */
export function createClientCryptoki(client: Pick<RpcClient, "request" | "gone">): ClientCryptoki {
  const events = createEmitter<CryptokiEvents>();
  return {
    events,
    async call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>> {
      const { signal, deadlineMs } = ctx;
      const options =
        deadlineMs === undefined ? { signal } : { signal, deadlineMs: Math.min(MAX_DEADLINE_MS, Math.max(1, Math.floor(deadlineMs))) };
      try {
        const { rv, outs } = await client.request("call", { name, args: args as AnyArgs }, options);
        return { ...outs, rv } as CallResult<N>;
      } catch (thrown) {
        if (!(thrown instanceof RpcError)) throw thrown;
        return { rv: rvOf(thrown, client.gone) } as CallResult<N>;
      }
    },
    async close() {},
    emit({ event, slot, waiting, epoch }) {
      if (event === "epoch") {
        if (epoch !== undefined) events.emit("epoch", { epoch });
      } else if (slot !== null) {
        if (event === "touch") events.emit("touch", { slot, waiting: waiting ?? false });
        else events.emit(event, { slot });
      }
    },
  };
}

function rvOf(error: RpcError, gone: boolean): number {
  if (error.rv !== null && error.rv !== CKR.CKR_OK) return error.rv;
  if (gone && error.code !== "cancelled") return CKR.CKR_DEVICE_REMOVED;
  return RVS[error.code] ?? CKR.CKR_GENERAL_ERROR;
}
