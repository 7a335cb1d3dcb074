/*
 * The objects of a module as identities, not as handles. A real handle dies with a host restart or a log-out; what an
 * object *is* does not, so a virtual handle holds an identity and the real one is found again on demand.
 * Shared by all clients of a module. It must never hand one client's session object to another.
 */
import { boolAttribute, bytesAttribute, CKA, findBool, findBytes, findUlong, ulongAttribute } from "../cryptoki/attributes.js";
import { CKO } from "../cryptoki/constants.js";
import { findAll } from "../cryptoki/keys/find.js";
import type { Attribute, CallContext, Cryptoki } from "../cryptoki/types.js";

/** What the layers above may know of an object when they decide who sees it. */
export interface ObjectView {
  readonly slot: bigint;
  readonly class: bigint;
  readonly private: boolean;
  readonly label: Buffer;
  readonly id: Buffer;
}

/** Whose session object something is. A session object dies with the real session that it was made in. */
export interface Owner {
  readonly client: string;
  alive(): boolean;
}

/** One object of the module. `owner` is null for a token object. */
export interface ObjectRecord extends ObjectView {
  readonly owner: Owner | null;
  /** The key takes a log-in of its own for each use. */
  readonly alwaysAuthenticate: boolean;
  /** CKA_VALUE of a certificate, to tell apart two with one label and id. */
  readonly value: Buffer | null;
}

/** The state a real handle depends on: it is void when any of the two has changed. */
export interface HandleAge {
  readonly epoch: number;
  /** Counts real log-ins and log-outs of the token: modules drop private handles at a log-out. */
  readonly loginGeneration: number;
}

export interface ObjectRegistry {
  /** The record of a real handle, read from the module when it is new. null when the object has gone meanwhile. */
  describe(slot: bigint, session: bigint, real: bigint, owner: Owner, age: HandleAge, ctx: CallContext): Promise<ObjectRecord | null>;
  /** The real handle of a record where it is known, without asking the module. */
  known(record: ObjectRecord, age: HandleAge): bigint | null;
  /** The real handle of a record, found again where the old one is void. null when no object, or no single one, is it. */
  resolve(record: ObjectRecord, session: bigint, age: HandleAge, ctx: CallContext): Promise<bigint | null>;
  /** Forgets what is known of a real handle: its attributes changed. */
  forget(slot: bigint, real: bigint): void;
  /** Forgets a record and its real handle, which a module may give to another object: it was destroyed. */
  destroyed(record: ObjectRecord): void;
  /** Forgets the whole slot: the token was initialised, or its objects were made anew. */
  forgetSlot(slot: bigint): void;
  /** Forgets the session objects of a client that has gone. */
  forgetOwner(client: string): void;
}

const MAX_VALUE_BYTES = 65_536;
/** What is read of an object besides its id, by class. */
const FURTHER: ReadonlyMap<bigint, readonly number[]> = new Map([
  [CKO.CKO_CERTIFICATE, [CKA.CKA_VALUE]],
  [CKO.CKO_PRIVATE_KEY, [CKA.CKA_ALWAYS_AUTHENTICATE]],
]);

interface Known {
  readonly record: ObjectRecord;
  readonly age: HandleAge;
}

function fresh(record: ObjectRecord, last: HandleAge, now: HandleAge): boolean {
  if (record.owner !== null && !record.owner.alive()) return false;
  return last.epoch === now.epoch && (!record.private || last.loginGeneration === now.loginGeneration);
}

/** A registry over the real handles of one module. */
export function createObjectRegistry(host: Cryptoki): ObjectRegistry {
  const byHandle = new Map<string, Known>();
  const handleOf = new WeakMap<ObjectRecord, { real: bigint; age: HandleAge }>();
  const keyOf = (slot: bigint, real: bigint) => `${slot}/${real}`;

  async function read(session: bigint, object: bigint, types: readonly number[], ctx: CallContext): Promise<readonly Attribute[] | null> {
    const query = types.map((type) => ({ type, room: MAX_VALUE_BYTES }));
    const answer = await host.call("C_GetAttributeValue", { session, object, query }, ctx);
    return answer.attributes ?? null;
  }

  async function load(slot: bigint, session: bigint, real: bigint, owner: Owner, ctx: CallContext): Promise<ObjectRecord | null> {
    const common = await read(session, real, [CKA.CKA_CLASS, CKA.CKA_TOKEN, CKA.CKA_PRIVATE, CKA.CKA_LABEL], ctx);
    const cls = common === null ? undefined : findUlong(common, CKA.CKA_CLASS);
    if (common === null || cls === undefined) return null;
    const hasId = cls === CKO.CKO_CERTIFICATE || cls === CKO.CKO_PUBLIC_KEY || cls === CKO.CKO_PRIVATE_KEY || cls === CKO.CKO_SECRET_KEY;
    const more = hasId ? await read(session, real, [CKA.CKA_ID, ...(FURTHER.get(cls) ?? [])], ctx) : [];
    if (more === null) return null;
    // What a module does not say of privacy is taken as private: an object is never shown by default.
    const isPrivate = findBool(common, CKA.CKA_PRIVATE) ?? true;
    return {
      slot,
      class: cls,
      private: isPrivate,
      label: Buffer.from(findBytes(common, CKA.CKA_LABEL) ?? []),
      id: Buffer.from(findBytes(more, CKA.CKA_ID) ?? []),
      alwaysAuthenticate: findBool(more, CKA.CKA_ALWAYS_AUTHENTICATE) === true,
      value: findBytes(more, CKA.CKA_VALUE) ?? null,
      // A token object belongs to nobody; a session object, and what a module does not say this of, to the client that made it.
      owner: findBool(common, CKA.CKA_TOKEN) === true ? null : owner,
    };
  }

  async function describe(slot: bigint, session: bigint, real: bigint, owner: Owner, age: HandleAge, ctx: CallContext) {
    const key = keyOf(slot, real);
    const known = byHandle.get(key);
    if (known !== undefined && fresh(known.record, known.age, age)) return known.record;
    const record = await load(slot, session, real, owner, ctx);
    if (record === null) return null;
    const kept = known !== undefined && sameIdentity(known.record, record) ? known.record : record;
    byHandle.set(key, { record: kept, age });
    handleOf.set(kept, { real, age });
    return kept;
  }

  function knownHandle(record: ObjectRecord, age: HandleAge): bigint | null {
    const last = handleOf.get(record);
    return last !== undefined && fresh(record, last.age, age) ? last.real : null;
  }

  function destroyed(record: ObjectRecord): void {
    const last = handleOf.get(record);
    if (last === undefined) return;
    byHandle.delete(keyOf(record.slot, last.real));
    handleOf.delete(record);
  }

  return {
    describe,
    known: knownHandle,
    async resolve(record, session, age, ctx) {
      const known = knownHandle(record, age);
      if (known !== null) return known;
      if (record.owner !== null) return null; // a session object died with its session
      const template = [
        ulongAttribute(CKA.CKA_CLASS, record.class),
        boolAttribute(CKA.CKA_TOKEN, true),
        bytesAttribute(CKA.CKA_LABEL, record.label),
      ];
      if (record.id.length > 0) template.push(bytesAttribute(CKA.CKA_ID, record.id));
      if (record.value !== null) template.push(bytesAttribute(CKA.CKA_VALUE, record.value));
      const { objects } = await findAll(host, session, template, ctx);
      const only = objects[0];
      if (objects.length !== 1 || only === undefined) return null;
      byHandle.set(keyOf(record.slot, only), { record, age });
      handleOf.set(record, { real: only, age });
      return only;
    },
    forget(slot, real) {
      byHandle.delete(keyOf(slot, real));
    },
    destroyed,
    forgetSlot(slot) {
      for (const { record } of [...byHandle.values()]) if (record.slot === slot) destroyed(record);
    },
    forgetOwner(client) {
      for (const { record } of [...byHandle.values()]) if (record.owner?.client === client) destroyed(record);
    },
  };
}

function sameIdentity(a: ObjectRecord, b: ObjectRecord): boolean {
  return (
    a.slot === b.slot &&
    a.class === b.class &&
    a.private === b.private &&
    a.alwaysAuthenticate === b.alwaysAuthenticate &&
    a.owner === b.owner &&
    a.label.equals(b.label) &&
    a.id.equals(b.id) &&
    (a.value === null ? b.value === null : b.value !== null && a.value.equals(b.value))
  );
}
