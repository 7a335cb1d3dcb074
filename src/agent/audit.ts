/*
 * Says what was done: one event for each use of a private key, whatever the call that finished it. It changes nothing
 * and never holds data, signatures or PINs.
 */

import { printable } from "../base/printable.js";
import { CKA, findBytes } from "../cryptoki/attributes.js";
import { type AnyCall, type CallName, callByName } from "../cryptoki/calls.js";
import { mechanismName } from "../cryptoki/mechanisms.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallContext, Cryptoki, Mechanism, Origin } from "../cryptoki/types.js";

/** One use of a private key. `key` is its label, else its id in hex; texts are printable. */
export interface KeyUse {
  readonly client: string;
  readonly key: string;
  readonly mechanism: string;
  readonly call: string;
  readonly ok: boolean;
  readonly rv: number;
  readonly origin: Origin;
}

const MAX_LABEL_BYTES = 256;

interface Operation {
  readonly key: bigint;
  readonly mechanism: string;
  /** Plain text has come out of it already. */
  reported: boolean;
}

/** What runs beside other operations of a session: signing, signing with recovery, decryption. */
function kindOf({ class: cls, name }: AnyCall): string {
  return `${cls}${name.includes("Recover") ? " with recovery" : ""}`;
}

/** The argument that carries the private key, by call. */
function keyArgument(args: AnyArgs): bigint | undefined {
  const key = args["key"] ?? args["baseKey"] ?? args["unwrappingKey"] ?? args["wrappingKey"];
  return typeof key === "bigint" ? key : undefined;
}

/** A Cryptoki that reports each finished private-key operation to `onUse`. */
export function createAudit(inner: Cryptoki, onUse: (use: KeyUse) => void): Cryptoki {
  /** What runs in each open session, by kind of operation: a session may have one of each. */
  const sessions = new Map<bigint, { readonly slot: bigint; readonly running: Map<string, Operation> }>();
  const names = new Map<bigint, string>();

  async function nameOf(session: bigint, object: bigint, ctx: CallContext): Promise<string> {
    const known = names.get(object);
    if (known !== undefined) return known;
    const query = [CKA.CKA_LABEL, CKA.CKA_ID].map((type) => ({ type, room: MAX_LABEL_BYTES }));
    const { attributes } = await inner.call("C_GetAttributeValue", { session, object, query }, ctx);
    const label = printable(findBytes(attributes ?? [], CKA.CKA_LABEL) ?? "");
    const name = label === "" ? `id ${findBytes(attributes ?? [], CKA.CKA_ID)?.toString("hex") ?? "unknown"}` : label;
    // A module that has just died could not say: the next use asks again.
    if (attributes !== undefined) names.set(object, name);
    return name;
  }

  /** Follows which sessions there are: operations die with theirs. */
  function follow(name: CallName, args: AnyArgs, answer: AnyResult): void {
    if (answer.rv !== CKR.CKR_OK) return;
    const slot = args["slot"] as bigint;
    if (name === "C_OpenSession") sessions.set(answer["session"] as bigint, { slot, running: new Map() });
    else if (name === "C_CloseSession") sessions.delete(args["session"] as bigint);
    else if (name === "C_CloseAllSessions") for (const [handle, session] of sessions) session.slot === slot && sessions.delete(handle);
    else if (name === "C_Finalize") sessions.clear();
  }

  return {
    events: inner.events,
    close: () => inner.close(),
    async call(name, args, ctx) {
      const call = callByName(name);
      const given = args as AnyArgs;
      const session = given["session"] as bigint;
      const uses = call.class === "sign" || call.class === "decrypt" || name === "C_UnwrapKey" || name === "C_WrapKey";
      const answer = (await inner.call(name, args, ctx)) as AnyResult;
      follow(name, given, answer);
      if (!uses) return answer as never;
      const running = sessions.get(session)?.running;
      const key = keyArgument(given);
      const kind = kindOf(call);
      const type = (given["mechanism"] as Mechanism | null | undefined)?.type;
      const mechanism = type === undefined ? "none" : mechanismName(type);
      if (call.phase === "init") {
        if (answer.rv === CKR.CKR_OK && key !== undefined) running?.set(kind, { key, mechanism, reported: false });
        return answer as never;
      }
      const operation = key === undefined ? running?.get(kind) : { key, mechanism, reported: false };
      // A length query, and a buffer that was too small, have used nothing yet.
      const asksLength = given["room"] === null || answer.rv === CKR.CKR_BUFFER_TOO_SMALL;
      if (operation === undefined || asksLength) return answer as never;
      // A decryption gives its result away bit by bit, and whoever has it need not finish.
      const gives = call.class === "decrypt" && answer.rv === CKR.CKR_OK;
      const finishes = call.phase !== "update";
      if (finishes) running?.delete(kind);
      if (operation.reported || !(finishes || gives)) return answer as never;
      operation.reported = true;
      const ok = answer.rv === CKR.CKR_OK;
      onUse({
        client: ctx.client,
        key: await nameOf(session, operation.key, ctx),
        mechanism: operation.mechanism,
        call: name,
        ok,
        rv: answer.rv,
        origin: ctx.origin,
      });
      return answer as never;
    },
  };
}
