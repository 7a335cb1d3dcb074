/*
 * A tokenfwd RPC server under test over handlers that answer plainly, a client connected to one in memory, and the
 * requests that tests send: what the tests of this wire talk to.
 */
import { createRpcClient, type RpcClient, type RpcClientOptions } from "../../src/wire/rpc/client.js";
import { decodeBody, type Fields } from "../../src/wire/rpc/codec.js";
import { createFrameDecoder } from "../../src/wire/rpc/frame.js";
import { DEFAULT_RPC_LIMITS, MAGIC, RpcError, type SignMessage } from "../../src/wire/rpc/messages.js";
import { createRpcServer, type RpcHandlers, type RpcServer, type RpcServerOptions } from "../../src/wire/rpc/server.js";

/** A request to sign, with what a test wants to be different. */
export function signRequest(more: Partial<SignMessage> = {}): SignMessage {
  return {
    key: { uri: "pkcs11:id=%01;type=private", spki: null },
    mechanism: null,
    parameter: null,
    data: Buffer.from("document"),
    isDigest: false,
    purpose: "data",
    expect: null,
    ...more,
  };
}

/** Handlers that answer at once: sign with the data backwards, call with CKR_OK and nothing. */
export function plainHandlers(more: Partial<RpcHandlers> = {}): RpcHandlers {
  return {
    hello: async () => ({ agent: "tokenfwd test", snapshot: null }),
    sign: async ({ data }) => ({ signature: Buffer.from(data).reverse(), mechanism: 0x40, uri: "pkcs11:id=%01", spki: null }),
    call: async () => ({ rv: 0, outs: {} }),
    status: () => {
      throw new RpcError("internal", "no status here");
    },
    subscribe: () => {},
    ...more,
  };
}

export interface ServedRpc {
  readonly server: RpcServer;
  readonly violations: string[];
  /** Handlers that were called, in order. */
  readonly seen: string[];
  /** Every write, as it came. */
  readonly writes: Buffer[];
  /** True when the first bytes written are the magic. */
  wroteMagic(): boolean;
  /** Everything written after the magic, decoded. */
  messages(): Fields[];
  /** Resolves when no handler runs and what is ready was written. */
  settled(): Promise<void>;
}

/** A server under test. */
export function serveRpc(handlers: Partial<RpcHandlers> = {}, options: Partial<RpcServerOptions> = {}): ServedRpc {
  const writes: Buffer[] = [];
  const violations: string[] = [];
  const seen: string[] = [];
  const plain = plainHandlers(handlers);
  const counted = Object.fromEntries(
    Object.entries(plain).map(([name, handler]) => [
      name,
      (...args: unknown[]) => {
        seen.push(name);
        return (handler as (...given: unknown[]) => unknown)(...args);
      },
    ]),
  ) as unknown as RpcHandlers;
  const server = createRpcServer({
    handlers: counted,
    write: (bytes) => writes.push(Buffer.from(bytes)),
    onViolation: (reason) => violations.push(reason),
    ...options,
  });
  const bytes = () => Buffer.concat(writes);
  return {
    server,
    violations,
    seen,
    writes,
    wroteMagic: () => bytes().subarray(0, MAGIC.length).equals(MAGIC),
    messages() {
      const messages: Fields[] = [];
      createFrameDecoder({ ...DEFAULT_RPC_LIMITS, onFrame: ({ body }) => messages.push(decodeBody(body)) }).push(
        bytes().subarray(MAGIC.length),
      );
      return messages;
    },
    async settled() {
      do await new Promise((resolve) => setImmediate(resolve));
      while (server.inFlight > 0);
    },
  };
}

export interface RpcPair {
  readonly client: RpcClient;
  readonly server: RpcServer;
  /** Every write of each side, as it came. */
  readonly fromClient: Buffer[];
  readonly fromServer: Buffer[];
  readonly violations: string[];
  /** Times the client asked for the end of the stream. */
  readonly ends: { count: number };
}

/** A client and a server that hear each other a turn of the event loop later. */
export function connectRpc(
  handlers: Partial<RpcHandlers> = {},
  options: { readonly client?: Partial<RpcClientOptions>; readonly server?: Partial<RpcServerOptions> } = {},
): RpcPair {
  const fromClient: Buffer[] = [];
  const fromServer: Buffer[] = [];
  const violations: string[] = [];
  const ends = { count: 0 };
  const server = createRpcServer({
    handlers: plainHandlers(handlers),
    write(bytes) {
      fromServer.push(Buffer.from(bytes));
      setImmediate(() => client.push(Buffer.from(bytes)));
    },
    onViolation: (reason) => violations.push(reason),
    ...options.server,
  });
  const client: RpcClient = createRpcClient({
    write(bytes) {
      fromClient.push(Buffer.from(bytes));
      const copy = Buffer.from(bytes);
      setImmediate(() => server.push(copy));
    },
    end() {
      ends.count++;
      setImmediate(() => server.end());
    },
    snapshot: false,
    ...options.client,
  });
  return { client, server, fromClient, fromServer, violations, ends };
}
