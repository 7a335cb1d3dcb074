/*
 * The Cryptoki of one client over the shared host: which call is answered from the client's own state, and which goes
 * to the module. Slots, sessions and the log-in are here; objects are in object-calls.ts.
 */
import { createEmitter } from "../base/events.js";
import { type AnyCall, callByName } from "../cryptoki/calls.js";
import { CKF, CKU } from "../cryptoki/constants.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallArgs, CallContext, Cryptoki, CryptokiEvents } from "../cryptoki/types.js";
import type { Shared, Visibility } from "./broker.js";
import { presentTokenFlags } from "./login.js";
import { createObjectCalls } from "./object-calls.js";
import { createSessionTable, inTurn, type Session, sessionInfo } from "./session-table.js";

const MAX_SLOTS = 1_024;

const fail = (rv: number): AnyResult => ({ rv });
const answered = (rv: number): Promise<never> => Promise.resolve({ rv } as never);

/** See TokenBroker.createClient. */
export function createClientCryptoki(shared: Shared, client: string, visibility: Visibility): Cryptoki {
  const { host, desk, objects, proofs, tables } = shared;
  const table = createSessionTable(shared);
  const objectCalls = createObjectCalls(shared, table, client, visibility);
  const events = createEmitter<CryptokiEvents>();
  const names = ["token-in", "token-gone", "touch", "locked", "epoch"] as const;
  const stops = names.map((name) => host.events.on(name, (event) => events.emit(name, event)));
  tables.add(table);
  let closed = false;
  let lastContext: CallContext | null = null;

  const othersHold = (slot: bigint) => [...tables].some((other) => other !== table && other.ofSlot(slot).length > 0);

  async function visibleSlots(tokenPresent: number, ctx: CallContext): Promise<{ rv: number; slots: readonly bigint[] }> {
    const answer = await host.cryptoki.call("C_GetSlotList", { tokenPresent, room: MAX_SLOTS }, ctx);
    const slots = Array.isArray(answer.slots) ? (answer.slots as readonly bigint[]) : [];
    return { rv: answer.rv, slots: slots.filter(visibility.slot) };
  }

  async function listSlots(args: CallArgs<"C_GetSlotList">, ctx: CallContext): Promise<AnyResult> {
    const { rv, slots } = await visibleSlots(args.tokenPresent, ctx);
    if (rv !== CKR.CKR_OK) return fail(rv);
    if (args.room === null) return { rv, slots: slots.length };
    return slots.length > args.room ? { rv: CKR.CKR_BUFFER_TOO_SMALL, slots: slots.length } : { rv, slots };
  }

  async function tokenInfo(args: CallArgs<"C_GetTokenInfo">, ctx: CallContext): Promise<AnyResult> {
    const info = await host.cryptoki.call("C_GetTokenInfo", args, ctx);
    if (info.rv !== CKR.CKR_OK || info.flags === undefined) return info;
    const mine = table.ofSlot(args.slot);
    const writing = mine.filter((session) => (session.flags & CKF.CKF_RW_SESSION) !== 0n);
    return {
      ...info,
      flags: presentTokenFlags(info.flags, desk.mode),
      sessionCount: BigInt(mine.length),
      rwSessionCount: BigInt(writing.length),
    };
  }

  async function openSession(args: CallArgs<"C_OpenSession">, ctx: CallContext): Promise<AnyResult> {
    const readOnly = (args.flags & CKF.CKF_RW_SESSION) === 0n;
    if (readOnly && table.users.get(args.slot) === CKU.CKU_SO) return fail(CKR.CKR_SESSION_READ_WRITE_SO_EXISTS);
    const { rv, session } = await table.open(args.slot, args.flags, ctx);
    return session === null ? fail(rv) : { rv, session: session.handle };
  }

  async function closeAllSessions(slot: bigint, ctx: CallContext): Promise<AnyResult> {
    const { rv, slots } = await visibleSlots(0, ctx);
    if (rv !== CKR.CKR_OK) return fail(rv);
    if (!slots.includes(slot)) return fail(CKR.CKR_SLOT_ID_INVALID);
    for (const session of table.ofSlot(slot)) await table.close(session, ctx);
    return fail(CKR.CKR_OK);
  }

  async function initToken(call: AnyCall, args: CallArgs<"C_InitToken">, ctx: CallContext): Promise<AnyResult> {
    if (othersHold(args.slot) || table.ofSlot(args.slot).length > 0) return fail(CKR.CKR_SESSION_EXISTS);
    // A PIN that a client sends is used only where PINs are the client's business.
    if (desk.mode === "ask") return fail(CKR.CKR_FUNCTION_NOT_SUPPORTED);
    return desk.withPin(args.slot, CKU.CKU_SO, ctx, async () => {
      await desk.drop(args.slot, null, ctx);
      const answer = (await host.cryptoki.call(call.name, args as CallArgs, ctx)) as AnyResult;
      objects.forgetSlot(args.slot);
      proofs.clear();
      return answer;
    });
  }

  async function login(session: Session, args: CallArgs<"C_Login">, ctx: CallContext): Promise<AnyResult> {
    const { slot } = session;
    const open = (lost?: boolean) => table.real(session, ctx, lost);
    const before = table.users.get(slot);
    if (args.userType === CKU.CKU_CONTEXT_SPECIFIC) {
      if (before === undefined) return fail(CKR.CKR_USER_NOT_LOGGED_IN);
      await objectCalls.settle(session, ctx);
      return objectCalls.loginForKey(session, open, args.pin, ctx).then(fail);
    }
    if (args.userType !== CKU.CKU_USER && args.userType !== CKU.CKU_SO) return fail(CKR.CKR_USER_TYPE_INVALID);
    if (before === args.userType) return fail(CKR.CKR_USER_ALREADY_LOGGED_IN);
    if (before !== undefined) return fail(CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
    if (args.userType === CKU.CKU_SO && desk.mode === "client") {
      if (table.ofSlot(slot).some((other) => (other.flags & CKF.CKF_RW_SESSION) === 0n)) return fail(CKR.CKR_SESSION_READ_ONLY_EXISTS);
      // The SO has the token alone: nobody else's log-in may end for it.
      if (othersHold(slot)) return fail(CKR.CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
      await desk.drop(slot, open, ctx);
    }
    const rv = await desk.login(slot, open, args.userType, args.pin, ctx);
    if (rv === CKR.CKR_OK) table.users.set(slot, args.userType);
    return fail(rv);
  }

  async function setPin(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
    if (desk.mode === "ask") return fail(CKR.CKR_FUNCTION_NOT_SUPPORTED);
    const whose = table.users.get(session.slot) ?? CKU.CKU_USER;
    return desk.withPin(session.slot, whose, ctx, async () => objectCalls.pass(session, call, args, ctx));
  }

  /** Events are the module's and told once, so a slot that this client may not see is no event for it. */
  async function slotEvent(args: CallArgs<"C_WaitForSlotEvent">, ctx: CallContext): Promise<AnyResult> {
    const event = await host.cryptoki.call("C_WaitForSlotEvent", args, ctx);
    return event.slot === undefined || visibility.slot(event.slot) ? event : fail(CKR.CKR_NO_EVENT);
  }

  async function logout(session: Session, ctx: CallContext): Promise<AnyResult> {
    if (!table.users.delete(session.slot)) return fail(CKR.CKR_USER_NOT_LOGGED_IN);
    await desk.logout(session.slot, () => table.real(session, ctx), ctx);
    for (const other of table.ofSlot(session.slot)) if (other.usesPrivate) await table.release(other, ctx);
    return fail(CKR.CKR_OK);
  }

  function inSession(session: Session, call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> | AnyResult {
    switch (call.name) {
      case "C_CloseSession":
        return table.close(session, ctx).then(() => fail(CKR.CKR_OK));
      case "C_GetSessionInfo":
        return sessionInfo(session, table.users.get(session.slot));
      case "C_Login":
        return login(session, args as CallArgs<"C_Login">, ctx);
      case "C_LoginUser":
        return fail(CKR.CKR_FUNCTION_NOT_SUPPORTED);
      case "C_InitPIN":
        return desk.mode === "ask" ? fail(CKR.CKR_FUNCTION_NOT_SUPPORTED) : objectCalls.pass(session, call, args, ctx);
      case "C_SetPIN":
        return setPin(session, call, args, ctx);
      case "C_Logout":
        return logout(session, ctx);
      case "C_FindObjectsInit":
        return objectCalls.findInit(session, args as CallArgs<"C_FindObjectsInit">, ctx);
      case "C_FindObjects":
        return objectCalls.findNext(session, args as CallArgs<"C_FindObjects">);
      case "C_FindObjectsFinal":
        return objectCalls.findFinal(session);
      case "C_GetAttributeValue":
        return objectCalls.read(session, args as CallArgs<"C_GetAttributeValue">, ctx);
      default:
        return objectCalls.pass(session, call, args, ctx);
    }
  }

  async function withoutSession(call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
    const slot = args["slot"];
    if (typeof slot === "bigint" && !visibility.slot(slot)) return fail(CKR.CKR_SLOT_ID_INVALID);
    switch (call.name) {
      case "C_Initialize":
        return fail(CKR.CKR_OK); // the host has initialised the module, once for all clients
      case "C_Finalize":
        await endAll(ctx);
        return fail(CKR.CKR_OK);
      case "C_GetSlotList":
        return listSlots(args as CallArgs<"C_GetSlotList">, ctx);
      case "C_GetTokenInfo":
        return tokenInfo(args as CallArgs<"C_GetTokenInfo">, ctx);
      case "C_OpenSession":
        return openSession(args as CallArgs<"C_OpenSession">, ctx);
      case "C_CloseAllSessions":
        return closeAllSessions(slot as bigint, ctx);
      case "C_WaitForSlotEvent":
        return slotEvent(args as CallArgs<"C_WaitForSlotEvent">, ctx);
      case "C_InitToken":
      case "C_InitToken2":
        return initToken(call, args as CallArgs<"C_InitToken">, ctx);
      default:
        return (await host.cryptoki.call(call.name, args as CallArgs, ctx)) as AnyResult;
    }
  }

  async function endAll(ctx: CallContext): Promise<void> {
    await table.closeAll(ctx);
    objectCalls.clear();
    objects.forgetOwner(client);
  }

  return {
    events,
    call(name, args, ctx) {
      lastContext = ctx;
      if (closed) return answered(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
      const call = callByName(name);
      const given = args as AnyArgs;
      if (call.args[0] !== "session") return withoutSession(call, given, ctx) as Promise<never>;
      const session = table.get(given["session"] as bigint);
      if (session === undefined) return answered(CKR.CKR_SESSION_HANDLE_INVALID);
      // What was opened on a token that is hidden by now must not go on, on whatever lies in that slot.
      if (!visibility.slot(session.slot) && name !== "C_CloseSession") return answered(CKR.CKR_DEVICE_REMOVED);
      const answer = inTurn(session, () =>
        table.get(session.handle) === session ? inSession(session, call, given, ctx) : fail(CKR.CKR_SESSION_HANDLE_INVALID),
      );
      return (answer instanceof Promise ? answer : Promise.resolve(answer)) as Promise<never>;
    },
    async close() {
      if (closed) return;
      closed = true;
      for (const stop of stops) stop();
      if (lastContext !== null) {
        await Promise.all(table.all().map((session) => inTurn(session, () => undefined)));
        // Its own signal: the client's has ended by now, and that must not stop the cleaning up.
        await endAll({ ...lastContext, signal: new AbortController().signal });
      }
      desk.leave(client);
      tables.delete(table);
    },
  };
}
