/*
 * Says what was done: one event for each use of a private key, whatever the call that finished it. It changes nothing
 * and never holds data, signatures or PINs.
 */

import { printable } from "../base/printable.js";
import { CKA, findBytes } from "../cryptoki/attributes.js";
import { callByName } from "../cryptoki/calls.js";
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

/** The argument that carries the private key, by call. */
function keyArgument(args: AnyArgs): bigint | undefined {
  const key = args["key"] ?? args["baseKey"] ?? args["unwrappingKey"] ?? args["wrappingKey"];
  return typeof key === "bigint" ? key : undefined;
}

/** A Cryptoki that reports each finished private-key operation to `onUse`. */
export function createAudit(inner: Cryptoki, onUse: (use: KeyUse) => void): Cryptoki {
  const running = new Map<bigint, { readonly key: bigint; readonly mechanism: string }>();
  const names = new Map<bigint, string>();

  async function nameOf(session: bigint, object: bigint, ctx: CallContext): Promise<string> {
    const known = names.get(object);
    if (known !== undefined) return known;
    const query = [CKA.CKA_LABEL, CKA.CKA_ID].map((type) => ({ type, room: MAX_LABEL_BYTES }));
    const { attributes } = await inner.call("C_GetAttributeValue", { session, object, query }, ctx);
    const label = printable(findBytes(attributes ?? [], CKA.CKA_LABEL) ?? "");
    const name = label === "" ? `id ${findBytes(attributes ?? [], CKA.CKA_ID)?.toString("hex") ?? "unknown"}` : label;
    names.set(object, name);
    return name;
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
      if (!uses) return answer as never;
      const key = keyArgument(given);
      const mechanism = mechanismName((given["mechanism"] as Mechanism | null | undefined)?.type ?? -1);
      if (call.phase === "init") {
        if (answer.rv === CKR.CKR_OK && key !== undefined) running.set(session, { key, mechanism });
        return answer as never;
      }
      const operation = key === undefined ? running.get(session) : { key, mechanism };
      // A length query, and a buffer that was too small, have used nothing yet.
      const asksLength = given["room"] === null || answer.rv === CKR.CKR_BUFFER_TOO_SMALL;
      const finishes = call.phase === "once" || call.phase === "final" || name === "C_UnwrapKey" || name === "C_WrapKey";
      if (operation === undefined || asksLength || !finishes) return answer as never;
      running.delete(session);
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
