/*
 * The objects of a module as identities, not as handles. A real handle dies with a host restart or a log-out; what an
 * object *is* does not, so a virtual handle holds an identity and the real one is found again on demand.
 * Shared by all clients of a module. It must never hand one client's session object to another.
 */
import { boolAttribute, bytesAttribute, CKA, findBool, findBytes, findUlong, ulongAttribute } from "../cryptoki/attributes.js";
import { CKO } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
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

/** At most this many objects are listed for one search; a token with more answers CKR_DEVICE_MEMORY. */
const MAX_FOUND = 16_384;
const FIND_CHUNK = 512;
const MAX_VALUE_BYTES = 65_536;

/**
 * Runs a whole search on a real session and answers the real handles, or the CK_RV that stopped it.
 * The search is always ended, so that the session is free for the next one.
 */
export async function findAll(
  host: Cryptoki,
  session: bigint,
  template: readonly Attribute[],
  ctx: CallContext,
): Promise<{ rv: number; objects: readonly bigint[] }> {
  const init = await host.call("C_FindObjectsInit", { session, template }, ctx);
  if (init.rv !== CKR.CKR_OK) return { rv: init.rv, objects: [] };
  const objects: bigint[] = [];
  let rv: number = CKR.CKR_OK;
  for (;;) {
    const found = await host.call("C_FindObjects", { session, room: FIND_CHUNK }, ctx);
    const chunk = Array.isArray(found.objects) ? (found.objects as readonly bigint[]) : [];
    rv = found.rv;
    if (rv !== CKR.CKR_OK || chunk.length === 0) break;
    objects.push(...chunk);
    if (objects.length > MAX_FOUND) {
      rv = CKR.CKR_DEVICE_MEMORY;
      break;
    }
  }
  await host.call("C_FindObjectsFinal", { session }, ctx);
  return { rv, objects: rv === CKR.CKR_OK ? objects : [] };
}

interface Known {
  readonly record: ObjectRecord;
  readonly age: HandleAge;
}

function fresh(known: Known, age: HandleAge): boolean {
  if (known.record.owner !== null && !known.record.owner.alive()) return false;
  return known.age.epoch === age.epoch && (!known.record.private || known.age.loginGeneration === age.loginGeneration);
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
    const more = hasId ? await read(session, real, cls === CKO.CKO_CERTIFICATE ? [CKA.CKA_ID, CKA.CKA_VALUE] : [CKA.CKA_ID], ctx) : [];
    // What a module does not say of privacy is taken as private: an object is never shown by default.
    const isPrivate = findBool(common, CKA.CKA_PRIVATE) ?? true;
    return {
      slot,
      class: cls,
      private: isPrivate,
      label: Buffer.from(findBytes(common, CKA.CKA_LABEL) ?? []),
      id: Buffer.from(findBytes(more ?? [], CKA.CKA_ID) ?? []),
      value: findBytes(more ?? [], CKA.CKA_VALUE) ?? null,
      // A token object belongs to nobody; a session object, and what a module does not say this of, to the client that made it.
      owner: findBool(common, CKA.CKA_TOKEN) === true ? null : owner,
    };
  }

  async function describe(slot: bigint, session: bigint, real: bigint, owner: Owner, age: HandleAge, ctx: CallContext) {
    const key = keyOf(slot, real);
    const known = byHandle.get(key);
    if (known !== undefined && fresh(known, age)) return known.record;
    const record = await load(slot, session, real, owner, ctx);
    if (record === null) return null;
    const kept = known !== undefined && sameIdentity(known.record, record) ? known.record : record;
    byHandle.set(key, { record: kept, age });
    handleOf.set(kept, { real, age });
    return kept;
  }

  function destroyed(record: ObjectRecord): void {
    const last = handleOf.get(record);
    if (last === undefined) return;
    byHandle.delete(keyOf(record.slot, last.real));
    handleOf.delete(record);
  }

  return {
    describe,
    async resolve(record, session, age, ctx) {
      const last = handleOf.get(record);
      if (last !== undefined && fresh({ record, age: last.age }, age)) return last.real;
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
    a.owner === b.owner &&
    a.label.equals(b.label) &&
    a.id.equals(b.id) &&
    (a.value === null ? b.value === null : b.value !== null && a.value.equals(b.value))
  );
}
