/*
 * A traced conversation in tokenfwd RPC, read with the codecs that our own client and agent use: hello, sign, call, status, subscribe
 * and ping with their answers, cancels, events and errors. A message that cannot be read is a record, and what follows is read on.
 * See protocol/tokenfwd-rpc.md.
 */
import { printable } from "../../base/printable.js";
import { type CallClass, callByName } from "../../cryptoki/calls.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import { wipeSecrets } from "../p11kit/requests.js";
import { carriesSecret } from "../rpc/call-values.js";
import { decodeBody, type Fields, HEADER_BYTES } from "../rpc/codec.js";
import { type CallMessage, DEFAULT_RPC_LIMITS, type HelloRequest, MAGIC, type RpcError, type RpcRequestType } from "../rpc/messages.js";
import { decodeRequest, isRequestType } from "../rpc/requests.js";
import { decodeError, decodeEvent, decodeResult } from "../rpc/results.js";
import { scanMessage } from "../rpc/scan.js";
import { MAX_TRACED_FRAME_BYTES, reasonOf, type WireTrace, type WireTraceOptions } from "./conversation.js";
import { type Answered, createLedger, type Ledger, roundMs } from "./ledger.js";
import type { Direction, Shown, ShownFields } from "./records.js";
import { showRequest, showResult } from "./rpc-shown.js";
import { keptArgs, pinBytes, showArgs, showOuts } from "./shown.js";
import { createSplitter, type FrameShape, type Splitter } from "./splitter.js";

const SHAPE: FrameShape = { headerBytes: HEADER_BYTES, restBytes: (header) => header.readUInt32BE(0) };
const MAX_NAME = 100;

interface Kept {
  /** Null for one that is not known or could not be read. */
  readonly type: RpcRequestType | null;
  readonly request: unknown;
}
const UNREAD: Kept = { type: null, request: {} };

/** A conversation whose first byte is that of the magic. */
export function createRpcTrace(options: WireTraceOptions): WireTrace {
  return new Conversation(options);
}

class Conversation implements WireTrace {
  readonly #options: WireTraceOptions;
  readonly ledger: Ledger<Kept>;
  readonly #splitters: Readonly<Record<Direction, Splitter>>;
  readonly #magic = { client: 0, server: 0 };
  readonly #lost = { client: false, server: false };
  #offered: readonly number[] | null = null;
  #told = false;
  withheldBytes = 0;

  constructor(options: WireTraceOptions) {
    this.#options = options;
    this.ledger = createLedger(options.c, options.emit);
    const splitter = (from: Direction): Splitter =>
      createSplitter({
        shape: SHAPE,
        maxFrameBytes: MAX_TRACED_FRAME_BYTES,
        budget: options.budget,
        onFrame: (frame, at) => this.#frame(from, frame, at),
        onSkipped: (_header, bytes, at) => this.#broken(from, `a message of ${bytes} bytes, too long to be looked at`, at),
      });
    this.#splitters = { client: splitter("client"), server: splitter("server") };
  }

  client(chunk: Buffer, at: number): void {
    this.#push("client", chunk, at);
  }

  server(chunk: Buffer, at: number): void {
    this.#push("server", chunk, at);
  }

  end(at: number): void {
    this.#tellProtocol(null, at);
    this.ledger.end(at);
    for (const from of ["client", "server"] as const) this.#endOf(from, at);
  }

  #endOf(from: Direction, at: number): void {
    const held = this.#splitters[from].end();
    if (from === "client") this.withheldBytes += held;
    if (held > 0) this.#broken(from, "it ended in the middle of a message", at);
  }

  #push(from: Direction, chunk: Buffer, at: number): void {
    if (this.#lost[from]) return;
    let used = 0;
    while (this.#magic[from] < MAGIC.length && used < chunk.length) {
      if (chunk[used] !== MAGIC[this.#magic[from]]) {
        // Without the magic there is no framing to go by.
        this.#lost[from] = true;
        this.#broken(from, "it does not speak tokenfwd RPC, or another version of its framing", at);
        return;
      }
      used++;
      this.#magic[from]++;
    }
    this.#splitters[from].push(chunk.subarray(used), at);
  }

  #frame(from: Direction, frame: Buffer, at: number): void {
    const body = frame.subarray(HEADER_BYTES);
    try {
      scanMessage(body, DEFAULT_RPC_LIMITS);
      const fields = decodeBody(body);
      if (from === "client") this.#request(fields, frame.length, at);
      else this.#answer(fields, frame.length, at);
    } catch (thrown) {
      if (from === "client") this.withheldBytes += frame.length;
      this.#broken(from, `a message that cannot be read: ${reasonOf(thrown)}`, at);
    }
  }

  #request(fields: Fields, size: number, at: number): void {
    const { type, id } = fields;
    if (typeof type !== "string" || typeof id !== "number") {
      this.withheldBytes += size;
      this.#broken("client", "a message without a type and an id", at);
      return;
    }
    if (type === "cancel") {
      this.ledger.emit({ kind: "cancel", t: roundMs(at), c: this.#options.c, n: this.ledger.find(id)?.n ?? null });
      return;
    }
    const shownType = printable(type, MAX_NAME);
    if (!isRequestType(type)) {
      this.withheldBytes += size;
      this.ledger.ask(id, { call: shownType, class: null, args: {}, sent: null, note: "a request that is not known", keep: UNREAD }, at);
      return;
    }
    try {
      if (type === "call") this.#call(id, decodeRequest("call", fields), fields, size, at);
      else {
        const request = decodeRequest(type, fields);
        if (type === "hello") this.#hello(request as HelloRequest, at);
        const args = { ...showRequest(type, request as never, this.#options.data), ...deadline(fields) };
        this.ledger.ask(id, { call: type, class: CLASSES[type], args, sent: size, keep: { type, request: {} } }, at);
      }
    } catch (thrown) {
      this.withheldBytes += size;
      this.ledger.ask(id, { call: shownType, class: null, args: {}, sent: null, note: reasonOf(thrown), keep: UNREAD }, at);
    }
  }

  #call(id: number, { name, args }: CallMessage, fields: Fields, size: number, at: number): void {
    const call = callByName(name);
    const secret = carriesSecret(name);
    const pins = secret ? pinBytes(args) : 0;
    this.withheldBytes += pins;
    const shown = { ...showArgs(call, args, this.#options.data), ...deadline(fields) };
    if (secret) wipeSecrets(args);
    const keep: Kept = { type: "call", request: { name, args: keptArgs(args) } };
    this.ledger.ask(id, { call: name, class: call.class, args: shown, sent: size - pins, keep }, at);
  }

  #hello({ versions, client }: HelloRequest, at: number): void {
    this.#offered = versions;
    if (client !== "") this.ledger.emit({ kind: "client", t: roundMs(at), c: this.#options.c, name: printable(client, MAX_NAME) });
  }

  #answer(fields: Fields, size: number, at: number): void {
    const { type, id } = fields;
    if (type === "event") this.#event(fields, at);
    else if (type !== "result" && type !== "error") this.#broken("server", "a message of a type that is not known", at);
    else if (typeof id !== "number") {
      const { code, message } = decodeError(fields);
      this.#broken("server", `the connection ends: ${code}: ${message}`, at);
    } else {
      const waiting = this.ledger.find(id);
      if (waiting === undefined) this.#broken("server", "an answer to no request", at);
      else this.ledger.answer(id, this.#read(waiting.asked.keep, fields, size, at), at);
    }
  }

  #read({ type, request }: Kept, fields: Fields, received: number, at: number): Answered {
    try {
      if (fields["type"] === "error") {
        const error = decodeError(fields);
        return { rv: error.rv === null ? null : rvName(error.rv), outs: {}, received, ok: false, error: showError(error) };
      }
      if (type === null) return { rv: null, outs: {}, received, ok: true };
      if (type === "call") {
        const asked = request as CallMessage;
        const { rv, outs } = decodeResult(type, fields, asked);
        const ok = rv === CKR.CKR_OK || rv === CKR.CKR_BUFFER_TOO_SMALL;
        return { rv: rvName(rv), outs: showOuts(callByName(asked.name), outs, this.#options.data), received, ok };
      }
      const result = decodeResult(type, fields, request as never);
      if (type === "hello") this.#tellProtocol((result as { readonly version: number }).version, at);
      return { rv: null, outs: showResult(type, result as never, this.#options.data), received, ok: true };
    } catch (thrown) {
      return { rv: null, outs: {}, received, ok: false, note: `its answer: ${reasonOf(thrown)}` };
    }
  }

  #event(fields: Fields, at: number): void {
    const event = decodeEvent(fields);
    const name = event?.event ?? printable(String(fields["event"]), MAX_NAME);
    const shown: Record<string, Shown> = {};
    if (event !== null) {
      if (event.slot !== null) shown["slot"] = Number(event.slot);
      if (event.waiting !== undefined) shown["waiting"] = event.waiting;
      if (event.epoch !== undefined) shown["epoch"] = event.epoch;
    }
    this.ledger.emit({ kind: "event", t: roundMs(at), c: this.#options.c, event: name, fields: shown });
  }

  #tellProtocol(version: number | null, at: number): void {
    if (this.#told) return;
    this.#told = true;
    const offered = this.#offered === null ? {} : { offered: this.#offered };
    this.ledger.emit({ kind: "protocol", t: roundMs(at), c: this.#options.c, protocol: "tokenfwd", ...offered, version });
  }

  #broken(from: Direction, text: string, at: number): void {
    this.ledger.note("broken", from, text, at);
  }
}

const CLASSES: Readonly<Record<RpcRequestType, CallClass>> = {
  hello: "information",
  sign: "sign",
  call: "information",
  status: "information",
  subscribe: "information",
  ping: "information",
};

function deadline(fields: Fields): ShownFields {
  const ms = fields["deadlineMs"];
  return typeof ms === "number" ? { deadlineMs: ms } : {};
}

function showError({ code, message, rv, call, hint }: RpcError): ShownFields {
  return {
    code,
    message,
    ...(rv === null ? {} : { rv: rvName(rv) }),
    ...(call === null ? {} : { call }),
    ...(hint === null ? {} : { hint }),
  };
}
