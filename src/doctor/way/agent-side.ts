/*
 * A client of ours at the bastion's end of the socket, over the connection that doctor has anyway: what it asks takes the way that a
 * program there takes. It must never send a PIN.
 */
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { orAborted } from "../../base/single-flight.js";
import { clientError } from "../../bastion/client/errors.js";
import type { KeyEntry } from "../../cryptoki/keys/types.js";
import { createRpcClient } from "../../wire/rpc/client.js";
import type { SignMessage, SignResult } from "../../wire/rpc/messages.js";

export interface AgentSide {
  /** Every key that the agent shows on this forward, without a log-in. */
  readonly keys: readonly KeyEntry[];
  /** Signs once. Rejects with a TokenfwdError, or with the signal's reason. */
  sign(request: SignMessage, signal: AbortSignal): Promise<SignResult>;
  close(): void;
}

/** Says hello over a stream, which it owns from now on. Rejects with a TokenfwdError, or with the signal's reason. */
export async function openAgentSide(stream: Duplex, signal: AbortSignal): Promise<AgentSide> {
  const rpc = createRpcClient({
    write: (bytes, written) => void stream.write(bytes, () => written?.()),
    end: () => void stream.end(),
    client: "tokenfwd doctor",
    snapshot: true,
  });
  stream.on("data", (bytes: Buffer) => rpc.push(bytes));
  stream.on("error", () => stream.destroy());
  stream.on("end", () => stream.destroy());
  stream.on("close", () => rpc.closed());
  const close = (): void => {
    void rpc.close();
    stream.destroy();
  };
  const explained = (thrown: unknown): unknown => {
    if (signal.aborted) return signal.reason;
    return thrown instanceof TokenfwdError ? thrown : clientError(thrown);
  };
  try {
    const { snapshot } = await orAborted(rpc.ready, signal, () => signal.reason as Error);
    return {
      keys: (snapshot?.tokens ?? []).flatMap(({ slot, keys }) => keys.map((key) => ({ ...key, slot }))),
      async sign(request, stop) {
        try {
          return await rpc.request("sign", request, { signal: stop });
        } catch (thrown) {
          stop.throwIfAborted();
          throw explained(thrown);
        }
      },
      close,
    };
  } catch (thrown) {
    close();
    throw explained(thrown);
  }
}
