/*
 * The measure of the interface (design, section 2): a layer that does nothing, one that counts and one that traces take
 * a few lines each and need no list of calls.
 */
import { expect, test } from "vitest";
import { createEmitter } from "../../../src/base/events.js";
import { CALLS, callByName } from "../../../src/cryptoki/calls.js";
import { CKR, rvName } from "../../../src/cryptoki/rv.js";
import type { AnyArgs, CallContext, Cryptoki } from "../../../src/cryptoki/types.js";

const passing = (inner: Cryptoki): Cryptoki => ({ ...inner, call: (name, args, ctx) => inner.call(name, args, ctx) });

function counting(inner: Cryptoki, counts: Map<string, number>): Cryptoki {
  return {
    ...inner,
    call(name, args, ctx) {
      counts.set(name, (counts.get(name) ?? 0) + 1);
      return inner.call(name, args, ctx);
    },
  };
}

function tracing(inner: Cryptoki, line: (text: string) => void): Cryptoki {
  return {
    ...inner,
    async call(name, args, ctx) {
      const answer = await inner.call(name, args, ctx);
      const shown = callByName(name).args.map((arg) => (/pin/i.test(arg) ? `${arg}=***` : `${arg}=${String((args as AnyArgs)[arg])}`));
      line(`${name}(${shown.join(", ")}) ${rvName(answer.rv)}`);
      return answer;
    },
  };
}

test("a no-op, a counting and a tracing layer see every call of the table", async () => {
  const bottom: Cryptoki = { events: createEmitter(), close: async () => undefined, call: async () => ({ rv: CKR.CKR_OK }) as never };
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const stack = passing(
    counting(
      tracing(bottom, (text) => lines.push(text)),
      counts,
    ),
  );
  const ctx = { client: "c", origin: {}, signal: new AbortController().signal } as unknown as CallContext;
  for (const { name } of CALLS) await stack.call(name, {} as never, ctx);
  await stack.call("C_Login", { session: 5n, userType: 1n, pin: Buffer.from("1234") }, ctx);
  expect(counts.size).toBe(CALLS.length);
  expect(lines.at(-1)).toBe("C_Login(session=5, userType=1, pin=***) CKR_OK");
});
