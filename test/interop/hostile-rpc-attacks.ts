/*
 * What a hostile or broken client of tokenfwd RPC does to an agent, one function each, built by hand from the protocol's page
 * and not from src/. As with p11-kit RPC (hostile-attacks.ts) an attack ends its own connection and answers how it was taken.
 */
import { connect } from "node:net";
import type { Attack, Reaction } from "./hostile-attacks.js";

const MAGIC = Buffer.from("f4746f6b66776401", "hex");

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

type Value = number | string | boolean | null | Buffer | readonly Value[] | { readonly [key: string]: Value };

/** A value in msgpack, in the widest formats, which are as good as any. */
function pack(value: Value): Buffer {
  if (value === null) return Buffer.from([0xc0]);
  if (typeof value === "boolean") return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === "number") return Buffer.concat([Buffer.from([0xce]), u32(value)]);
  if (typeof value === "string") return Buffer.concat([Buffer.from([0xdb]), u32(Buffer.byteLength(value)), Buffer.from(value)]);
  if (Buffer.isBuffer(value)) return Buffer.concat([Buffer.from([0xc6]), u32(value.length), value]);
  if (Array.isArray(value)) return Buffer.concat([Buffer.from([0xdd]), u32(value.length), ...value.map(pack)]);
  const entries = Object.entries(value as { readonly [key: string]: Value });
  return Buffer.concat([Buffer.from([0xdf]), u32(entries.length), ...entries.flatMap(([key, each]) => [pack(key), pack(each)])]);
}

const frame = (body: Buffer): Buffer => Buffer.concat([u32(body.length), body]);
const message = (value: Value): Buffer => frame(pack(value));
const HELLO = message({ type: "hello", id: 1, versions: [1] });
const SIGN = { type: "sign", id: 2, key: { uri: "pkcs11:id=%01" }, data: Buffer.from("x") };

/** A request that no agent knows, to end an attack with that the connection is to live through: its answer says so. */
const STILL_THERE = message({ type: "still-there", id: 99 });
const ALIVE = "unknown-request";

/** Sends bytes, and waits until the agent closes, or has answered STILL_THERE. */
function play(path: string, bytes: Buffer): Promise<Reaction> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    let tail = "";
    let reaction: Reaction = "closed";
    socket.on("error", () => undefined);
    socket.once("connect", () => void socket.write(bytes));
    socket.on("data", (chunk) => {
      const seen = tail + chunk.toString("latin1");
      tail = seen.slice(-ALIVE.length);
      if (!seen.includes(ALIVE)) return;
      reaction = "works";
      socket.destroy();
    });
    socket.once("close", () => resolve(reaction));
    socket.setTimeout(20_000, () => {
      socket.destroy();
      reject(new Error("neither closed nor answered"));
    });
  });
}

/** Sends bytes and goes at once, having read nothing. */
function hitAndRun(path: string, bytes: Buffer): Promise<Reaction> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.pause();
    socket.on("error", () => undefined);
    socket.once("connect", () => socket.write(bytes, () => socket.destroy()));
    socket.once("close", () => resolve("closed"));
  });
}

const closes = (name: string, says: string | null, ...bytes: readonly Buffer[]): Attack => ({
  name: `tokenfwd RPC: ${name}`,
  expected: ["closed"],
  ...(says === null ? {} : { says }),
  play: (path) => play(path, Buffer.concat([MAGIC, ...bytes])),
});
const lives = (name: string, ...bytes: readonly Buffer[]): Attack => ({
  name: `tokenfwd RPC: ${name}`,
  expected: ["works"],
  play: (path) => play(path, Buffer.concat([MAGIC, HELLO, ...bytes, STILL_THERE])),
});

/** Arrays in one another, the innermost empty. */
const nested = (depth: number): Buffer => Buffer.concat([Buffer.alloc(depth, 0x91), Buffer.from([0x90])]);
const field = (name: string, value: Buffer): Buffer => frame(Buffer.concat([Buffer.from([0x81]), pack(name), value]));

export const RPC_ATTACKS: readonly Attack[] = [
  {
    name: "tokenfwd RPC: a magic that goes wrong",
    expected: ["closed"],
    says: "no magic of tokenfwd RPC",
    play: (path) => play(path, Buffer.concat([MAGIC.subarray(0, 5), Buffer.alloc(4096, 0x41)])),
  },
  closes("a body of nothing", null, u32(0)),
  closes("a body of 4 GiB", null, u32(0xffffffff)),
  closes("noise in a frame", null, frame(Buffer.alloc(512, 0xc1))),
  closes("a request before hello", "the first message is no hello", message({ type: "status", id: 1 })),
  closes("a second hello", "a second hello", HELLO, message({ type: "hello", id: 2, versions: [1] })),
  closes("no version in common", "no version in common", message({ type: "hello", id: 1, versions: [7] })),
  closes("a list of 2^32 values", null, field("type", Buffer.concat([Buffer.from([0xdd]), u32(0xffffffff)]))),
  closes("100,000 levels", null, field("type", nested(100_000))),
  closes("an extension type", null, field("type", Buffer.from([0xd4, 0x00, 0x00]))),
  closes(
    "a key that stands twice",
    null,
    frame(Buffer.concat([Buffer.from([0x82]), pack("type"), pack("hello"), pack("type"), pack("ping")])),
  ),
  closes("a URI with a PIN", "sign.key.uri carries query attributes", HELLO, message({ ...SIGN, key: { uri: "pkcs11:?pin-value=1" } })),
  lives("fields named as what every object has", message({ type: "ping", id: 5, constructor: 1, toString: "x", hasOwnProperty: null })),
  lives("a call that is none", message({ type: "call", id: 5, call: "__proto__", args: {} })),
  lives(
    "a hundred requests at once, more than may be",
    ...Array.from({ length: 100 }, (_, id) => message({ ...SIGN, id: 1000 + id, key: { uri: "pkcs11:token=none" } })),
  ),
  lives("taking back what was never asked", ...Array.from({ length: 50 }, (_, id) => message({ type: "cancel", id }))),
  lives(
    "a thousand words to be told of",
    message({ type: "subscribe", id: 5, events: Array.from({ length: 1000 }, (_, at) => `event-${at}`) }),
  ),
  {
    name: "tokenfwd RPC: asking for everything and going at once",
    expected: ["closed"],
    play: (path) => {
      const snapshot = message({ type: "hello", id: 1, versions: [1], snapshot: true });
      return hitAndRun(path, Buffer.concat([MAGIC, snapshot, ...Array.from({ length: 20 }, (_, id) => message({ ...SIGN, id: 10 + id }))]));
    },
  },
  {
    name: "tokenfwd RPC: half a frame and the end",
    expected: ["closed"],
    play: (path) => hitAndRun(path, Buffer.concat([MAGIC, HELLO.subarray(0, 9)])),
  },
];
