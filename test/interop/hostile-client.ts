/*
 * A p11-kit RPC client that obeys no rule: it builds frames by hand, right and wrong, so that tests do not depend on our own
 * codec. What it knows of the protocol it has from the wire, not from src/.
 */
import { connect, type Socket } from "node:net";

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};

/** Wire values by hand. */
export const wire = {
  y: (value: number): Buffer => Buffer.from([value]),
  u32,
  u: (value: bigint | number): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return bytes;
  },
  ay: (value: Buffer): Buffer => Buffer.concat([Buffer.from([1]), u32(value.length), value]),
  /** An attribute with a CK_ULONG. */
  ulongAttribute: (type: number, value: bigint | number): Buffer => Buffer.concat([u32(type), Buffer.from([1]), u32(8), wire.u(value)]),
  /** `depth` templates, each in the next, the innermost empty. */
  nested: (depth: number): Buffer => Buffer.concat([...Array.from({ length: depth }, () => NESTED), u32(0)]),
  header: (code: number, options: number, body: number): Buffer => Buffer.concat([u32(code), u32(options), u32(body)]),
  body: (id: number, signature: string, ...args: readonly Buffer[]): Buffer =>
    Buffer.concat([u32(id), u32(signature.length), Buffer.from(signature), ...args]),
  frame: (code: number, body: Buffer, options: Buffer = Buffer.from("client")): Buffer =>
    Buffer.concat([wire.header(code, options.length, body.length), options, body]),
};
/** One attribute CKA_WRAP_TEMPLATE that holds one attribute. */
const NESTED = Buffer.concat([u32(1), u32(0x40000211), Buffer.from([1]), u32(24)]);

/** What a call was answered with; rv is 0 unless it was an ERROR. */
export interface Reply {
  readonly rv: number;
  readonly rest: Buffer;
}

export interface HostileClient {
  /** Writes bytes as they are. */
  send(bytes: Buffer): void;
  /** Sends a well-formed frame and waits for its reply; null when the server closes the connection instead. */
  call(id: number, signature: string, ...args: readonly Buffer[]): Promise<Reply | null>;
  initialize(): Promise<Reply | null>;
  /** Resolves when the server has closed. */
  readonly closed: Promise<void>;
  /** Half-closes: an orderly end. */
  end(): void;
  /** Closes at once, as a killed process does. */
  destroy(): void;
}

/** Connects and sends `version`; waits for the answer byte. Rejects when the server does not answer it. */
export async function hostileClient(path: string, version = 0): Promise<HostileClient> {
  const socket: Socket = connect(path);
  let buffer = Buffer.alloc(0);
  let wake: () => void = () => undefined;
  let isClosed = false;
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      isClosed = true;
      resolve();
      wake();
    });
  });
  socket.on("error", () => undefined); // the server may reset; `close` follows
  socket.on("data", (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk]);
    wake();
  });
  /** The next `length` bytes, or null when the connection closes first. */
  const take = async (length: number): Promise<Buffer | null> => {
    while (buffer.length < length) {
      if (isClosed) return null;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const taken = buffer.subarray(0, length);
    buffer = buffer.subarray(length);
    return taken;
  };
  socket.write(Buffer.from([version]));
  if ((await take(1)) === null) throw new Error("the server closed instead of answering the version byte");

  let code = 0x10;
  const call = async (id: number, signature: string, ...args: readonly Buffer[]): Promise<Reply | null> => {
    socket.write(wire.frame(code++, wire.body(id, signature, ...args)));
    const header = await take(12);
    if (header === null) return null;
    const body = await take(header.readUInt32BE(4) + header.readUInt32BE(8));
    if (body === null) return null;
    const message = body.subarray(header.readUInt32BE(4));
    const rest = message.subarray(8 + message.readUInt32BE(4));
    return message.readUInt32BE(0) === 0 ? { rv: Number(rest.readBigUInt64BE(0)), rest } : { rv: 0, rest };
  };
  return {
    send: (bytes) => void socket.write(bytes),
    call,
    initialize: () =>
      call(1, "ayyay", wire.ay(Buffer.from("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1")), wire.y(0), wire.ay(Buffer.from([0]))),
    closed,
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
}

/** The first slot with a token, as a well-behaved client finds it. Throws when the server does not do its job. */
export async function firstSlot(client: HostileClient): Promise<bigint> {
  const reply = await client.call(4, "yfu", wire.y(1), wire.u32(16));
  if (reply === null || reply.rv !== 0 || reply.rest[0] !== 1 || reply.rest.readUInt32BE(1) < 1) throw new Error("no slot");
  return reply.rest.readBigUInt64BE(5);
}

/** A session, logged in, and the first private key in it. */
export async function loggedIn(client: HostileClient): Promise<{ session: bigint; key: bigint }> {
  const done = (reply: Reply | null): Buffer => {
    if (reply === null || reply.rv !== 0) throw new Error(`refused: ${reply?.rv ?? "closed"}`);
    return reply.rest;
  };
  done(await client.initialize());
  const session = done(await client.call(10, "uu", wire.u(await firstSlot(client)), wire.u(4))).readBigUInt64BE(0);
  done(await client.call(18, "uuay", wire.u(session), wire.u(1), wire.ay(Buffer.from("0000"))));
  const template = Buffer.concat([wire.u32(2), wire.ulongAttribute(0, 3), wire.ulongAttribute(0x100, 0)]);
  done(await client.call(26, "uaA", wire.u(session), template));
  const found = done(await client.call(27, "ufu", wire.u(session), wire.u32(1)));
  done(await client.call(28, "u", wire.u(session)));
  if (found.readUInt32BE(1) !== 1) throw new Error("no private RSA key");
  return { session, key: found.readBigUInt64BE(5) };
}
