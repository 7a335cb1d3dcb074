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
export interface Waiting<K> {
  readonly asked: Asked<K>;
  readonly n: number;
  readonly at: number;
}

export interface Ledger<K> {
  /** `id` is what the answer will carry; the same may be asked twice, and is then answered in order. */
  ask(id: number, asked: Asked<K>, at: number): void;
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

/** The oldest of those with one id, with the ones behind it. */
interface Entry<K> extends Waiting<K> {
  readonly id: number;
  next: Entry<K> | null;
}

class Book<K> implements Ledger<K> {
  readonly #c: number;
  readonly emit: (record: TraceRecord) => void;
  /** In the order in which ids came into use. */
  readonly #waiting = new Map<number, Entry<K>>();
  #underWay = 0;
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
    return this.#busyMs + (this.#underWay > 0 ? at - this.#busySince : 0);
  }

  ask(id: number, asked: Asked<K>, at: number): void {
    if (this.#underWay === 0) this.#busySince = at;
    else if (this.#underWay >= MAX_WAITING) this.#giveUpOldest(at);
    const entry: Entry<K> = { id, asked, n: ++this.#calls, at, next: null };
    this.#underWay += 1;
    let last = this.#waiting.get(id);
    if (last === undefined) {
      this.#waiting.set(id, entry);
      return;
    }
    while (last.next !== null) last = last.next;
    last.next = entry;
  }

  find(id: number): Waiting<K> | undefined {
    return this.#waiting.get(id);
  }

  answer(id: number, answered: Answered, at: number): void {
    const waiting = this.#take(id, at);
    if (waiting !== undefined) this.#record(waiting, answered, roundMs(at - waiting.at));
  }

  note(level: NoteRecord["level"], from: Direction | null, text: string, at: number): void {
    this.emit({ kind: "note", t: roundMs(at), c: this.#c, level, from, text });
  }

  end(at: number): void {
    const left: Waiting<K>[] = [];
    for (const id of [...this.#waiting.keys()])
      for (let one = this.#take(id, at); one !== undefined; one = this.#take(id, at)) left.push(one);
    for (const one of left.sort((a, b) => a.n - b.n)) this.#noAnswer(one, "no answer came");
  }

  #take(id: number, at: number): Waiting<K> | undefined {
    const first = this.#waiting.get(id);
    if (first === undefined) return undefined;
    if (first.next === null) this.#waiting.delete(id);
    else this.#waiting.set(id, first.next);
    this.#underWay -= 1;
    if (this.#underWay === 0) this.#busyMs += at - this.#busySince;
    return first;
  }

  #giveUpOldest(at: number): void {
    const [oldest] = this.#waiting.values();
    if (oldest === undefined) return;
    this.#take(oldest.id, at);
    this.#noAnswer(oldest, `no answer came before ${MAX_WAITING} further requests`);
  }

  #noAnswer(waiting: Waiting<K>, why: string): void {
    this.#unanswered += 1;
    this.#record(waiting, { rv: null, outs: {}, received: null, ok: false, note: why }, null);
  }

  #record({ n, at, asked }: Waiting<K>, answered: Answered, ms: number | null): void {
    const record: { -readonly [F in keyof CallRecord]: CallRecord[F] } = {
      kind: "call",
      t: roundMs(at),
      c: this.#c,
      n,
      call: asked.call,
      class: asked.class,
      args: asked.args,
      rv: answered.rv,
      outs: answered.outs,
      ms,
      sent: asked.sent,
      received: answered.received,
      ok: answered.ok,
    };
    if (answered.error !== undefined) record.error = answered.error;
    if (asked.note !== undefined) record.note = answered.note === undefined ? asked.note : `${asked.note}; ${answered.note}`;
    else if (answered.note !== undefined) record.note = answered.note;
    this.emit(record);
  }
}
