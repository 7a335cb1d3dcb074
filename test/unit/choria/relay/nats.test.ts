import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { LineError, readLine } from "../../../../src/choria/relay/line.js";
import { errorLine, infoForClient, loginCheck, NatsError, parseConnect, parseInfo } from "../../../../src/choria/relay/nats.js";
import { streamPair } from "../../../support/stream-pair.js";

const NEVER = new AbortController().signal;
const limits = { maxBytes: 100, timeoutMs: 10_000, signal: NEVER };

describe("readLine", () => {
  it.each([1, 2, 3, 7, 1000])("takes one line that comes in pieces of %i bytes, and leaves what follows", async (size) => {
    const [near, far] = streamPair();
    const bytes = Buffer.from("CONNECT {}\r\nPING\r\nrest");
    for (let at = 0; at < bytes.length; at += size) far.write(bytes.subarray(at, at + size));
    far.end();
    expect(String(await readLine(near, limits))).toBe("CONNECT {}");
    expect(String(await readLine(near, limits))).toBe("PING");
    await expect(readLine(near, limits)).rejects.toMatchObject({ failure: "ended" });
  });

  it("takes a line that ends with LF alone, and one that is empty", async () => {
    const [near, far] = streamPair();
    far.write("one\n\r\n");
    expect(String(await readLine(near, limits))).toBe("one");
    expect(String(await readLine(near, limits))).toBe("");
  });

  it("leaves the rest to whoever reads next", async () => {
    const [near, far] = streamPair();
    far.end("line\r\npayload\r\nmore");
    await readLine(near, limits);
    const rest: Buffer[] = [];
    for await (const chunk of near) rest.push(chunk as Buffer);
    expect(String(Buffer.concat(rest))).toBe("payload\r\nmore");
  });

  it("reads exactly as much as it may, and not one byte more", async () => {
    for (const [length, fits] of [
      [100, true],
      [101, false],
    ] as const) {
      const [near, far] = streamPair();
      far.write(`${"x".repeat(length)}\n`);
      const line = readLine(near, limits);
      if (fits) expect(await line).toHaveLength(length);
      else await expect(line).rejects.toMatchObject({ failure: "too-long" });
    }
  });

  it("gives up on a line without an end, one that is late, one that was taken back, and a stream that broke", async () => {
    const [one, other] = streamPair();
    other.write("x".repeat(101));
    await expect(readLine(one, limits)).rejects.toMatchObject({ failure: "too-long" });
    const [quiet] = streamPair();
    await expect(readLine(quiet, { ...limits, timeoutMs: 5 })).rejects.toMatchObject({ failure: "late" });
    const stop = new AbortController();
    const waiting = readLine(streamPair()[0], { ...limits, signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    const [near, far] = streamPair();
    const broken = readLine(near, limits);
    far.destroy();
    await expect(broken).rejects.toBeInstanceOf(LineError);
  });

  it("leaves no listener behind", async () => {
    const [near, far] = streamPair();
    const before = near.eventNames().map((name) => [name, near.listenerCount(name)]);
    far.write("line\r\n");
    await readLine(near, limits);
    await sleep(1);
    expect(near.eventNames().map((name) => [name, near.listenerCount(name)])).toEqual(before);
  });
});

/** As choria's broker sent it (choria-run.md, section 4), in a cluster and with a nonce. */
const SEEN = {
  server_id: "NANDZ",
  server_name: "localhost",
  version: "2.14.2",
  proto: 1,
  headers: true,
  tls_required: true,
  tls_verify: true,
  tls_available: true,
  max_payload: 1048576,
  client_id: 7,
  client_ip: "192.0.2.1",
  nonce: "abc",
  cluster: "CHORIA",
  connect_urls: ["192.0.2.7:4222"],
  ws_connect_urls: ["192.0.2.7:4223"],
  xkey: "X",
};

describe("INFO", () => {
  it("reaches a client without TLS, other addresses and what is of another connection, and else as it was", () => {
    const line = infoForClient(parseInfo(Buffer.from(`INFO ${JSON.stringify(SEEN)} `)));
    expect(String(line)).toBe(
      'INFO {"server_id":"NANDZ","server_name":"localhost","version":"2.14.2","proto":1,"headers":true,"max_payload":1048576,"cluster":"CHORIA","xkey":"X"}\r\n',
    );
  });

  it("is one of the relay's own as long as no broker was seen", () => {
    expect(parseInfo(infoForClient(null).subarray(0, -2))).toMatchObject({
      server_name: "tokenfwd",
      headers: true,
      max_payload: 1_048_576,
    });
  });

  it.each(["", "INFO", "INFO ", "INFO []", "INFO null", "INFO {", "PING", "HTTP/1.1 400 Bad Request", "-ERR 'no'"])(
    "is not taken from a line that is none: %j",
    (line) => expect(() => parseInfo(Buffer.from(line))).toThrow(NatsError),
  );

  it("is not taken where it could be read and never be passed on", () => {
    const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
    expect(() => parseInfo(Buffer.from(`INFO {"tls_required":true,"x":${deep}}`))).toThrow(NatsError);
    expect(() => parseConnect(Buffer.from(`CONNECT {"x":${deep}}`))).toThrow(NatsError);
  });
});

describe("CONNECT", () => {
  it("goes on without the login, and with all else in its order", () => {
    const connect = parseConnect(
      Buffer.from('CONNECT {"verbose":false,"user":"joe","pass":"secret","name":"choria=ptittle-publisher","no_responders":true}'),
    );
    expect({ ...connect, line: String(connect.line) }).toEqual({
      user: "joe",
      password: "secret",
      line: 'CONNECT {"verbose":false,"name":"choria=ptittle-publisher","no_responders":true}\r\n',
    });
  });

  it("may be written in small letters, as NATS has it", () => {
    expect(parseConnect(Buffer.from("connect {}"))).toMatchObject({ user: "", password: "" });
  });

  it.each(["", "PING", "CONNECT", "CONNECT {", "CONNECT []", 'CONNECT {"user":1}', 'CONNECT {"pass":{}}', "GET / HTTP/1.1"])(
    "is not taken from a line that is none: %j",
    (line) => expect(() => parseConnect(Buffer.from(line))).toThrow(NatsError),
  );
});

describe("the login", () => {
  const isLogin = loginCheck({ user: "relay-1", password: Buffer.from("secret") });

  it("is right with both of its halves", () => {
    expect(isLogin({ user: "relay-1", password: "secret" })).toBe(true);
  });

  it.each([
    ["relay-1", ""],
    ["", "secret"],
    ["", ""],
    ["relay-1", "secret "],
    ["relay-1", "Secret"],
    ["relay-2", "secret"],
    ["secret", "relay-1"],
  ])("is wrong as %j with %j", (user, password) => expect(isLogin({ user, password })).toBe(false));
});

describe("an error line", () => {
  it("has no quote that would end it", () => {
    expect(String(errorLine("it's over"))).toBe("-ERR 'it`s over'\r\n");
  });
});
