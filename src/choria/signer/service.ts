/*
 * Choria's remote signer as stock clients know it: HTTP on streams that somebody else accepts, one request on each. Who has no
 * token learns nothing; who has it learns every reason, as the `error` of a 200, since choria shows nothing else. It must never
 * redirect, which choria would follow with the token, and never wait for a stranger.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { createEmitter, type Emitter } from "../../base/events.js";
import { type Log, silentLog } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import { describeRequest } from "../documents/describe.js";
import { parseRequest } from "../documents/request.js";
import { parseSecureRequest } from "../documents/secure-request.js";
import type { RequestSigner } from "./request-signer.js";
import { checkHead, type Expected, MAX_BODY_BYTES, type Rejection, readCall } from "./signing-call.js";

export interface SignerServiceOptions extends Expected {
  readonly requestSigner: RequestSigner;
  /** The Host headers that are ours, port included; see `hosts`. */
  readonly hosts?: readonly string[];
  readonly log?: Log;
  readonly limits?: Partial<ServiceLimits>;
}

export interface ServiceLimits {
  /** At once; default 64. One more takes the place of one whose request is not whole yet. */
  readonly maxConnections: number;
  /** From a connection's beginning to its request's last byte, and from the answer's first to its last; default 10,000. */
  readonly transferMs: number;
}

export interface SignerEvents {
  /** A request was signed; `what` is a line for a person. */
  signed: { readonly what: string };
  /** A client with token and seed got an error; printable. */
  refused: { readonly code: string; readonly message: string };
  /** Somebody without them got nothing. */
  stranger: { readonly reason: string };
}

export interface SignerService {
  /** Takes a connection over. Signing may last as long as the signer takes; it is aborted when the client goes. */
  serve(stream: Duplex): void;
  /** The Host headers that are ours. Nothing is answered to any other; without one nothing at all. */
  hosts: readonly string[];
  readonly events: Emitter<SignerEvents>;
  /** Ends every connection, and with it what is being signed. Safe to call twice. */
  close(): Promise<void>;
}

const DEFAULT_LIMITS: ServiceLimits = { maxConnections: 64, transferMs: 10_000 };
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_ERROR = 1_000;

/** A connection, from its beginning to its end. */
interface Connection {
  readonly stream: Duplex;
  timer: NodeJS.Timeout;
  /** Its request is whole, and its client the right one. */
  known: boolean;
  /** It has had its one request. */
  used: boolean;
}

/** A service that has no connection yet. */
export function createSignerService(options: SignerServiceOptions): SignerService {
  const { requestSigner, log = silentLog } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const events = createEmitter<SignerEvents>();
  const connections = new Map<Duplex, Connection>();
  const stopping = new AbortController();
  let hosts = options.hosts ?? [];

  // It never listens: connections are handed to it, and Node keeps no time for such ones, so we do.
  const http = createServer({ maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 });
  http.on("request", (request, response) => void handle(request, response));
  // Whatever a client expects first: it gets the answer to its request, or none.
  http.on("checkContinue", (request, response) => void handle(request, response));
  http.on("checkExpectation", (request, response) => void handle(request, response));
  http.on("clientError", (_error, stream) => {
    told(bad400);
    if (stream.writable) stream.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    else stream.destroy();
  });

  function told({ reason }: Rejection): void {
    log.warn("somebody was turned away by the signer", { reason });
    events.emit("stranger", { reason });
  }

  function timed(stream: Duplex): NodeJS.Timeout {
    const timer = setTimeout(() => stream.destroy(), limits.transferMs);
    timer.unref();
    return timer;
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const connection = connections.get(request.socket);
    if (connection === undefined || connection.used) {
      request.socket.destroy();
      return;
    }
    connection.used = true;
    response.sendDate = false;
    response.shouldKeepAlive = false;
    const gone = new AbortController();
    response.once("close", () => gone.abort(new TokenfwdError("E_INTERRUPTED", "whoever asked for the signature has gone")));
    const signal = AbortSignal.any([gone.signal, stopping.signal]);
    try {
      const asked = checkHead(request, hosts) ?? (await readBody(request));
      const call = Buffer.isBuffer(asked) ? readCall(asked, options) : asked;
      if (!Buffer.isBuffer(call)) {
        told(call);
        answer(connection, response, call.status, "");
        return;
      }
      connection.known = true;
      clearTimeout(connection.timer);
      answer(connection, response, 200, await signed(call, signal));
    } catch (thrown) {
      // What breaks here is the connection, or us: either way there is nobody to tell.
      log.warn("a connection to the signer broke", { error: thrown });
      request.socket.destroy();
    }
  }

  async function signed(request: Buffer, signal: AbortSignal): Promise<string> {
    try {
      const secure = await requestSigner.sign(request, { signal });
      events.emit("signed", { what: describeRequest(parseRequest(Buffer.from(parseSecureRequest(secure).message))) });
      return JSON.stringify({ secure_request: secure.toString("base64"), error: "" });
    } catch (thrown) {
      const { code, message, hint } = TokenfwdError.from(thrown);
      log.warn("a request was not signed", { code, message });
      const text = printable(message, MAX_ERROR);
      if (!signal.aborted) events.emit("refused", { code, message: text });
      return JSON.stringify({ error: hint === undefined ? text : `${text} (${printable(hint, MAX_ERROR)})` });
    }
  }

  function answer(connection: Connection, response: ServerResponse, status: number, body: string): void {
    clearTimeout(connection.timer);
    connection.timer = timed(connection.stream);
    const type = body === "" ? {} : { "content-type": "application/json", "cache-control": "no-store" };
    response.writeHead(status, { ...type, "content-length": Buffer.byteLength(body) });
    response.end(body);
  }

  /** Room for one more: who is not known yet has to go, the longest there first. */
  function makeRoom(): boolean {
    if (connections.size < limits.maxConnections) return true;
    const oldest = [...connections.values()].find(({ known }) => !known);
    if (oldest === undefined) return false;
    connections.delete(oldest.stream);
    oldest.stream.destroy();
    return true;
  }

  return {
    events,
    get hosts() {
      return hosts;
    },
    set hosts(value) {
      hosts = value;
    },
    serve(stream) {
      stream.on("error", () => stream.destroy());
      if (stopping.signal.aborted || !makeRoom()) {
        stream.destroy();
        return;
      }
      const connection: Connection = { stream, timer: timed(stream), known: false, used: false };
      connections.set(stream, connection);
      stream.once("close", () => {
        clearTimeout(connection.timer);
        connections.delete(stream);
      });
      http.emit("connection", stream);
    },
    async close() {
      if (stopping.signal.aborted) return;
      stopping.abort(new TokenfwdError("E_INTERRUPTED", "the signer was stopped"));
      for (const stream of connections.keys()) stream.destroy();
    },
  };
}

const bad400: Rejection = { status: 400, reason: "not HTTP" };

/** All of the body; or that it is too long, whose rest is not read. Rejects when the connection breaks. */
function readBody(request: IncomingMessage): Promise<Buffer | Rejection> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= MAX_BODY_BYTES) chunks.push(chunk);
      else {
        request.pause();
        resolve({ status: 400, reason: "a body over the limit" });
      }
    });
    request.once("end", () => resolve(Buffer.concat(chunks)));
    request.once("error", reject);
    request.once("close", () => reject(new Error("the connection ended within the body")));
  });
}
