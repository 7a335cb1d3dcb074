/*
 * A Cryptoki that answers from a table and remembers what it was asked, and a server under test around it: what the
 * tests of the p11-kit wire talk to.
 */
import { createEmitter } from "../../src/base/events.js";
import type { CallName } from "../../src/cryptoki/calls.js";
import { LOCAL_ORIGIN } from "../../src/cryptoki/local-context.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallContext, Cryptoki, Origin } from "../../src/cryptoki/types.js";
import { createP11KitServer, type P11KitServer, type P11KitServerOptions } from "../../src/wire/p11kit/server.js";

export const TEST_ORIGIN: Origin = { ...LOCAL_ORIGIN, connectId: "test" };

type Answer = (args: AnyArgs, ctx: CallContext) => AnyResult | Promise<AnyResult>;

export interface RecordedCall {
  readonly name: CallName;
  readonly args: AnyArgs;
  readonly ctx: CallContext;
}

export interface RecordingCryptoki extends Cryptoki {
  readonly calls: RecordedCall[];
}

/** A Cryptoki that answers each call by name, and CKR_OK without outputs where it has no answer. */
export function createRecordingCryptoki(answers: Partial<Record<CallName, Answer>> = {}): RecordingCryptoki {
  const calls: RecordedCall[] = [];
  const call = async (name: CallName, args: AnyArgs, ctx: CallContext): Promise<AnyResult> => {
    calls.push({ name, args, ctx });
    return (await answers[name]?.(args, ctx)) ?? { rv: CKR.CKR_OK };
  };
  return { calls, call: call as Cryptoki["call"], events: createEmitter(), close: async () => {} };
}

export interface ServedCryptoki {
  readonly server: P11KitServer;
  readonly written: Buffer[];
  readonly violations: string[];
  /** Everything written so far in hex. */
  hex(): string;
  /** Resolves when the server has written `messages` messages, the version byte included. */
  wrote(messages: number): Promise<void>;
}

/** A server under test over a Cryptoki. */
export function serve(cryptoki: Cryptoki, options: Partial<P11KitServerOptions> = {}): ServedCryptoki {
  const written: Buffer[] = [];
  const violations: string[] = [];
  const waiting: { messages: number; resolve: () => void }[] = [];
  const server = createP11KitServer({
    cryptoki,
    client: "client-1",
    origin: TEST_ORIGIN,
    write(bytes) {
      written.push(Buffer.from(bytes));
      for (const one of waiting) if (written.length >= one.messages) one.resolve();
    },
    onViolation: (reason) => violations.push(reason),
    ...options,
  });
  return {
    server,
    written,
    violations,
    hex: () => Buffer.concat(written).toString("hex"),
    wrote: (messages) =>
      new Promise((resolve) => {
        if (written.length >= messages) resolve();
        else waiting.push({ messages, resolve });
      }),
  };
}
