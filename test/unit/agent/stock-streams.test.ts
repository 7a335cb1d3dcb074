/* Streams joined to a socket: every byte as it came, both ends' endings, and a limit. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createStockStreams } from "../../../src/agent/stock-streams.js";
import { encodeFrame } from "../../../src/wire/p11kit/frame.js";

let dir = "";
let path = "";
let server: Server;
let serve: (socket: Socket) => void = () => {};
const sockets: Socket[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-streams-"));
  path = join(dir, "s");
  server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(dir, { recursive: true, force: true });
});

/** A program's end and ours of one connection, as an SSH channel would be in the place of the second. */
async function socketPair(): Promise<readonly [Socket, Socket]> {
  const place = join(dir, `pair-${pairs++}`);
  const accepted = new Promise<Socket>((resolve) => {
    const listening = createServer({ allowHalfOpen: true }, (socket) => {
      listening.close();
      resolve(socket);
    });
    listening.listen(place);
  });
  const near = connect({ path: place, allowHalfOpen: true });
  const far = await accepted;
  sockets.push(near, far);
  near.on("error", () => {});
  return [near, far];
}
let pairs = 0;

/** Everything that comes until the end; the stream stays open the other way. */
function all(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return new Promise((resolve) => stream.once("end", () => resolve(Buffer.concat(chunks))));
}
/** To be called before it can have happened: a socket says `closed` of itself long before it tells. */
const closing = (stream: Duplex) => new Promise<void>((resolve) => stream.once("close", () => resolve()));

describe("a joined stream", () => {
  it("carries a million bytes each way as they are, and the client's end to the server before its answer", async () => {
    const there = Buffer.concat([Buffer.from([2]), encodeFrame(1, Buffer.from("nonce"), randomBytes(1_000_000))]);
    const back = randomBytes(1_000_000);
    const heard = new Promise<Buffer>((resolve) => {
      serve = (socket) => {
        void all(socket).then((bytes) => {
          resolve(bytes);
          socket.end(back);
        });
      };
    });
    const [near, far] = await socketPair();
    const seen: string[] = [];
    createStockStreams({ path })
      .attach(far)
      .onFirstFrameOptions((options) => seen.push(options.toString()));
    const answer = all(near);
    const ended = closing(far);
    near.end(there);
    expect((await heard).equals(there)).toBe(true);
    expect((await answer).equals(back)).toBe(true);
    expect(seen).toEqual(["nonce"]);
    await ended;
  });

  it("ends when the server ends, with what it said last", async () => {
    serve = (socket) => socket.end("bye");
    const [near, far] = await socketPair();
    const ended = closing(far);
    createStockStreams({ path }).attach(far);
    expect((await all(near)).toString()).toBe("bye");
    near.end();
    await ended;
  });

  it("takes the server's side down when it goes, and goes when there is no server", async () => {
    const gone = new Promise<void>((resolve) => {
      serve = (socket) =>
        socket
          .resume()
          .once("close", () => resolve())
          .once("end", () => socket.end());
    });
    const [near, far] = await socketPair();
    createStockStreams({ path }).attach(far);
    near.write(Buffer.from([2]));
    far.destroy();
    await gone;

    const [other, lost] = await socketPair();
    other.on("error", () => {});
    const ended = closing(lost);
    createStockStreams({ path: join(dir, "nothing") }).attach(lost);
    await ended;
  });

  it("is one of so many, and makes room for the next when it has gone", async () => {
    serve = (socket) => socket.resume();
    const streams = createStockStreams({ path, maxStreams: 2 });
    const made = await Promise.all(Array.from({ length: 4 }, () => socketPair()));
    const far = made.map(([, one]) => one);
    const attach = (index: number) => streams.attach(far[index] as Duplex);
    attach(0);
    attach(1);
    expect(() => attach(2)).toThrow("too many clients");
    const first = closing(far[0] as Duplex);
    far[0]?.destroy();
    await first;
    attach(3);
    const others = [far[1], far[3]].map((one) => closing(one as Duplex));
    streams.close();
    await Promise.all(others);
  });
});
