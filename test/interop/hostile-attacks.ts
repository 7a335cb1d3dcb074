/*
 * What a hostile or broken client does to an agent, one function each. An attack ends its own connection, and answers how the
 * agent took it; it must never wait for ever for an agent that ignores it (the test's time limit says so).
 */
import { firstSlot, type HostileClient, hostileClient, loggedIn, wire } from "./hostile-client.js";

/** `closed`: the agent closed the connection. `rv N`: it answered that. `works`: the connection goes on as if nothing was. */
export type Reaction = "closed" | "works" | `rv ${number}`;

export interface Attack {
  readonly name: string;
  readonly expected: readonly Reaction[];
  /** A pattern: how the reason begins that the agent gives for closing. */
  readonly says?: string;
  play(path: string): Promise<Reaction>;
}

const FUNCTION_NOT_SUPPORTED = 0x54;
/** What protocol/p11kit-rpc.md promises beyond the limits of a message. */
const DEVICE_ERROR = "rv 48";
const DEVICE_MEMORY = "rv 49";

/** Connects, sends bytes, and waits for the agent to close. */
async function sendAndAwaitClose(path: string, bytes: Buffer): Promise<Reaction> {
  const client = await hostileClient(path);
  client.send(bytes);
  await client.closed;
  return "closed";
}

async function reaction(client: HostileClient, reply: Promise<{ readonly rv: number } | null>): Promise<Reaction> {
  const answer = await reply;
  client.destroy();
  return answer === null ? "closed" : `rv ${answer.rv}`;
}

/** Bytes that look random and are the same each time. */
function noise(length: number): Buffer {
  let state = 0x9e3779b9;
  return Buffer.from(
    Array.from({ length }, () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state & 0xff;
    }),
  );
}

async function withSession(path: string, use: (client: HostileClient, session: bigint) => Promise<Reaction>): Promise<Reaction> {
  const client = await hostileClient(path);
  await client.initialize();
  const opened = await client.call(10, "uu", wire.u(await firstSlot(client)), wire.u(4));
  if (opened === null || opened.rv !== 0) throw new Error("no session");
  return await use(client, opened.rest.readBigUInt64BE(0));
}

const template = (client: HostileClient, session: bigint, bytes: Buffer) =>
  reaction(client, client.call(26, "uaA", wire.u(session), bytes));

export const ATTACKS: readonly Attack[] = [
  {
    name: "garbage",
    expected: ["closed"],
    says: "limit: options of 523751615 bytes",
    play: (path) => sendAndAwaitClose(path, noise(4096)),
  },
  {
    name: "a frame that is cut off",
    expected: ["closed"],
    async play(path) {
      const client = await hostileClient(path);
      client.send(wire.frame(0x10, wire.body(3, "")).subarray(0, 15));
      client.end();
      await client.closed;
      return "closed";
    },
  },
  {
    name: "a body of 1 MiB and a byte",
    expected: ["closed"],
    says: "limit: frame of 1048595 bytes",
    play: (path) => sendAndAwaitClose(path, wire.header(0x10, 6, 0x100001)),
  },
  {
    name: "a header that claims 1.5 GiB",
    expected: ["closed"],
    says: "limit: frame of 1610612754 bytes",
    play: (path) => sendAndAwaitClose(path, wire.header(0x10, 6, 0x60000000)),
  },
  {
    name: "options of 64 KiB and a byte",
    expected: ["closed"],
    says: "limit: options of 65537 bytes",
    play: (path) => sendAndAwaitClose(path, wire.header(0x10, 0x10001, 8)),
  },
  {
    name: "an empty body",
    expected: ["closed"],
    says: "truncated: call id",
    play: (path) => sendAndAwaitClose(path, wire.frame(0x10, Buffer.alloc(0))),
  },
  {
    name: "a signature that is not the call's",
    expected: ["closed"],
    says: "malformed: another signature",
    play: (path) => sendAndAwaitClose(path, wire.frame(0x10, wire.body(4, "uuu", wire.u(1), wire.u(1), wire.u(1)))),
  },
  {
    name: "a byte array longer than its body",
    expected: ["closed"],
    says: "truncated: handshake",
    play: (path) => sendAndAwaitClose(path, wire.frame(0x10, wire.body(1, "ayyay", wire.y(1), wire.u32(0x7ffffff0)))),
  },
  {
    name: "1 GiB of output room",
    expected: [DEVICE_MEMORY],
    play: (path) => withSession(path, (client, session) => reaction(client, client.call(64, "ufy", wire.u(session), wire.u32(0x40000000)))),
  },
  {
    name: "200,000 templates in each other",
    expected: ["closed"],
    says: "limit: frame of 2600041 bytes",
    play: (path) => withSession(path, (client, session) => template(client, session, wire.nested(200_000))),
  },
  {
    name: "70,000 templates in each other, within the frame's limit",
    expected: [DEVICE_ERROR],
    play: (path) => withSession(path, (client, session) => template(client, session, wire.nested(70_000))),
  },
  {
    name: "2 billion attributes",
    expected: [DEVICE_MEMORY],
    play: (path) => withSession(path, (client, session) => template(client, session, wire.u32(0x7fffffff))),
  },
  {
    name: "Finalize, then Initialize on the same connection",
    expected: ["works"],
    async play(path) {
      const client = await hostileClient(path);
      for (let round = 0; round < 3; round++) {
        if ((await client.initialize())?.rv !== 0) return "closed";
        await firstSlot(client);
        if ((await client.call(2, ""))?.rv !== 0) return "closed";
      }
      client.destroy();
      return "works";
    },
  },
  {
    name: "call ids that nobody knows",
    expected: ["works"],
    async play(path) {
      const client = await hostileClient(path);
      await client.initialize();
      for (const id of [90, 200, 0xffff, 0x7fffffff, 0xffffffff]) {
        const reply = await client.call(id, "uu", wire.u(1), wire.u(2));
        if (reply?.rv !== FUNCTION_NOT_SUPPORTED) return reply === null ? "closed" : `rv ${reply.rv}`;
      }
      await firstSlot(client);
      client.destroy();
      return "works";
    },
  },
  {
    name: "a client that is killed in a signature",
    expected: ["works"],
    async play(path) {
      const client = await hostileClient(path);
      const { session, key } = await loggedIn(client);
      // CKM_SHA256_RSA_PKCS in the old dialect, which is the one of version byte 0.
      const mechanism = Buffer.concat([wire.u32(0x40), wire.u32(0xffffffff)]);
      const started = await client.call(42, "uMu", wire.u(session), mechanism, wire.u(key));
      if (started?.rv !== 0) return started === null ? "closed" : `rv ${started.rv}`;
      client.send(wire.frame(0x99, wire.body(43, "uayfy", wire.u(session), wire.ay(Buffer.from("data")), wire.u32(256))));
      client.destroy();
      return "works";
    },
  },
];

/** What a good client does: lists the slots. Throws when it cannot. */
export async function goodClient(path: string): Promise<void> {
  const client = await hostileClient(path, 2);
  const reply = await client.initialize();
  if (reply?.rv !== 0) throw new Error(`C_Initialize: ${reply?.rv ?? "closed"}`);
  await firstSlot(client);
  client.end();
  await client.closed;
}
