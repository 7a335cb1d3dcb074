import { once } from "node:events";
import type { Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { type BrokerRelayOptions, createBrokerRelay } from "../../../../src/choria/relay/relay.js";
import { createUpstream, type UpstreamTls } from "../../../../src/choria/relay/upstream.js";
import { streamPair } from "../../../support/stream-pair.js";

const LOGIN = { user: "joe", password: Buffer.from("secret") };
const INFO = 'INFO {"server_id":"N","headers":true,"tls_required":true,"max_payload":99}\r\n';
const CONNECT = 'CONNECT {"user":"joe","pass":"secret","name":"n"}\r\n';

/** TLS that passes everything as it is: what it needs of the broker is a connection on which INFO was read. */
const plainTls: UpstreamTls = {
  connect: (peer, { signal }) => peer.open(signal),
  async prewarm(peer, { signal }) {
    (await peer.open(signal)).destroy();
  },
};

/** What a stream has said, once all of it that is looked for is there. */
function reader(stream: Duplex) {
  let text = "";
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  return {
    text: () => text,
    async until(part: string): Promise<string> {
      while (!text.includes(part)) await once(stream, "data");
      return text;
    },
  };
}

/** A relay with one broker in memory; `brokers` gets the far end of each connection to it. */
function scene(options: Partial<BrokerRelayOptions> = {}) {
  const dials: string[] = [];
  const brokers: Duplex[] = [];
  const events: string[] = [];
  let came: (far: Duplex) => void = () => {};
  const relay = createBrokerRelay({
    login: LOGIN,
    brokers: [{ host: "broker.example.net", port: 4222 }],
    tls: plainTls,
    async dial(host, port) {
      dials.push(`${host}:${port}`);
      const [near, far] = streamPair();
      far.write(INFO);
      brokers.push(far);
      came(far);
      return near;
    },
    ...options,
  });
  relay.events.on("upstream", ({ broker, state, cause }) => events.push(`${broker} ${state}${cause === null ? "" : `: ${cause.message}`}`));
  relay.events.on("refused", ({ why }) => events.push(`refused: ${why}`));
  relay.events.on("fault", ({ error }) => events.push(`fault: ${error.message}`));
  const client = () => {
    const [near, far] = streamPair();
    relay.serve(far);
    return { stream: near, ...reader(near) };
  };
  const nextBroker = () =>
    new Promise<Duplex>((resolve) => {
      came = resolve;
    });
  return { relay, dials, brokers, events, client, nextBroker };
}

describe("the broker relay", () => {
  it.each([1, 5, 1000])("carries a client that writes %i bytes at a time, without its login", async (size) => {
    const { relay, client, nextBroker, events } = scene();
    const one = client();
    await one.until("INFO");
    const connected = nextBroker();
    const bytes = Buffer.from(`${CONNECT}PING\r\nPUB a 5\r\n\r\n-\r\n\r\n`);
    for (let at = 0; at < bytes.length; at += size) one.stream.write(bytes.subarray(at, at + size));
    const broker = await connected;
    const seen = reader(broker);
    expect(await seen.until("-\r\n\r\n")).toBe('CONNECT {"name":"n"}\r\nPING\r\nPUB a 5\r\n\r\n-\r\n\r\n');
    broker.write('PONG\r\nINFO {"tls_required":true,"connect_urls":["a"]}\r\n');
    const told = await one.until('["a"]}\r\n');
    expect(told.endsWith('PONG\r\nINFO {"tls_required":true,"connect_urls":["a"]}\r\n')).toBe(true);
    expect(events).toEqual(["broker.example.net:4222 up"]);
    await relay.close();
    expect(one.stream.destroyed || (await once(one.stream, "close"))).toBeTruthy();
  });

  it("says the broker's own INFO once it has seen it", async () => {
    const { relay, client, dials } = scene();
    expect(await client().until("\r\n")).toContain('"server_name":"tokenfwd"');
    await relay.prewarm({ signal: new AbortController().signal });
    expect(dials).toHaveLength(1);
    expect(await client().until("\r\n")).toBe('INFO {"server_id":"N","headers":true,"max_payload":99}\r\n');
    await relay.close();
  });

  it.each([
    ["no login", "CONNECT {}\r\n", "Authorization Violation", "a client without the login"],
    ["a wrong one", 'CONNECT {"user":"joe","pass":"wrong"}\r\n', "Authorization Violation", "a client with a wrong login"],
    ["a request of HTTP", "GET / HTTP/1.1\r\n", "Unknown Protocol Operation", "a client that speaks no NATS: not an CONNECT line"],
    ["a line without an end", "x".repeat(16 * 1024 + 1), "Maximum Control Line Exceeded", "a client whose first line has no end"],
  ])("dials nobody for a client with %s", async (_what, line, answer, why) => {
    const { relay, client, dials, events } = scene();
    const one = client();
    one.stream.write(line);
    const closed = once(one.stream, "close");
    expect(await one.until("-ERR")).toContain(`-ERR '${answer}'\r\n`);
    one.stream.end();
    await closed;
    expect({ dials, events }).toEqual({ dials: [], events: [`refused: ${why}`] });
    await relay.close();
  });

  it("waits for the login only so long", async () => {
    const { relay, client, dials, events } = scene({ connectTimeoutMs: 20 });
    expect(await client().until("-ERR")).toContain("Authentication Timeout");
    expect({ dials, events }).toEqual({ dials: [], events: ["refused: a client that did not log in in time"] });
    await relay.close();
  });

  it("keeps nobody out who has the login, however many connect without one", async () => {
    const { relay, client, nextBroker, events } = scene({ maxStrangers: 2 });
    const strangers = [client(), client(), client()];
    expect(await strangers[0]?.until("-ERR")).toContain("Maximum Connections Exceeded");
    const [one, dialled] = [client(), nextBroker()];
    one.stream.write(CONNECT);
    (await dialled).write("PONG\r\n");
    expect(await one.until("PONG")).not.toContain("-ERR");
    expect(events.filter((event) => event.startsWith("refused"))).toEqual(
      Array(2).fill("refused: one of more than 2 clients without the login"),
    );
    await relay.close();
  });

  it("goes to the next broker, says why the first failed, and stays with the one that answered", async () => {
    let isDown = true;
    const { relay, client, events, dials } = scene({
      brokers: [
        { host: "one", port: 1 },
        { host: "two", port: 2 },
      ],
      async dial(host) {
        dials.push(host);
        if (host === "one" && isDown) throw new Error("one:1 cannot be reached: nobody listens there");
        const [near, far] = streamPair();
        far.write(INFO);
        far.on("data", () => far.write("PONG\r\n"));
        return near;
      },
    });
    for (const _ of [1, 2]) {
      const one = client();
      one.stream.write(CONNECT);
      await one.until("PONG");
      one.stream.end();
      isDown = false;
    }
    expect(dials).toEqual(["one", "two", "two"]);
    expect(events).toEqual(["one:1 down: the broker one:1 cannot be reached: nobody listens there", "two:2 up"]);
    await relay.close();
  });

  it("passes over a broker that answered nothing as long as a client had patience", async () => {
    let nowMs = 0;
    const dialled: string[] = [];
    const changes: string[] = [];
    const upstream = createUpstream({
      brokers: [
        { host: "hole", port: 1 },
        { host: "two", port: 2 },
      ],
      tls: plainTls,
      now: () => nowMs,
      changed: (broker, state) => changes.push(`${broker} ${state}`),
      fault: () => undefined,
      dial(host, _port, signal) {
        dialled.push(host);
        const [near, far] = streamPair();
        far.write(INFO);
        if (host === "two") return Promise.resolve(near);
        return new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
      },
    });
    const patience = new AbortController();
    const waiting = upstream.connect(patience.signal);
    nowMs = 2_000;
    patience.abort(new Error("gone"));
    await expect(waiting).rejects.toThrow("gone");
    const never = new AbortController().signal;
    (await upstream.connect(never)).destroy();
    // Long after, the one that answered last is still the first that is asked.
    nowMs = 60_000;
    (await upstream.connect(never)).destroy();
    expect({ dialled, changes }).toEqual({ dialled: ["hole", "two", "two"], changes: ["hole:1 down", "two:2 up"] });
  });

  it("tells the client why there is no broker", async () => {
    const { relay, client } = scene({ dial: () => Promise.reject(new Error("b:1 cannot be reached: it hung up")) });
    const one = client();
    one.stream.write(CONNECT);
    expect(await one.until("-ERR")).toContain("-ERR 'the broker b:1 cannot be reached: it hung up'");
    await relay.close();
  });

  it.each([
    ["is no NATS server", "SSH-2.0-x\r\n", "not an INFO line"],
    ["would go on without TLS", 'INFO {"server_id":"N"}\r\n', "it speaks NATS without TLS, and is given nothing"],
  ])("passes nothing on to a broker that %s", async (_what, line, why) => {
    const got: Buffer[] = [];
    const { relay } = scene({
      async dial() {
        const [near, far] = streamPair();
        far.on("data", (chunk: Buffer) => got.push(chunk));
        far.write(line);
        return near;
      },
    });
    await expect(relay.prewarm({ signal: new AbortController().signal })).rejects.toMatchObject({
      code: "E_CHORIA_BROKER",
      message: `no broker answers at broker.example.net:4222: ${why}`,
    });
    expect(got).toEqual([]);
    await relay.close();
  });

  it("lets the error of a dial through as it is, and does not try the next broker for a fault of the token", async () => {
    const forbidden = new TokenfwdError("E_FORWARD_REFUSED", "the bastion's sshd forbids it");
    const one = scene({ dial: () => Promise.reject(forbidden) });
    await expect(one.relay.prewarm({ signal: new AbortController().signal })).rejects.toBe(forbidden);
    await one.relay.close();

    const refused = new TokenfwdError("E_REFUSED", "the token said no");
    const tls = { connect: () => Promise.reject(refused), prewarm: () => Promise.reject(refused) };
    const other = scene({
      tls,
      brokers: [
        { host: "one", port: 1 },
        { host: "two", port: 2 },
      ],
    });
    await expect(other.relay.prewarm({ signal: new AbortController().signal })).rejects.toBe(refused);
    expect(other.events).toEqual(["fault: the token said no"]);
    await other.relay.close();
  });

  it("holds up a broker whose client does not read, and a client whose broker does not", async () => {
    const { relay, client, nextBroker } = scene();
    const one = client();
    await one.until("INFO");
    const connected = nextBroker();
    one.stream.write(CONNECT);
    const broker = await connected;
    await reader(broker).until("CONNECT");
    for (const [writer, other] of [
      [broker, one.stream],
      [one.stream, broker],
    ] as const) {
      other.removeAllListeners("data");
      other.pause();
      const chunk = Buffer.alloc(16 * 1024, "x");
      let written = 0;
      while (writer.write(chunk)) written += chunk.length;
      // What four streams of 16 KiB keep, and no more.
      expect(written).toBeLessThan(512 * 1024);
      other.resume();
      if (writer.writableNeedDrain) await once(writer, "drain");
    }
    await relay.close();
  });

  it("ends one side when the other ends or breaks, and counts nobody any more", async () => {
    const { relay, client, nextBroker } = scene();
    for (const end of ["client ends", "client breaks", "broker ends", "broker breaks"]) {
      const one = client();
      const connected = nextBroker();
      one.stream.write(CONNECT);
      const broker = await connected;
      await reader(broker).until("CONNECT");
      const [first, second] = end.startsWith("client") ? [one.stream, broker] : [broker, one.stream];
      second.once("end", () => second.end());
      const closed = once(second, "close");
      if (end.endsWith("ends")) first.end();
      else first.destroy();
      await closed;
    }
    await relay.close();
    expect(relay.clients).toBe(0);
  });

  it("stops waiting for a broker when the client has gone", async () => {
    let aborted: () => void = () => {};
    const stopped = new Promise<void>((resolve) => {
      aborted = resolve;
    });
    const { relay, client } = scene({
      dial: (_host, _port, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            aborted();
            reject(signal.reason);
          });
        }),
    });
    const one = client();
    one.stream.write(`${CONNECT}PING\r\n`);
    await one.until("INFO");
    one.stream.end();
    await stopped;
    await relay.close();
    expect(relay.clients).toBe(0);
  });
});
