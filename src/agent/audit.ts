/*
 * Says what was done: one event for each use of a private key, whatever the call that finished it. It changes nothing
 * and never holds data, signatures or PINs.
 */

import { printable } from "../base/printable.js";
import { CKA, findBytes } from "../cryptoki/attributes.js";
import { type AnyCall, type CallName, callByName } from "../cryptoki/calls.js";
import { mechanismName } from "../cryptoki/mechanisms.js";
import { CKR } from "../cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallArgs, CallContext, Cryptoki, Mechanism, Origin } from "../cryptoki/types.js";

/** One use of a private key. `key` is its label, else its id in hex; texts are printable. */
export interface KeyUse {
  readonly client: string;
  readonly key: string;
  readonly mechanism: string;
  readonly call: string;
  readonly ok: boolean;
  readonly rv: number;
  readonly origin: Origin;
  /** What the client says that it signs for, null where it cannot say: its own word. */
  readonly purpose: string | null;
  /** What it handed over, null where it cannot say: a digest could be of anything. */
  readonly input: "document" | "digest" | null;
  /** What was signed, as the agent has read it; null where it reads nothing. */
  readonly what: string | null;
}

const MAX_LABEL_BYTES = 256;

interface Operation {
  readonly key: bigint;
  readonly mechanism: string;
  /** Plain text has come out of it already. */
  reported: boolean;
}

/** Calls of the 3.0 message operations: one init, then any number of uses, each a use of its own. */
const isOfMessages = ({ name }: AnyCall): boolean => name.includes("Message");

const usesKey = ({ name, class: cls }: AnyCall): boolean =>
  cls === "sign" || cls === "decrypt" || name === "C_UnwrapKey" || name === "C_WrapKey";

/** What runs beside other operations of a session: signing, signing with recovery, signing messages, decryption. */
function kindOf(call: AnyCall): string {
  if (isOfMessages(call)) return `${call.class} of messages`;
  return `${call.class}${call.name.includes("Recover") ? " with recovery" : ""}`;
}

/** Something came out of a call that may come before the last: whoever has it need not finish. */
function gives(call: AnyCall, answer: AnyResult): boolean {
  if (answer.rv !== CKR.CKR_OK) return false;
  const { output } = answer;
  return isOfMessages(call) ? Buffer.isBuffer(output) && output.length > 0 : call.class === "decrypt";
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

  async function askName(session: bigint, object: bigint, ctx: CallContext): Promise<string> {
    const query = [CKA.CKA_LABEL, CKA.CKA_ID].map((type) => ({ type, room: MAX_LABEL_BYTES }));
    // Whoever takes a request back while the key is in use is told of under the key's name all the same.
    const asking = { ...ctx, signal: new AbortController().signal };
    const { attributes } = await inner.call("C_GetAttributeValue", { session, object, query }, asking);
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

  /** The operation whose use of the key this answer is, or null where it is none; keeps what runs. */
  function usedBy(call: AnyCall, args: AnyArgs, answer: AnyResult, running: Map<string, Operation> | undefined): Operation | null {
    const key = keyArgument(args);
    const kind = kindOf(call);
    const type = (args["mechanism"] as Mechanism | null | undefined)?.type;
    const mechanism = type === undefined ? "none" : mechanismName(type);
    if (call.phase === "init") {
      if (answer.rv === CKR.CKR_OK && key !== undefined) running?.set(kind, { key, mechanism, reported: false });
      return null;
    }
    const operation = key === undefined ? running?.get(kind) : { key, mechanism, reported: false };
    // A length query, and a buffer that was too small, have used nothing yet.
    const asksLength = args["room"] === null || answer.rv === CKR.CKR_BUFFER_TOO_SMALL;
    if (operation === undefined || asksLength) return null;
    const messages = isOfMessages(call);
    const finishes = messages ? call.phase === "once" : call.phase !== "update";
    if (call.phase === "final" || (finishes && !messages)) running?.delete(kind);
    if ((operation.reported && !messages) || !(finishes || gives(call, answer))) return null;
    operation.reported = true;
    return operation;
  }

  function report(key: string, { mechanism }: Operation, call: AnyCall, { rv }: AnyResult, ctx: CallContext): void {
    onUse({
      client: ctx.client,
      key,
      mechanism,
      call: call.name,
      ok: rv === CKR.CKR_OK,
      rv,
      origin: ctx.origin,
      purpose: ctx.purpose === undefined ? null : printable(ctx.purpose),
      input: ctx.input ?? null,
      what: ctx.what ?? null,
    });
  }

  /** A call that uses a private key, or begins to. No async function: each signature passes here twice. */
  function use(call: AnyCall, args: AnyArgs, ctx: CallContext): Promise<AnyResult> {
    const session = args["session"] as bigint;
    // Looked up before: calls of one client overlap, and its session may be closed while the key is in use.
    const running = sessions.get(session)?.running;
    const answering = inner.call(call.name, args as CallArgs, ctx) as Promise<AnyResult>;
    return answering.then((answer) => {
      const operation = usedBy(call, args, answer, running);
      if (operation === null) return answer;
      const known = names.get(operation.key);
      if (known !== undefined) {
        report(known, operation, call, answer, ctx);
        return answer;
      }
      return askName(session, operation.key, ctx).then((name) => {
        report(name, operation, call, answer, ctx);
        return answer;
      });
    });
  }

  return {
    events: inner.events,
    close: () => inner.close(),
    call(name, args, ctx) {
      const call = callByName(name);
      if (usesKey(call)) return use(call, args as AnyArgs, ctx) as Promise<never>;
      const answering = inner.call(name, args, ctx);
      if (call.class !== "session") return answering;
      return answering.then((answer) => {
        follow(name, args as AnyArgs, answer as AnyResult);
        return answer;
      });
    },
  };
}
