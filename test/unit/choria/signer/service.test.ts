/* The remote signer over real HTTP on loopback: what strangers get, what the right client gets, and for how long. */
import { createPrivateKey, sign } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { formatSecureRequest } from "../../../../src/choria/documents/secure-request.js";
import { hostPort, type Loopback, listenLoopback } from "../../../../src/choria/loopback.js";
import { createSecrets, publicKeyOf } from "../../../../src/choria/signer/secrets.js";
import { createSignerService, type ServiceLimits, type SignerService } from "../../../../src/choria/signer/service.js";
import { streamPair } from "../../../support/stream-pair.js";

const SECRETS = createSecrets();
const KEY = createPrivateKey({
  key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), Buffer.from(SECRETS.seed.toString(), "hex")]),
  format: "der",
  type: "pkcs8",
});
const FILTER = { fact: [], cf_class: [], agent: [], identity: [], compound: [] };
const ENVELOPE = { requestid: "a".repeat(32), senderid: "b", callerid: "choria=ptittle", collective: "mcollective", agent: "rpcutil" };
const REQUEST = Buffer.from(
  JSON.stringify({
    protocol: "choria:request:1",
    message: '{"agent":"rpcutil","action":"ping","data":{}}',
    envelope: { ...ENVELOPE, ttl: 60, time: 1, filter: FILTER },
  }),
);
const SECURE = Buffer.from(
  formatSecureRequest({ message: REQUEST.toString(), signature: Buffer.alloc(256, 1), pubcert: "-----BEGIN CERTIFICATE-----\nx\n" }),
);

interface Body {
  readonly token?: unknown;
  readonly request?: unknown;
  readonly signature?: unknown;
}
const BODY: Body = {
  token: SECRETS.token.toString(),
  request: REQUEST.toString("base64"),
  signature: sign(null, REQUEST, KEY).toString("hex"),
};
/** Everything that came until the other end closed. */
async function all(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => {
    text += String(chunk);
  });
  socket.on("error", () => undefined);
  if (!socket.closed) await once(socket, "close");
  return text;
}

describe("createSignerService", () => {
  let service: SignerService;
  let loopback: Loopback;
  let asked: Buffer[];
  let signing: (signal: AbortSignal) => Promise<Buffer>;
  let strangers: string[];

  async function start(limits: Partial<ServiceLimits> = {}): Promise<void> {
    asked = [];
    strangers = [];
    signing = async () => SECURE;
    const requestSigner = {
      sign(request: Buffer, { signal }: { signal: AbortSignal }) {
        asked.push(request);
        return signing(signal);
      },
    };
    service = createSignerService({ requestSigner, token: SECRETS.token, publicKey: publicKeyOf(SECRETS), limits });
    service.events.on("stranger", ({ reason }) => strangers.push(reason));
    loopback = await listenLoopback({ host: "127.0.0.1", port: 0 }, service.serve);
    service.hosts = [hostPort(loopback)];
  }
  beforeEach(() => start());
  afterEach(async () => {
    await service.close();
    await loopback.close();
  });

  const open = (): Socket => connect(loopback.port, loopback.host);

  /** Sends a request as Go writes it, with other headers and another body where the test wants them. */
  async function post(given: { body?: Body | string; start?: string; headers?: Readonly<Record<string, string | null>> } = {}) {
    const socket = open();
    const text = typeof given.body === "string" ? given.body : JSON.stringify(given.body ?? BODY);
    const headers = {
      Host: hostPort(loopback),
      "User-Agent": "Go-http-client/1.1",
      "Content-Length": String(Buffer.byteLength(text)),
      "Content-Type": "application/json",
      "Accept-Encoding": "gzip",
      ...given.headers,
    };
    const lines = Object.entries(headers).flatMap(([name, value]) => (value === null ? [] : [`${name}: ${value}`]));
    socket.write(`${[given.start ?? "POST /choria/v1/sign HTTP/1.1", ...lines].join("\r\n")}\r\n\r\n${text}`);
    const [head = "", body = ""] = (await all(socket)).split("\r\n\r\n");
    return { status: head.split("\r\n")[0], head, body };
  }
  const json = (text: string): { error?: string; secure_request?: string } => JSON.parse(text) as never;

  it("answers a client that has token and seed with the signed request, and closes", async () => {
    const said: string[] = [];
    service.events.on("signed", ({ what }) => said.push(what));
    const { status, head, body } = await post();
    expect(status).toBe("HTTP/1.1 200 OK");
    expect(head.toLowerCase()).toContain("connection: close");
    expect(json(body)).toEqual({ secure_request: SECURE.toString("base64"), error: "" });
    expect(asked.map(String)).toEqual([REQUEST.toString()]);
    expect(said).toEqual(["rpcutil#ping in mcollective, filter: none, by choria=ptittle"]);
  });

  it("tells such a client every reason, as the error of a 200", async () => {
    const told: unknown[] = [];
    service.events.on("refused", (refused) => told.push(refused));
    signing = async () => {
      throw new TokenfwdError("E_CHORIA_REQUEST", "not signed: it is \u001b[2Jold", { hint: "make it anew" });
    };
    const { status, body } = await post();
    expect(status).toBe("HTTP/1.1 200 OK");
    expect(json(body)).toEqual({ error: "not signed: it is \\x1b[2Jold (make it anew)" });
    expect(told).toEqual([{ code: "E_CHORIA_REQUEST", message: "not signed: it is \\x1b[2Jold" }]);
    signing = async () => {
      throw new Error("a bug");
    };
    expect(json((await post()).body).error).toMatch(/^internal error: a bug/);
  });

  const BAD: readonly (readonly [string, Parameters<typeof post>[0], string])[] = [
    ["a GET", { start: "GET /choria/v1/sign HTTP/1.1" }, "not a POST"],
    ["an OPTIONS of a browser", { start: "OPTIONS /choria/v1/sign HTTP/1.1" }, "not a POST"],
    ["another path", { start: "POST / HTTP/1.1" }, "another path"],
    ["a URL of another host in the first line", { start: "POST http://127.0.0.1/choria/v1/sign HTTP/1.1" }, "another path"],
    ["another Host", { headers: { Host: "attacker.example" } }, "another Host"],
    ["the Host without its port", { headers: { Host: "127.0.0.1" } }, "another Host"],
    ["localhost in place of the address", { headers: { Host: "localhost:1" } }, "another Host"],
    ["an Origin, whatever it says", { headers: { Origin: "null" } }, "it came from a browser"],
    ["an empty Origin", { headers: { Origin: "" } }, "it came from a browser"],
    ["Sec-Fetch-Site", { headers: { "Sec-Fetch-Site": "none" } }, "it came from a browser"],
    ["Sec-Fetch-Mode in other letters", { headers: { "sEC-fETCH-mODE": "no-cors" } }, "it came from a browser"],
    ["what a form can send", { headers: { "Content-Type": "text/plain" } }, "not application/json"],
    ["no Content-Type", { headers: { "Content-Type": null } }, "not application/json"],
    ["a compressed body", { headers: { "Content-Encoding": "gzip" } }, "an encoding"],
    ["a length over the limit", { headers: { "Content-Length": "262145" } }, "a body over the limit"],
    ["no JSON", { body: "junk" }, "not a signing request: syntax"],
    ["a list", { body: "[]" }, "not a signing request: type"],
    ["the token twice", { body: '{"token":"a","token":"b","request":"","signature":""}' }, "not a signing request: duplicate-key"],
    ["no request", { body: { ...BODY, request: undefined } }, "not a signing request: missing-key"],
    ["a token that is no string", { body: { ...BODY, token: 1 } }, "not a signing request: type"],
    ["a request that is no base64", { body: { ...BODY, request: "%%%" } }, "not a signing request: base64"],
  ];
  it.each(BAD)("answers %s with a bare 400", async (_name, given, reason) => {
    const { status, head, body } = await post(given);
    expect({ status, body }).toEqual({ status: "HTTP/1.1 400 Bad Request", body: "" });
    expect(head).toMatch(/content-length: 0/i);
    expect(strangers).toEqual([reason]);
    expect(asked).toEqual([]);
  });

  const otherKey = createSecrets();
  it.each([
    ["another token", { ...BODY, token: createSecrets().token.toString() }, "another token"],
    ["a part of the token", { ...BODY, token: SECRETS.token.toString().slice(0, -1) }, "another token"],
    ["no token", { ...BODY, token: "" }, "another token"],
    ["no signature", { ...BODY, signature: "" }, "no signature"],
    ["a signature in capitals", { ...BODY, signature: String(BODY.signature).toUpperCase() }, "no signature"],
    ["the signature of another request", { ...BODY, signature: sign(null, Buffer.from("x"), KEY).toString("hex") }, "another seed"],
    ["the seed itself", { ...BODY, signature: otherKey.seed.toString().repeat(2) }, "another seed"],
  ] as const)("answers who has %s with a bare 401", async (_name, body, reason) => {
    const answer = await post({ body });
    expect({ status: answer.status, body: answer.body }).toEqual({ status: "HTTP/1.1 401 Unauthorized", body: "" });
    expect(strangers).toEqual([reason]);
    expect(asked).toEqual([]);
  });

  it("never redirects, whatever is asked", async () => {
    for (const start of [
      "POST /choria/v1/sign/ HTTP/1.1",
      "POST //choria/v1/sign HTTP/1.1",
      "HEAD / HTTP/1.1",
      "PUT /choria/v1/sign HTTP/1.1",
    ]) {
      const { head } = await post({ start });
      expect(head, start).toMatch(/^HTTP\/1.1 400 /);
      expect(head, start).not.toMatch(/location/i);
    }
  });

  it.each([
    ["two Hosts", "POST /choria/v1/sign HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\nContent-Type: application/json\r\n\r\n"],
    ["no Host", "POST /choria/v1/sign HTTP/1.1\r\nContent-Type: application/json\r\n\r\n"],
    ["HTTP/1.0 without a Host", "POST /choria/v1/sign HTTP/1.0\r\nContent-Type: application/json\r\n\r\n"],
    ["both lengths", "POST /choria/v1/sign HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["headers without end", `POST /choria/v1/sign HTTP/1.1\r\nHost: HOST\r\nX: ${"x".repeat(20_000)}`],
    ["what is not HTTP", "\u0016\u0003\u0001\r\n\r\n"],
    ["NATS", 'CONNECT {"verbose":false}\r\n\r\n'],
  ])("turns away %s", async (_name, text) => {
    const socket = open();
    socket.write(text.replaceAll("HOST", hostPort(loopback)));
    expect(await all(socket)).toMatch(/^(HTTP\/1.1 400 Bad Request\r\n|$)/);
    expect(asked).toEqual([]);
  });

  it("answers a client that expects something first as it answers every other", async () => {
    for (const Expect of ["100-continue", "a miracle"]) {
      expect((await post({ headers: { Expect } })).status, Expect).toBe("HTTP/1.1 200 OK");
      expect((await post({ headers: { Expect, Host: "x" } })).head, Expect).toMatch(/^HTTP\/1.1 400 Bad Request\r\n/);
    }
  });

  it("takes a body in pieces, and stops reading one that goes on too long", async () => {
    const text = JSON.stringify(BODY);
    const chunked = [...text].map((character) => `1\r\n${character}\r\n`).join("");
    const head = `POST /choria/v1/sign HTTP/1.1\r\nHost: ${hostPort(loopback)}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;
    const socket = open();
    socket.write(`${head}${chunked}0\r\n\r\n`);
    expect(await all(socket)).toMatch(/^HTTP\/1.1 200 OK/);
    const long = open();
    const answer = all(long);
    long.write(head);
    const chunk = `10000\r\n${"x".repeat(65_536)}\r\n`;
    for (let i = 0; i < 5; i++) long.write(chunk);
    expect(await answer).toMatch(/^HTTP\/1.1 400 Bad Request\r\n/);
  });

  it("answers one request on a connection, and none that was sent behind it", async () => {
    const text = JSON.stringify(BODY);
    const one = `POST /choria/v1/sign HTTP/1.1\r\nHost: ${hostPort(loopback)}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`;
    const socket = open();
    socket.write(one + one);
    await all(socket);
    expect(asked).toHaveLength(1);
  });

  it("keeps a client for as long as the token takes, beyond the time for sending", async () => {
    await service.close();
    await loopback.close();
    await start({ transferMs: 50 });
    signing = () => new Promise((resolve) => setTimeout(() => resolve(SECURE), 400));
    expect((await post()).status).toBe("HTTP/1.1 200 OK");
  });

  it("gives up on who sends nothing, half a head, or half a body", async () => {
    await service.close();
    await loopback.close();
    await start({ transferMs: 50 });
    const head = `POST /choria/v1/sign HTTP/1.1\r\nHost: ${hostPort(loopback)}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n`;
    for (const text of ["", head.slice(0, 60), `${head}{`]) {
      const socket = open();
      if (text !== "") socket.write(text);
      expect(await all(socket), JSON.stringify(text)).toBe("");
    }
  });

  it("lets nobody who is slow keep a client out", async () => {
    await service.close();
    await loopback.close();
    await start({ maxConnections: 4 });
    const slow = Array.from({ length: 10 }, () => open());
    await Promise.all(slow.map((socket) => once(socket, "connect")));
    expect((await post()).status).toBe("HTTP/1.1 200 OK");
    for (const socket of slow) socket.destroy();
  });

  it("takes no more clients at once than it was told, and drops none of those it has for another", async () => {
    await service.close();
    await loopback.close();
    await start({ maxConnections: 2 });
    const release: (() => void)[] = [];
    signing = () => new Promise((resolve) => release.push(() => resolve(SECURE)));
    const waiting = [post(), post()];
    await vi.waitFor(() => expect(asked).toHaveLength(2));
    expect((await post()).head).toBe("");
    for (const go of release) go();
    for (const { status } of await Promise.all(waiting)) expect(status).toBe("HTTP/1.1 200 OK");
  });

  it("stops signing for a client that has gone, and for all when it closes", async () => {
    const aborted: string[] = [];
    signing = (signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          aborted.push((signal.reason as Error).message);
          reject(signal.reason);
        });
      });
    const text = JSON.stringify(BODY);
    const head = `POST /choria/v1/sign HTTP/1.1\r\nHost: ${hostPort(loopback)}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n`;
    const socket = open();
    socket.write(head + text);
    await vi.waitFor(() => expect(asked).toHaveLength(1));
    socket.destroy();
    await vi.waitFor(() => expect(aborted).toEqual(["whoever asked for the signature has gone"]));
    const other = open();
    other.write(head + text);
    const ended = all(other);
    await vi.waitFor(() => expect(asked).toHaveLength(2));
    await Promise.all([service.close(), service.close()]);
    expect(await ended).toBe("");
    expect(aborted).toHaveLength(2);
    const late = open();
    expect(await all(late)).toBe("");
  });

  it("serves a stream that is no socket", async () => {
    const [mine, theirs] = streamPair();
    service.serve(theirs);
    let answer = "";
    mine.on("data", (chunk) => {
      answer += String(chunk);
    });
    const text = JSON.stringify(BODY);
    mine.write(
      `POST /choria/v1/sign HTTP/1.1\r\nHost: ${hostPort(loopback)}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
    );
    await vi.waitFor(() => expect(answer).toContain(SECURE.toString("base64")));
    expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n/);
    mine.destroy();
  });

  it("answers nobody before it knows its own address", async () => {
    service.hosts = [];
    expect((await post()).status).toBe("HTTP/1.1 400 Bad Request");
  });
});
