/*
 * The calls of one client that name objects: searching, reading, and everything that takes a key. Handles are the
 * client's own and stand for identities; what it may not see does not exist for it. A handle from a client never
 * reaches the module untranslated.
 */
import { CKA, findBool, findUlong, unavailableAttribute } from "../cryptoki/attributes.js";
import { type AnyCall, callByName, isObjectName } from "../cryptoki/calls.js";
import { CKO, CKU } from "../cryptoki/constants.js";
import { findAll } from "../cryptoki/keys/find.js";
import { CKM } from "../cryptoki/mechanisms.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, CallArgs, CallContext, Mechanism } from "../cryptoki/types.js";
import type { Shared, Visibility } from "./broker.js";
import { createHeldSigns, GOES_ON, leavesOperations } from "./held-sign.js";
import { createKeyUses } from "./key-use.js";
import type { OpenSession } from "./login.js";
import type { ObjectRecord, Owner } from "./objects.js";
import { NO_HANDLE, newHandle, type Session, type SessionTable } from "./session-table.js";

export interface ObjectCalls {
  findInit(session: Session, args: CallArgs<"C_FindObjectsInit">, ctx: CallContext): Promise<AnyResult>;
  findNext(session: Session, args: CallArgs<"C_FindObjects">): AnyResult;
  findFinal(session: Session): AnyResult;
  read(session: Session, args: CallArgs<"C_GetAttributeValue">, ctx: CallContext): Promise<AnyResult>;
  /** Any other call of a session: the same on the module, with its own handles. */
  pass(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> | AnyResult;
  /** C_Login(CKU_CONTEXT_SPECIFIC); answers its CK_RV. */
  loginForKey(session: Session, open: OpenSession, pin: Buffer | null, ctx: CallContext): Promise<number>;
  /** Sees to it that the module knows of a signature that has begun, before something that is not `pass` touches the session. */
  settle(session: Session, ctx: CallContext): Promise<void>;
  clear(): void;
}

/** The owner of a session object that nobody has registered: no client has this name, and it is looked at anew each time. */
const NOBODY: Owner = { client: "", alive: () => false };

const always = () => true;

export function createObjectCalls(shared: Shared, table: SessionTable, client: string, visibility: Visibility): ObjectCalls {
  const { host, desk, lease, objects, proofs, age } = shared;
  const byHandle = new Map<bigint, ObjectRecord>();
  const handles = new Map<ObjectRecord, bigint>();
  const isUser = (slot: bigint) => table.users.get(slot) === CKU.CKU_USER;

  const signs = createHeldSigns(shared, table, sees);
  const keyUses = createKeyUses(desk, lease);

  function handleOf(record: ObjectRecord): bigint {
    const known = handles.get(record);
    if (known !== undefined) return known;
    const handle = newHandle(byHandle);
    byHandle.set(handle, record);
    handles.set(record, handle);
    return handle;
  }

  function sees(record: ObjectRecord): boolean {
    if (record.private && !isUser(record.slot)) return false;
    return record.owner === null ? visibility.object(record) : record.owner.client === client && record.owner.alive();
  }

  /** This client, as the owner of what it makes in this session while that is open. */
  function ownerIn(session: Session): Owner {
    const held = session.real;
    return { client, alive: () => session.real === held };
  }

  /** The record behind a client's handle, or undefined when it is none of this client's on this slot. */
  function lookUp(session: Session, handle: bigint): ObjectRecord | undefined {
    const record = byHandle.get(handle);
    return record !== undefined && record.slot === session.slot && sees(record) ? record : undefined;
  }

  /**
   * The module may be logged in for somebody else; this client is not, and must not make private objects then.
   * null where the call may go on.
   */
  function refusedWithoutLogin(session: Session, call: AnyCall, args: AnyArgs): number | null {
    if (call.name === "C_InitPIN") return table.users.get(session.slot) === CKU.CKU_SO ? null : CKR.CKR_USER_NOT_LOGGED_IN;
    if (isUser(session.slot) || desk.generation(session.slot) === 0) return null;
    if (!call.outs.some((name) => isObjectName(name) && name !== "objects")) return null;
    const makesPublic = (name: string): boolean => {
      const template = args[name] as readonly Attribute[] | undefined;
      if (template === undefined) return true;
      const cls = findUlong(template, CKA.CKA_CLASS);
      const publicByNature = name === "publicTemplate" || cls === CKO.CKO_CERTIFICATE || cls === CKO.CKO_PUBLIC_KEY;
      return !(findBool(template, CKA.CKA_PRIVATE) ?? !publicByNature);
    };
    return ["template", "publicTemplate", "privateTemplate"].every(makesPublic) ? null : CKR.CKR_USER_NOT_LOGGED_IN;
  }

  /** Gives new objects handles of this client, and forgets what a change has made untrue. */
  async function adopt(
    session: Session,
    real: bigint,
    call: AnyCall,
    given: AnyArgs,
    mapped: AnyArgs,
    answer: AnyResult,
    ctx: CallContext,
  ): Promise<AnyResult> {
    if (answer.rv !== CKR.CKR_OK) return answer;
    if (call.name === "C_SetAttributeValue") objects.forget(session.slot, mapped["object"] as bigint);
    const gone = call.name === "C_DestroyObject" ? byHandle.get(given["object"] as bigint) : undefined;
    if (gone !== undefined) objects.destroyed(gone);
    if (call.name === "C_SetPIN") await desk.pinChanged(session.slot, mapped["newPin"] as Buffer | null);
    const made: Record<string, bigint> = {};
    for (const name of call.outs) {
      const object = answer[name];
      if (typeof object !== "bigint" || !isObjectName(name)) continue;
      // What is known under this number is an object that has gone, or this one when it was still nobody's.
      objects.forget(session.slot, object);
      const record = await objects.describe(session.slot, real, object, ownerIn(session), age(session.slot), ctx);
      if (record === null) return { rv: CKR.CKR_DEVICE_ERROR };
      if (record.owner !== null && session.real !== null) session.real.hasObjects = true;
      made[name] = handleOf(record);
    }
    return { ...answer, ...made };
  }

  // Here and on the way to here no function is async that need not be: this is what each signature passes, twice.
  function pass(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> | AnyResult {
    // A handle inside a parameter would reach the module untranslated: another client's object.
    if ((args["mechanism"] as Mechanism | null | undefined)?.type === CKM.CKM_IBM_ATTRIBUTEBOUND_WRAP)
      return { rv: CKR.CKR_MECHANISM_PARAM_INVALID };
    const refused = refusedWithoutLogin(session, call, args);
    if (refused !== null) return { rv: refused };
    const held = leavesOperations(call) ? null : signs.take(session);
    if (held === null) return isHeldAtOnce(session, call, args, ctx) ? { rv: CKR.CKR_OK } : passOn(session, call, args, ctx);
    if (GOES_ON.has(call.name)) return signs.goOn(session, held, call, args, ctx);
    return signs.begin(session, held, ctx).then(() => passOn(session, call, args, ctx));
  }

  /** A C_SignInit about which nothing has to be asked: what `passOne` would find out and do, without waiting. */
  function isHeldAtOnce(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): boolean {
    const { key, mechanism } = args;
    if (call.name !== "C_SignInit" || typeof key !== "bigint" || !mechanism || !table.isPresent(session, ctx)) return false;
    const record = lookUp(session, key);
    if (record === undefined || objects.known(record, age(session.slot)) === null) return false;
    return signs.hold(session, { record, mechanism: mechanism as Mechanism });
  }

  /** `pass`, with nothing held back. */
  function passOn(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
    if (signs.isInTheWay(session, call) || isSearched(session, args))
      return signs.clear(session, ctx).then(() => passOn(session, call, args, ctx));
    if (call.class === "mutation") proofs.clear();
    if (keyUses.goesOn(session, call)) {
      const open = (lost?: boolean) => table.real(session, ctx, lost);
      return keyUses.goOn(session, call, args, open, ctx, () => toModule(session, call, args, ctx));
    }
    if (call.phase === "init" && beginsKeyUse(session, args)) {
      return keyUses.begin(session, call, ctx, () => toModule(session, call, args, ctx));
    }
    return call.name === "C_Sign" ? signBegun(session, call, args, ctx) : toModule(session, call, args, ctx);
  }

  /** The object has to be found first, and a search must not find a signature that was begun ahead. */
  function isSearched(session: Session, { object }: AnyArgs): boolean {
    if (session.real === null || session.real.ahead === null || typeof object !== "bigint") return false;
    const record = lookUp(session, object);
    return record !== undefined && objects.known(record, age(session.slot)) === null;
  }

  /** C_Sign, for what the module knows of. */
  async function signBegun(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
    const generation = desk.generation(session.slot);
    const start = session.real?.begun ?? null;
    const answer = await toModule(session, call, args, ctx);
    if (answer.rv !== CKR.CKR_USER_NOT_LOGGED_IN || start === null || !isUser(session.slot)) return answer;
    // A card that was reset says so only here, with no signature made: what the client has begun is begun once more.
    const rv = await table.renew(session.slot, ctx, generation);
    return rv === CKR.CKR_OK && session.real !== null
      ? signs.goOn(session, signs.again(session, session.real, start), call, args, ctx)
      : { rv };
  }

  function toModule(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
    const sent = { privateHandle: false };
    return table.run(
      session,
      ctx,
      () => call.phase === "init" || call.phase === "none",
      (real) => passOne(session, real, call, args, ctx, sent),
      ({ rv }) => sent.privateHandle && (rv === CKR.CKR_KEY_HANDLE_INVALID || rv === CKR.CKR_OBJECT_HANDLE_INVALID),
    );
  }

  function beginsKeyUse(session: Session, args: AnyArgs): boolean {
    const { key } = args;
    return typeof key === "bigint" && lookUp(session, key)?.alwaysAuthenticate === true;
  }

  /** The call on the module, with its own handles; a C_SignInit that is sure to succeed is held back. */
  async function passOne(
    session: Session,
    real: bigint,
    call: AnyCall,
    args: AnyArgs,
    ctx: CallContext,
    sent: { privateHandle: boolean },
  ): Promise<AnyResult> {
    sent.privateHandle = false;
    const state = session.real;
    const mapped: Record<string, unknown> = { ...args, session: real };
    let used: ObjectRecord | null = null;
    let usesPrivate = false;
    for (const name of call.args) {
      const given = mapped[name];
      if (typeof given !== "bigint" || !isObjectName(name) || given === NO_HANDLE) continue;
      const record = lookUp(session, given);
      const known = record === undefined ? null : objects.known(record, age(session.slot));
      const found = record === undefined ? null : (known ?? (await objects.resolve(record, real, age(session.slot), ctx)));
      if (record === undefined || found === null)
        return { rv: name === "object" ? CKR.CKR_OBJECT_HANDLE_INVALID : CKR.CKR_KEY_HANDLE_INVALID };
      mapped[name] = found;
      used = record;
      usesPrivate ||= record.private;
    }
    const mechanism = args["mechanism"] as Mechanism | null | undefined;
    const start = call.name === "C_SignInit" && used !== null && mechanism ? { record: used, mechanism } : null;
    if (start !== null && signs.hold(session, start)) return { rv: CKR.CKR_OK };
    sent.privateHandle = usesPrivate;
    const answer = (await host.cryptoki.call(call.name, mapped as CallArgs, ctx)) as AnyResult;
    signs.follow(session, state, call, args, answer, start);
    if (call.phase === "init" && answer.rv === CKR.CKR_OK) session.usesPrivate ||= usesPrivate;
    return adopt(session, real, call, args, mapped, answer, ctx);
  }

  return {
    async findInit(session, args, ctx) {
      if (session.found !== null) return { rv: CKR.CKR_OPERATION_ACTIVE };
      await signs.settle(session, ctx);
      return table.run(session, ctx, always, async (real) => {
        const { rv, objects: found } = await findAll(host.cryptoki, real, args.template, ctx);
        if (rv !== CKR.CKR_OK) return { rv };
        const mine: bigint[] = [];
        for (const object of found) {
          const record = await objects.describe(session.slot, real, object, NOBODY, age(session.slot), ctx);
          if (record === null || !sees(record)) continue;
          // What may not be read may not be searched for either: a search would tell its value bit by bit.
          if (args.template.every((attribute) => visibility.attribute(record, attribute.type))) mine.push(handleOf(record));
        }
        session.found = mine;
        return { rv: CKR.CKR_OK };
      });
    },
    findNext(session, args) {
      if (session.found === null) return { rv: CKR.CKR_OPERATION_NOT_INITIALIZED };
      if (args.room === null) return { rv: CKR.CKR_ARGUMENTS_BAD };
      return { rv: CKR.CKR_OK, objects: session.found.splice(0, args.room) };
    },
    findFinal(session) {
      if (session.found === null) return { rv: CKR.CKR_OPERATION_NOT_INITIALIZED };
      session.found = null;
      return { rv: CKR.CKR_OK };
    },
    async read(session, args, ctx) {
      const record = lookUp(session, args.object);
      if (record === undefined) return { rv: CKR.CKR_OBJECT_HANDLE_INVALID };
      const call = callByName("C_GetAttributeValue");
      const open = args.query.filter((query) => visibility.attribute(record, query.type));
      if (open.length === args.query.length) return pass(session, call, args, ctx);
      const answer = open.length === 0 ? { rv: CKR.CKR_OK, attributes: [] } : await pass(session, call, { ...args, query: open }, ctx);
      const given = (answer as AnyResult)["attributes"] as readonly Attribute[] | undefined;
      if (given === undefined) return answer;
      // In order, not by type: the same one may be asked twice, its length and its value.
      let next = 0;
      const attributes = args.query.map(
        ({ type }) => (visibility.attribute(record, type) ? given[next++] : undefined) ?? unavailableAttribute(type),
      );
      return { rv: answer.rv === CKR.CKR_OK ? CKR.CKR_ATTRIBUTE_SENSITIVE : answer.rv, attributes };
    },
    pass,
    loginForKey: keyUses.login,
    settle: signs.settle,
    clear() {
      byHandle.clear();
      handles.clear();
    },
  };
}
