/*
 * The book of one traced connection: which requests are under way, what answered them and when, and how long the other side was
 * waited for. Both wires keep theirs here. It must hold no value of a request beyond what its answer needs to be read.
 */
import type { CallClass } from "../../cryptoki/calls.js";
import type { CallRecord, Direction, NoteRecord, ShownFields, TraceRecord } from "./records.js";

/** A request that has come whole. */
export interface Asked<K> {
  readonly call: string;
  readonly class: CallClass | null;
  readonly args: ShownFields;
  readonly sent: number | null;
  readonly note?: string | undefined;
  /** What is needed to read the answer. */
  readonly keep: K;
}

/** Its answer. */
export interface Answered {
  readonly rv: string | null;
  readonly outs: ShownFields;
  readonly received: number | null;
  readonly ok: boolean;
  readonly error?: ShownFields | undefined;
  readonly note?: string | undefined;
}

/** A request under way. */
export interface Waiting<K> extends Asked<K> {
  readonly n: number;
  readonly at: number;
}

export interface Ledger<K> {
  /** `id` is what the answer will carry; the same may be asked twice, and is then answered in order. */
  ask(id: number, asked: Asked<K>, at: number): Waiting<K>;
  /** The oldest request with this id. */
  find(id: number): Waiting<K> | undefined;
  answer(id: number, answered: Answered, at: number): void;
  note(level: NoteRecord["level"], from: Direction | null, text: string, at: number): void;
  emit(record: TraceRecord): void;
  /** Writes down every request without an answer. */
  end(at: number): void;
  readonly calls: number;
  readonly unanswered: number;
  /** For how long, up to `at`, at least one request had no answer. */
  serverMs(at: number): number;
}

/** Requests that are followed at once; the oldest of more is given up, so that a client that never reads cannot fill our memory. */
const MAX_WAITING = 1024;

/** To the microsecond. */
export function roundMs(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

/** An empty book for connection `c`. */
export function createLedger<K>(c: number, emit: (record: TraceRecord) => void): Ledger<K> {
  return new Book(c, emit);
}

class Book<K> implements Ledger<K> {
  readonly #c: number;
  readonly emit: (record: TraceRecord) => void;
  /** In the order in which they were asked. */
  readonly #waiting = new Map<number, { readonly id: number; readonly waiting: Waiting<K> }>();
  readonly #byId = new Map<number, number[]>();
  #calls = 0;
  #unanswered = 0;
  #busyMs = 0;
  #busySince = 0;

  constructor(c: number, emit: (record: TraceRecord) => void) {
    this.#c = c;
    this.emit = emit;
  }

  get calls(): number {
    return this.#calls;
  }

  get unanswered(): number {
    return this.#unanswered;
  }

  serverMs(at: number): number {
    return this.#busyMs + (this.#waiting.size > 0 ? at - this.#busySince : 0);
  }

  ask(id: number, asked: Asked<K>, at: number): Waiting<K> {
    if (this.#waiting.size === 0) this.#busySince = at;
    else if (this.#waiting.size >= MAX_WAITING) this.#giveUpOldest(at);
    const waiting = { ...asked, n: ++this.#calls, at };
    this.#waiting.set(waiting.n, { id, waiting });
    const same = this.#byId.get(id);
    if (same === undefined) this.#byId.set(id, [waiting.n]);
    else same.push(waiting.n);
    return waiting;
  }

  find(id: number): Waiting<K> | undefined {
    const n = this.#byId.get(id)?.[0];
    return n === undefined ? undefined : this.#waiting.get(n)?.waiting;
  }

  answer(id: number, answered: Answered, at: number): void {
    const waiting = this.#take(id, at);
    if (waiting !== undefined) this.#record(waiting, answered, roundMs(at - waiting.at));
  }

  note(level: NoteRecord["level"], from: Direction | null, text: string, at: number): void {
    this.emit({ kind: "note", t: roundMs(at), c: this.#c, level, from, text });
  }

  end(at: number): void {
    for (const { id, waiting } of [...this.#waiting.values()]) {
      this.#take(id, at);
      this.#noAnswer(waiting, "no answer came");
    }
  }

  #take(id: number, at: number): Waiting<K> | undefined {
    const same = this.#byId.get(id);
    const n = same?.shift();
    if (same === undefined || n === undefined) return undefined;
    if (same.length === 0) this.#byId.delete(id);
    const found = this.#waiting.get(n)?.waiting;
    this.#waiting.delete(n);
    if (this.#waiting.size === 0) this.#busyMs += at - this.#busySince;
    return found;
  }

  #giveUpOldest(at: number): void {
    const [oldest] = this.#waiting.values();
    if (oldest === undefined) return;
    this.#take(oldest.id, at);
    this.#noAnswer(oldest.waiting, `no answer came before ${MAX_WAITING} further requests`);
  }

  #noAnswer(waiting: Waiting<K>, why: string): void {
    this.#unanswered += 1;
    this.#record(waiting, { rv: null, outs: {}, received: null, ok: false, note: why }, null);
  }

  #record({ n, at, call, class: kind, args, sent, note: asked }: Waiting<K>, answered: Answered, ms: number | null): void {
    const note = [asked, answered.note].filter((one) => one !== undefined).join("; ");
    const { rv, outs, received, ok, error } = answered;
    const record: CallRecord = {
      kind: "call",
      t: roundMs(at),
      c: this.#c,
      n,
      call,
      class: kind,
      args,
      rv,
      outs,
      ms,
      sent,
      received,
      ok,
      ...(error === undefined ? {} : { error }),
      ...(note === "" ? {} : { note }),
    };
    this.emit(record);
  }
}
