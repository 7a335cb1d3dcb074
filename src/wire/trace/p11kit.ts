/*
 * A traced p11-kit conversation, in every version and both dialects, read with the codecs that our own client and server use. A body
 * that nobody can read is a record, for the next frame can be found all the same. See protocol/p11kit-rpc.md.
 */
import { type AnyCall, callById } from "../../cryptoki/calls.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import type { AnyArgs } from "../../cryptoki/types.js";
import { DEFAULT_LIMITS, type P11KitLimits } from "../p11kit/limits.js";
import { type Dialect, dialectOfVersion } from "../p11kit/mechanisms.js";
import { carriesSecret, decodeRequest, wipeSecrets } from "../p11kit/requests.js";
import { decodeErrorRv, decodeResponse } from "../p11kit/responses.js";
import { MAX_TRACED_FRAME_BYTES, reasonOf, type WireTrace, type WireTraceOptions } from "./conversation.js";
import { type Answered, createLedger, type Ledger, roundMs } from "./ledger.js";
import { keptArgs, pinBytes, showArgs, showOuts } from "./shown.js";
import { createSplitter, type FrameShape, type Splitter } from "./splitter.js";

const HEADER_BYTES = 12;
const SHAPE: FrameShape = { headerBytes: HEADER_BYTES, restBytes: (header) => header.readUInt32BE(4) + header.readUInt32BE(8) };
/** What a stock peer may send goes beyond what ours takes. */
const LIMITS: P11KitLimits = { ...DEFAULT_LIMITS, maxAttributes: 65_536, maxRoomBytes: Number.MAX_SAFE_INTEGER };
/** A module's name, as a stock client writes it; anything else in the options is not shown. */
const NAME = /^[A-Za-z0-9._-]{1,64}$/;
const TOO_SMALL: readonly number[] = [CKR.CKR_OK, CKR.CKR_BUFFER_TOO_SMALL];

interface Kept {
  /** Null for a call that is not known. */
  readonly call: AnyCall | null;
  readonly args: AnyArgs;
}

/** A conversation whose first byte, the client's version, is still to come. */
export function createP11KitTrace(options: WireTraceOptions): WireTrace {
  return new Conversation(options);
}

class Conversation implements WireTrace {
  readonly #options: WireTraceOptions;
  readonly ledger: Ledger<Kept>;
  readonly #requests: Splitter;
  readonly #answers: Splitter;
  #offered: number | null = null;
  #version: number | null = null;
  #dialect: Dialect = "legacy";
  #dialectTold = false;
  #named = false;
  withheldBytes = 0;

  constructor(options: WireTraceOptions) {
    this.#options = options;
    this.ledger = createLedger(options.c, options.emit);
    const { budget } = options;
    const common = { shape: SHAPE, maxFrameBytes: MAX_TRACED_FRAME_BYTES, budget };
    this.#requests = createSplitter({
      ...common,
      onFrame: (frame, at) => this.#request(frame, at),
      onSkipped: (header, bytes, at) => this.#skippedRequest(header, bytes, at),
    });
    this.#answers = createSplitter({
      ...common,
      onFrame: (frame, at) => this.#answer(frame, at),
      onSkipped: (header, bytes, at) => this.#skippedAnswer(header, bytes, at),
    });
  }

  client(chunk: Buffer, at: number): void {
    let frames = chunk;
    if (this.#offered === null) {
      this.#offered = chunk.readUInt8(0);
      this.#dialect = dialectOfVersion(this.#offered);
      frames = chunk.subarray(1);
    }
    this.#requests.push(frames, at);
  }

  server(chunk: Buffer, at: number): void {
    let frames = chunk;
    if (this.#version === null) {
      this.#version = chunk.readUInt8(0);
      this.#tellProtocol(at);
      frames = chunk.subarray(1);
    }
    this.#answers.push(frames, at);
  }

  end(at: number): void {
    if (this.#version === null) this.#tellProtocol(at);
    this.ledger.end(at);
    // How much has come is not said: it may be a part of a message with a PIN.
    const held = this.#requests.end();
    this.withheldBytes += held;
    if (held > 0) this.ledger.note("broken", "client", "it ended in the middle of a message", at);
    if (this.#answers.end() > 0) this.ledger.note("broken", "server", "it ended in the middle of a message", at);
  }

  #tellProtocol(at: number): void {
    const offered = this.#offered === null ? {} : { offered: this.#offered };
    const { c } = this.#options;
    this.ledger.emit({
      kind: "protocol",
      t: roundMs(at),
      c,
      protocol: "p11-kit",
      ...offered,
      version: this.#version,
      dialect: this.#dialect,
    });
  }

  #request(frame: Buffer, at: number): void {
    const code = frame.readUInt32BE(0);
    const bodyAt = HEADER_BYTES + frame.readUInt32BE(4);
    this.#tellName(frame.subarray(HEADER_BYTES, bodyAt), at);
    const body = frame.subarray(bodyAt);
    const id = body.length >= 4 ? body.readUInt32BE(0) : null;
    const known = id === null ? null : (callById(id) ?? null);
    try {
      const request = decodeRequest(body, this.#dialect, LIMITS);
      if (request.kind === "call") {
        this.#call(code, request, frame.length, at);
        return;
      }
      const why = request.kind === "unknown" ? "a call that is not known" : request.why;
      this.#unreadable(code, known, id, frame.length, bodyAt, why, at);
    } catch (thrown) {
      this.#unreadable(code, known, id, frame.length, bodyAt, reasonOf(thrown), at);
    }
  }

  #call(code: number, request: Extract<ReturnType<typeof decodeRequest>, { kind: "call" }>, size: number, at: number): void {
    const { call, args, secret, dialect, trailing } = request;
    const pins = secret ? pinBytes(args) : 0;
    this.withheldBytes += pins;
    const shown = showArgs(call, args, this.#options.data);
    if (secret) wipeSecrets(args);
    if (dialect !== this.#dialect && !this.#dialectTold) {
      this.#dialectTold = true;
      this.ledger.note("info", "client", `it writes mechanisms in the ${dialect} dialect, which is not that of the version it offered`, at);
    }
    const note = trailing > 0 ? `${trailing} bytes after its arguments` : undefined;
    this.ledger.ask(
      code,
      { call: call.name, class: call.class, args: shown, sent: size - pins, note, keep: { call, args: keptArgs(args) } },
      at,
    );
  }

  /** What was not read may be a PIN: then not even its length is told. */
  #unreadable(code: number, known: AnyCall | null, id: number | null, size: number, bodyAt: number, why: string, at: number): void {
    const secret = known === null || carriesSecret(known);
    if (secret) this.withheldBytes += size - bodyAt;
    const call = known?.name ?? (id === null ? "no call" : `call ${id}`);
    this.ledger.ask(
      code,
      { call, class: known?.class ?? null, args: {}, sent: secret ? null : size, note: why, keep: { call: null, args: {} } },
      at,
    );
  }

  #answer(frame: Buffer, at: number): void {
    const code = frame.readUInt32BE(0);
    const body = frame.subarray(HEADER_BYTES + frame.readUInt32BE(4));
    const waiting = this.ledger.find(code);
    if (waiting === undefined) {
      this.ledger.note("broken", "server", `an answer of ${frame.length} bytes to no request`, at);
      return;
    }
    this.ledger.answer(code, this.#read(waiting.asked.keep, body, frame.length), at);
  }

  #read({ call, args }: Kept, body: Buffer, received: number): Answered {
    let trailing = 0;
    try {
      if (call === null) {
        const rv = decodeErrorRv(body);
        return { rv: rv === null ? null : rvName(rv), outs: {}, received, ok: false };
      }
      const result = decodeResponse(body, call, args, LIMITS, (bytes) => {
        trailing = bytes;
      });
      const note = trailing > 0 ? `${trailing} bytes after its answer` : undefined;
      const { rv } = result;
      // A length that was asked for, or that did not fit, is how the call is meant to be used.
      return { rv: rvName(rv), outs: showOuts(call, result, this.#options.data), received, ok: TOO_SMALL.includes(rv), note };
    } catch (thrown) {
      return { rv: null, outs: {}, received, ok: false, note: `its answer: ${reasonOf(thrown)}` };
    }
  }

  #skippedRequest(header: Buffer, bytes: number, at: number): void {
    const asked = { call: "no call", class: null, args: {}, sent: bytes, note: "too long to be looked at", keep: { call: null, args: {} } };
    this.ledger.ask(header.readUInt32BE(0), asked, at);
  }

  #skippedAnswer(header: Buffer, bytes: number, at: number): void {
    const code = header.readUInt32BE(0);
    if (this.ledger.find(code) === undefined) this.ledger.note("broken", "server", `an answer of ${bytes} bytes to no request`, at);
    this.ledger.answer(code, { rv: null, outs: {}, received: bytes, ok: false, note: "its answer: too long to be looked at" }, at);
  }

  #tellName(options: Buffer, at: number): void {
    if (this.#named) return;
    this.#named = true;
    const name = options.toString("latin1");
    if (NAME.test(name)) this.ledger.emit({ kind: "client", t: roundMs(at), c: this.#options.c, name });
  }
}
