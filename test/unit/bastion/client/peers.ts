/*
 * What tests of the client share: an agent that signs as the test wants, a request to it, and the error that comes of one.
 */
import type { Socket } from "node:net";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { CKR } from "../../../../src/cryptoki/rv.js";
import { RpcError } from "../../../../src/wire/rpc/messages.js";
import { createRpcServer, type RpcHandlers } from "../../../../src/wire/rpc/server.js";

export const TIMES = { connectMs: 5_000, firstByteMs: 150, snapshotMs: 5_000 };
export const REQUEST = {
  key: { uri: "pkcs11:id=%01", spki: null },
  mechanism: null,
  parameter: null,
  data: Buffer.from("document"),
  isDigest: false,
  purpose: "test",
  expect: null,
};
export const SIGNED = { signature: Buffer.from("signature"), mechanism: 1, uri: "pkcs11:id=%01", spki: null };

/** Serves tokenfwd RPC with what the test wants of `sign`. */
export function agent(sign: RpcHandlers["sign"]): (socket: Socket) => void {
  return (socket) => {
    const rpc = createRpcServer({
      handlers: {
        hello: async () => ({ agent: "test", snapshot: { epoch: 1, tokens: [] } }),
        sign,
        call: async () => ({ rv: CKR.CKR_OK, outs: {} }),
        status: () => {
          throw new RpcError("internal", "no status here");
        },
        subscribe: () => {},
      },
      write: (bytes) => void socket.write(bytes),
    });
    socket.on("data", (chunk) => rpc.push(chunk));
    socket.on("close", () => rpc.end());
  };
}

/** The TokenfwdError that the work rejects with. */
export async function failure(work: Promise<unknown>): Promise<TokenfwdError> {
  const thrown = await work.then(() => null).catch((error: unknown) => error);
  if (!(thrown instanceof TokenfwdError)) throw new Error(`no TokenfwdError but ${String(thrown)}`);
  return thrown;
}
