/*
 * A token host without a process, for what SoftHSM cannot be made to do: handles that are given out again, tokens that
 * are pulled and swapped, a person who says no. It keeps the rules of PKCS#11 that the session layer leans on.
 */
import { createEmitter } from "../../src/base/events.js";
import { CKA, findBool, findBytes, ulongAttribute, unavailableAttribute } from "../../src/cryptoki/attributes.js";
import type { CallName } from "../../src/cryptoki/calls.js";
import { CKF, CKS, CKU } from "../../src/cryptoki/constants.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, AttributeQuery, Origin } from "../../src/cryptoki/types.js";
import type { HostEvents, KeepGuard, TokenHost, UnlockRequest, UnlockResult } from "../../src/token/host/host.js";
import { createSteps } from "../../src/token/host/steps.js";

interface FakeObject {
  readonly slot: bigint;
  /** null for a token object. */
  readonly session: bigint | null;
  readonly attributes: readonly Attribute[];
}

export interface FakeTokenHost extends TokenHost {
  readonly pins: Map<bigint, string>;
  /** Flags of C_GetTokenInfo, all slots. */
  flags: bigint;
  /** PINs that the token has looked at. */
  tries: number;
  /** Questions put, in order. */
  readonly asked: string[];
  /** The person's answer to a PIN question, and to a yes-or-no one. */
  onUnlock: (request: UnlockRequest, signal: AbortSignal) => Promise<UnlockResult>;
  onConfirm: (question: string) => Promise<boolean>;
  /** Calls that reached the module, by name. */
  readonly calls: string[];
  /** The pairs among them, as `C_SignInit C_Sign`. */
  readonly pairs: string[];
  /** How often a C_SignInit was made ahead. */
  ahead: number;
  /** What the next call of a name answers, in place of being made. */
  readonly refusals: Map<string, number>;
  /** Who is really logged in. */
  readonly users: Map<bigint, bigint>;
  readonly sessions: Map<bigint, bigint>;
  addObject(slot: bigint, attributes: readonly Attribute[]): bigint;
  /** Whether nobody has something under way that a release would end. */
  mayRelease(quietMs?: number): boolean;
  /** Another process: no session, no log-in, and the token's objects under other handles than before. */
  restart(): void;
  /** Serial numbers by slot; empty where there is none. */
  readonly serials: Map<bigint, string>;
  /** The token is pulled and another, or the same, put in. */
  swap(slot: bigint, pin: string, serial?: string): void;
  /** Ends the operations of all sessions when this call is refused next: what a failed C_Sign does. */
  endOperationsAt(name: CallName): void;
  /** The card forgets its log-in. */
  reset(slot: bigint): void;
}

/** The lowest number that is free, as modules that reuse handles give it. */
function lowest(taken: { has(handle: bigint): boolean }): bigint {
  let handle = 1n;
  while (taken.has(handle)) handle += 1n;
  return handle;
}

const tokenNames = (serial: string) => ({
  label: Buffer.from("work"),
  manufacturer: Buffer.alloc(0),
  model: Buffer.alloc(0),
  serial: Buffer.from(serial),
});

export function createFakeTokenHost(pins: Readonly<Record<number, string>>): FakeTokenHost {
  const events = createEmitter<HostEvents>();
  const objects = new Map<bigint, FakeObject>();
  const sessions = new Map<bigint, bigint>();
  const users = new Map<bigint, bigint>();
  const searches = new Map<bigint, bigint[]>();
  /** The sessions in which a signature is under way. */
  const signing = new Set<bigint>();
  /** The sessions whose key takes a log-in of its own, and whether the card has one: any command of another session ends it. */
  const keyLogins = new Map<bigint, boolean>();
  const guards: KeepGuard[] = [];
  const endingAt = new Set<CallName>();
  let epoch = 0;

  function endSession(session: bigint): void {
    const slot = sessions.get(session);
    sessions.delete(session);
    signing.delete(session);
    keyLogins.delete(session);
    for (const [handle, object] of objects) if (object.session === session) objects.delete(handle);
    if (slot !== undefined && ![...sessions.values()].includes(slot)) users.delete(slot);
  }

  function create(slot: bigint, session: bigint, attributes: readonly Attribute[]): bigint {
    const handle = lowest(objects);
    const isToken = findBool(attributes, CKA.CKA_TOKEN) === true;
    objects.set(handle, { slot, session: isToken ? null : session, attributes });
    return handle;
  }

  function matches(object: FakeObject, template: readonly Attribute[]): boolean {
    if (findBool(object.attributes, CKA.CKA_PRIVATE) === true && users.get(object.slot) !== CKU.CKU_USER) return false;
    return template.every(({ type, value }) => Buffer.isBuffer(value) && findBytes(object.attributes, type)?.equals(value) === true);
  }

  function loginForKey(session: bigint): void {
    if (keyLogins.has(session)) keyLogins.set(session, true);
  }

  function login(slot: bigint, args: AnyArgs): AnyResult {
    host.tries += 1;
    const userType = args["userType"] as bigint;
    if (userType !== CKU.CKU_CONTEXT_SPECIFIC && users.has(slot)) return { rv: CKR.CKR_USER_ALREADY_LOGGED_IN };
    if ((args["pin"] as Buffer).toString() !== host.pins.get(slot)) return { rv: CKR.CKR_PIN_INCORRECT };
    if (userType === CKU.CKU_CONTEXT_SPECIFIC) loginForKey(args["session"] as bigint);
    else users.set(slot, userType);
    return { rv: CKR.CKR_OK };
  }

  function inSession(name: CallName, session: bigint, slot: bigint, args: AnyArgs): AnyResult {
    const object = objects.get((args["object"] ?? args["key"] ?? 0n) as bigint);
    switch (name) {
      case "C_CloseSession":
        endSession(session);
        return { rv: CKR.CKR_OK };
      case "C_Login":
        return login(slot, args);
      case "C_Logout":
        return { rv: users.delete(slot) ? CKR.CKR_OK : CKR.CKR_USER_NOT_LOGGED_IN };
      case "C_GetSessionInfo":
        return { rv: CKR.CKR_OK, slot, state: users.has(slot) ? CKS.CKS_RO_USER_FUNCTIONS : CKS.CKS_RO_PUBLIC_SESSION, flags: 4n };
      case "C_FindObjectsInit": {
        const template = args["template"] as readonly Attribute[];
        const found = [...objects].filter(([, each]) => each.slot === slot && matches(each, template));
        searches.set(
          session,
          found.map(([handle]) => handle),
        );
        return { rv: CKR.CKR_OK };
      }
      case "C_FindObjects":
        return { rv: CKR.CKR_OK, objects: searches.get(session)?.splice(0) ?? [] };
      case "C_FindObjectsFinal":
        searches.delete(session);
        return { rv: CKR.CKR_OK };
      case "C_CreateObject":
        return { rv: CKR.CKR_OK, object: create(slot, session, args["template"] as readonly Attribute[]) };
      case "C_DestroyObject":
        return { rv: objects.delete(args["object"] as bigint) ? CKR.CKR_OK : CKR.CKR_OBJECT_HANDLE_INVALID };
      case "C_GetAttributeValue": {
        if (object === undefined) return { rv: CKR.CKR_OBJECT_HANDLE_INVALID };
        const attributes = (args["query"] as readonly AttributeQuery[]).map(({ type, room }): Attribute => {
          const known = object.attributes.find((attribute) => attribute.type === type);
          return known === undefined ? unavailableAttribute(type) : room === null ? { ...known, value: null } : known;
        });
        return { rv: CKR.CKR_OK, attributes };
      }
      case "C_SignInit":
        if (signing.has(session)) return { rv: CKR.CKR_OPERATION_ACTIVE };
        if (object === undefined) return { rv: CKR.CKR_KEY_HANDLE_INVALID };
        if (findBool(object.attributes, CKA.CKA_PRIVATE) === true && !users.has(slot)) return { rv: CKR.CKR_USER_NOT_LOGGED_IN };
        signing.add(session);
        if (findBool(object.attributes, CKA.CKA_ALWAYS_AUTHENTICATE) === true) keyLogins.set(session, false);
        return { rv: CKR.CKR_OK };
      case "C_SignUpdate":
        return { rv: signing.has(session) ? CKR.CKR_OK : CKR.CKR_OPERATION_NOT_INITIALIZED };
      case "C_Sign":
      case "C_SignFinal": {
        if (!signing.has(session)) return { rv: CKR.CKR_OPERATION_NOT_INITIALIZED };
        const loggedIn = keyLogins.get(session) ?? true;
        if (!loggedIn) {
          signing.delete(session);
          keyLogins.delete(session);
          return { rv: CKR.CKR_USER_NOT_LOGGED_IN };
        }
        const output = Buffer.from("signature");
        const room = args["room"] as number | null;
        if (room === null) return { rv: CKR.CKR_OK, output: output.length };
        if (room < output.length) return { rv: CKR.CKR_BUFFER_TOO_SMALL, output: output.length };
        signing.delete(session);
        keyLogins.delete(session);
        return { rv: CKR.CKR_OK, output };
      }
      case "C_SetPIN":
        host.tries += 1;
        return { rv: (args["oldPin"] as Buffer).toString() === host.pins.get(slot) ? CKR.CKR_OK : CKR.CKR_PIN_INCORRECT };
      default:
        return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED };
    }
  }

  function answer(name: CallName, args: AnyArgs): AnyResult {
    host.calls.push(name);
    const refusal = host.refusals.get(name);
    if (refusal !== undefined) {
      host.refusals.delete(name);
      if (endingAt.delete(name)) signing.clear();
      return { rv: refusal };
    }
    const session = args["session"];
    for (const other of keyLogins.keys()) if (other !== session) keyLogins.set(other, false);
    if (typeof session === "bigint") {
      const slot = sessions.get(session);
      return slot === undefined ? { rv: CKR.CKR_SESSION_HANDLE_INVALID } : inSession(name, session, slot, args);
    }
    switch (name) {
      case "C_GetSlotList":
        return { rv: CKR.CKR_OK, slots: [...host.pins.keys()] };
      case "C_GetTokenInfo":
        return { rv: CKR.CKR_OK, flags: host.flags, ...tokenNames(host.serials.get(args["slot"] as bigint) ?? "") };
      case "C_OpenSession": {
        const handle = lowest(sessions);
        sessions.set(handle, args["slot"] as bigint);
        return { rv: CKR.CKR_OK, session: handle };
      }
      case "C_WaitForSlotEvent":
        return { rv: CKR.CKR_OK, slot: 2n };
      default:
        return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED };
    }
  }

  const driver = { call: (name: CallName, args: object) => answer(name, args as AnyArgs) as never };
  // A token that is as quick as can be, however busy the machine is.
  const steps = createSteps(driver, { observe() {} }, () => 0);

  const host: FakeTokenHost = {
    pins: new Map(Object.entries(pins).map(([slot, pin]) => [BigInt(slot), pin])),
    serials: new Map(),
    flags: CKF.CKF_TOKEN_INITIALIZED,
    tries: 0,
    asked: [],
    calls: [],
    pairs: [],
    ahead: 0,
    refusals: new Map(),
    users,
    sessions,
    // A PIN that is typed rightly, unless the test says otherwise.
    onUnlock: async ({ slot, session, userType, lost = false }) => {
      if (userType === CKU.CKU_CONTEXT_SPECIFIC) {
        loginForKey(session);
        return { rv: CKR.CKR_OK, asked: true };
      }
      if (lost) users.delete(slot);
      const asked = users.get(slot) !== CKU.CKU_USER;
      users.set(slot, CKU.CKU_USER);
      return { rv: CKR.CKR_OK, asked };
    },
    onConfirm: async () => true,
    cryptoki: {
      events,
      close: async () => undefined,
      async call(name, args, ctx) {
        // One crossing of the pipe: whatever else is due happens first.
        await new Promise((resolve) => setImmediate(resolve));
        if (ctx.signal.aborted) return { rv: CKR.CKR_FUNCTION_CANCELED } as never;
        return steps.make({ kind: "call", id: 0, name, args }, true).result as never;
      },
    },
    async pair(first, then, ctx, again = false) {
      await new Promise((resolve) => setImmediate(resolve));
      if (ctx.signal.aborted) return { result: { rv: CKR.CKR_FUNCTION_CANCELED }, begun: false, ahead: false };
      host.pairs.push(`${first.name} ${then.name}`);
      const { result, begun = true, ahead = false } = steps.make({ kind: "call", id: 0, ...then, first, again }, true);
      // Before anything else can be called: the answer has left.
      steps.goAhead();
      if (ahead) host.ahead += 1;
      return { result, begun, ahead };
    },
    async unlock(request, ctx) {
      host.asked.push(`pin for ${request.who}`);
      return host.onUnlock(request, ctx.signal);
    },
    async confirm(question) {
      host.asked.push(question);
      return host.onConfirm(question);
    },
    canAsk: async () => true,
    async lock(slot) {
      host.calls.push("lock");
      users.delete(slot);
    },
    keep: (guard) => void guards.push(guard),
    mayRelease: (quietMs = 60_000) => !guards.some((guard) => guard(quietMs)),
    get epoch() {
      return epoch;
    },
    pid: undefined,
    events,
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
    addObject: (slot, attributes) => create(slot, 0n, [...attributes, { type: CKA.CKA_TOKEN, value: Buffer.from([1]), length: 1 }]),
    restart() {
      for (const session of [...sessions.keys()]) endSession(session);
      users.clear();
      const kept = [...objects.values()].reverse();
      objects.clear();
      kept.forEach((object, index) => void objects.set(BigInt(index + 1), object));
      epoch += 1;
      events.emit("epoch", { epoch });
    },
    swap(slot, pin, serial = host.serials.get(slot) ?? "") {
      host.serials.set(slot, serial);
      for (const [session, where] of [...sessions]) if (where === slot) endSession(session);
      users.delete(slot);
      host.pins.set(slot, pin);
      events.emit("token-gone", { slot });
      events.emit("token-in", { slot });
    },
    endOperationsAt: (name) => void endingAt.add(name),
    reset: (slot) => void users.delete(slot),
  };
  return host;
}

/** The attributes of an object with this class, label and privacy. */
export function fakeAttributes(cls: bigint, label: string, isPrivate: boolean): Attribute[] {
  const bytes = (type: number, value: Buffer): Attribute => ({ type, value, length: value.length });
  return [
    ulongAttribute(CKA.CKA_CLASS, cls),
    bytes(CKA.CKA_PRIVATE, Buffer.from([isPrivate ? 1 : 0])),
    bytes(CKA.CKA_LABEL, Buffer.from(label)),
  ];
}

/** The origin of a forward to this destination. */
export function forwardOrigin(destination: string, port = 22): Origin {
  return { kind: "forward", destination, user: "ops", host: destination, port, hostKeySha256: "SHA256:x", connectId: "1" };
}
